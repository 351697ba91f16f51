"""Encoders: local pretrained folders (tiny ones made here), and those fitted to the clips themselves."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

import search_spaces
from nas.core.errors import InputError, UnavailableError
from nas.models.caption import StoredCaptions
from nas.models.pretrained import load_clip_text, load_vae
from nas.training.clips import render_by_index
from nas.training.encoders import PretrainedEncoders, load_encoders
from nas.training.fitted_encoders import source_encoders
from nas.training.pipeline import make_pipeline
from nas.training.shard_writer import ShardOptions, encode_shards
from nas.training.shards import ShardedClips
from nas.training.sources import ProceduralSource

if TYPE_CHECKING:
    from pathlib import Path

    from nas.training.stage import Kit

SCALE = 0.18215


@pytest.fixture
def vae_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        scaling_factor=SCALE,
    )
    vae.save_pretrained(tmp_path / "model" / "vae")
    return tmp_path / "model" / "vae"


@pytest.fixture
def model_folder(vae_folder: Path) -> Path:
    """A folder as Stable Diffusion has it, with 96 tokens of one letter each and 12 places."""
    transformers = pytest.importorskip("transformers", reason="the text extra is not installed")
    folder = vae_folder.parent
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    files = (str(folder / "tokenizer" / "vocab.json"), str(folder / "tokenizer" / "merges.txt"))
    transformers.CLIPTokenizer(*files, model_max_length=12).save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
    )
    transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder


def video_encoders(vae_folder: Path) -> PretrainedEncoders:
    return PretrainedEncoders(load_vae(vae_folder), None, torch.nn.Identity(), identity={})


def test_latents_are_the_posterior_mean_scaled(vae_folder: Path) -> None:
    video = render_by_index([0, 1], seed=0, frames=3).video
    latents = video_encoders(vae_folder).encode_video(video)
    frame = torch.from_numpy(video[1, 2:3]).float() / 127.5 - 1
    vae = AutoencoderKL.from_pretrained(vae_folder)
    with torch.no_grad():
        mean, _ = vae.quant_conv(vae.encoder(frame)).chunk(2, dim=1)
    assert latents.shape == (2, 3, 4, 16, 16)
    assert torch.allclose(latents[1, 2], mean[0] * SCALE, atol=1e-5)


def test_a_shift_is_taken_off_before_scaling(vae_folder: Path) -> None:
    video = render_by_index([0], seed=0, frames=1).video
    plain = video_encoders(vae_folder).encode_video(video)
    config = json.loads((vae_folder / "config.json").read_text())
    (vae_folder / "config.json").write_text(json.dumps({**config, "shift_factor": 0.5}))
    assert torch.allclose(video_encoders(vae_folder).encode_video(video), plain - 0.5 * SCALE, atol=1e-5)


def test_a_cell_is_as_wide_as_the_vae_shrinks(vae_folder: Path) -> None:
    assert video_encoders(vae_folder).cell_size == 2


def test_text_rows_are_tokens_and_pooled_text_of_the_model(model_folder: Path) -> None:
    encoders = load_encoders(model_folder)
    rows = encoders.encode_text(["", "a cat"])
    tokenizer, model = load_clip_text(model_folder / "tokenizer", model_folder / "text_encoder")
    ids = tokenizer("a cat", padding="max_length", max_length=12, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model(ids)
    assert rows.shape == (2, 13, 32)
    assert torch.allclose(rows[1, :12], expected.last_hidden_state[0], atol=1e-6)
    assert torch.allclose(rows[1, 12], expected.pooler_output[0], atol=1e-6)


def test_a_pipeline_reads_text_as_its_training_data_was_encoded(model_folder: Path, kit: Kit) -> None:
    encoders = load_encoders(model_folder)
    pipeline = make_pipeline(replace(kit, captions=StoredCaptions(empty=torch.zeros(13, 32)), codec=None))
    pipeline.give_encoders(encoders)
    tokens = pipeline._tokens(["a cat", ""], torch.device("cpu"))
    assert torch.allclose(tokens, encoders.encode_text(["a cat", ""])[:, :-1], atol=1e-6)


def test_captions_that_lose_their_end_are_counted(model_folder: Path, tmp_path: Path) -> None:
    encoders = load_encoders(model_folder)
    assert not encoders.shortens("ten chars")
    source = ProceduralSource(count=2, seed=0, frames=2, size=16)
    index = encode_shards(tmp_path / "shards", source, encoders, options=ShardOptions())
    assert index.num_shortened == 144  # every caption of the task has more than ten letters
    assert index.text_shape == (13, 32)
    assert ShardedClips(tmp_path / "shards", verify=True).latent_shape == (2, 4, 8, 8)


def test_other_weights_have_another_identity(model_folder: Path) -> None:
    before = load_encoders(model_folder).identity
    path = model_folder / "vae" / "config.json"
    path.write_text(path.read_text().replace("0.18215", "0.5"))
    after = load_encoders(model_folder).identity
    assert {name for name in before if before[name] != after[name]} == {"vae", "scaling_factor"}


def test_without_transformers_it_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnavailableError, match="needs transformers, which is not installed") as caught:
        load_clip_text(tmp_path, tmp_path)
    assert caught.value.hint == "pip install 'mobile-video-nas[text]'"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"vae/config.json: does not exist; needed is a folder as diffusers saves a AutoencoderKL"),
        ({"_class_name": "UNet2DConditionModel"}, r"_class_name is 'UNet2DConditionModel', needed is 'AutoencoderKL'"),
    ],
)
def test_a_folder_that_is_no_vae_is_named(tmp_path: Path, config: dict[str, str] | None, message: str) -> None:
    (tmp_path / "vae").mkdir()
    if config is not None:
        (tmp_path / "vae" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        load_encoders(tmp_path)


def test_a_vae_without_safetensors_is_refused(vae_folder: Path) -> None:
    (vae_folder / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"vae: cannot be read as a VAE: .*safetensors"):
        load_vae(vae_folder)


def test_a_folder_without_encoders_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no encoders") as caught:
        load_encoders(tmp_path)
    assert "diffusers folder with vae, tokenizer and text_encoder" in str(caught.value.hint)


def test_fitted_codec_loses_no_more_than_the_best_linear_map() -> None:
    source = ProceduralSource(count=32, seed=0, frames=4, size=32)
    encoders = source_encoders(source, search_spaces.get("tiny").backbone, seed=0)
    video = np.stack([source.read(place).video for place in range(32)]).astype(float)
    error = encoders.codec.decode_clips(encoders.encode_video(video.astype(np.uint8))) - video
    patches = video.reshape(-1, 3, 4, 8, 4, 8).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 192)
    lost = np.linalg.svd(patches - patches.mean(axis=0), compute_uv=False)[16:]
    best = (lost**2).sum() / patches.size  # Eckart and Young: no other 16 numbers a patch give less
    assert (error**2).mean() == pytest.approx(best, rel=0.03)  # pixels are rounded and clipped
