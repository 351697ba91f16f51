"""The diffusers pipeline: frames of the project's own sampler, saved and read back, with any of its parts missing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from nas.core.errors import CheckpointError, InputError
from nas.models.caption import StoredCaptions
from nas.models.pretrained import load_vae
from nas.training.encoders import LearnedEncoders, PretrainedEncoders
from nas.training.evaluation import generate
from nas.training.pipeline import as_bytes, load_pipeline, make_pipeline, save_pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from nas.training.sampling import Sampler
    from nas.training.stage import Kit

CAPTIONS = ["a red circle moving left slowly", "a blue square standing still"]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def saved(kit: Kit, tmp_path: Path) -> Path:
    save_pipeline(make_pipeline(kit), tmp_path / "pipeline")
    return tmp_path / "pipeline"


@pytest.mark.parametrize(
    ("steps", "guidance", "sampler"), [(4, 1.0, "euler"), (6, 1.0, "euler"), (3, 3.0, "euler"), (4, 1.0, "renoise")]
)
def test_frames_are_those_of_the_training_samplers(kit: Kit, steps: int, guidance: float, sampler: Sampler) -> None:
    pipeline = make_pipeline(kit, sampler=sampler)
    made = pipeline(CAPTIONS, num_inference_steps=steps, guidance_scale=guidance, generator=seeded()).frames
    wanted = generate(kit, CAPTIONS, steps=steps, guidance=guidance, seed=7, sampler=sampler)
    assert np.abs(as_bytes(made).astype(int) - wanted.astype(int)).max() <= 1  # rounding of the last bit


def test_default_is_the_trained_times_without_guidance(kit: Kit) -> None:
    calls = []
    kit.denoiser.register_forward_pre_hook(lambda _, inputs: calls.append((len(inputs[0]), float(inputs[1][0]))))
    make_pipeline(kit, times=(1.0, 0.6, 0.2))(CAPTIONS, generator=seeded())
    assert calls == [(2, 1000.0), (2, pytest.approx(600.0)), (2, pytest.approx(200.0))]


def test_a_saved_pipeline_makes_the_same_frames(kit: Kit, saved: Path) -> None:
    before = make_pipeline(kit)(CAPTIONS, generator=seeded()).frames
    assert np.array_equal(load_pipeline(saved)(CAPTIONS, generator=seeded()).frames, before)


def test_a_saved_pipeline_is_safetensors_and_json_alone(saved: Path) -> None:
    assert {path.suffix for path in saved.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    assert list(saved.parent.iterdir()) == [saved]


def test_saving_again_replaces_the_older_one(kit: Kit, saved: Path) -> None:
    save_pipeline(make_pipeline(kit, times=(1.0, 0.5)), saved)
    assert load_pipeline(saved).settings.times == [1.0, 0.5]


def test_every_form_of_frames_has_its_shape(kit: Kit) -> None:
    pipeline = make_pipeline(kit)
    forms = {
        form: pipeline(CAPTIONS, num_inference_steps=1, generator=seeded(), output_type=form).frames
        for form in ("np", "pt", "latent", "pil")
    }
    assert forms["np"].shape == (2, 8, 32, 32, 3)
    assert np.array_equal(forms["pt"].permute(0, 1, 3, 4, 2).numpy(), forms["np"])
    assert forms["latent"].shape == (2, 8, 16, 4, 4)
    assert (len(forms["pil"]), len(forms["pil"][0]), forms["pil"][0][0].size) == (2, 8, (32, 32))
    assert np.array_equal(np.asarray(forms["pil"][1][3]), (forms["np"][1, 3] * 255).round().astype(np.uint8))


def test_given_noise_goes_before_the_generator(kit: Kit) -> None:
    noise = torch.randn(1, *kit.latent_shape, generator=seeded())
    pipeline = make_pipeline(kit)
    by_noise = pipeline(CAPTIONS[0], latents=noise).frames
    assert np.array_equal(by_noise, pipeline(CAPTIONS[0], generator=seeded()).frames)


def test_an_unknown_word_names_the_vocabulary(kit: Kit) -> None:
    with pytest.raises(ValueError, match=r"unknown word 'cat'.*known words are \['a', 'blue'"):
        make_pipeline(kit)("a red cat")


def test_missing_parts_are_named(kit: Kit) -> None:
    bare = replace(kit, captions=StoredCaptions(empty=torch.zeros(4, 64)), codec=None)
    with pytest.raises(ValueError, match="has no text encoder; its training text was encoded beforehand"):
        make_pipeline(bare)(CAPTIONS)
    words = make_pipeline(replace(kit, codec=None))
    with pytest.raises(ValueError, match="has no codec; ask for output_type 'latent'"):
        words(CAPTIONS[0], num_inference_steps=1)


def test_a_pipeline_without_encoders_takes_those_of_its_data_only(kit: Kit, tmp_path: Path) -> None:
    own = LearnedEncoders(kit.codec, kit.captions)
    bare = replace(kit, captions=StoredCaptions(empty=torch.zeros(13, 64)), codec=None)
    save_pipeline(make_pipeline(bare, encoder=own.identity), tmp_path / "pipeline")
    pipeline = load_pipeline(tmp_path / "pipeline")
    pipeline.give_encoders(own)
    wanted = make_pipeline(kit)(CAPTIONS, generator=seeded()).frames
    assert np.array_equal(pipeline(CAPTIONS, generator=seeded()).frames, wanted)
    with torch.no_grad():
        kit.captions.words.weight.add_(1.0)
    with pytest.raises(InputError, match="trained on latents and text of other encoders: captions differ"):
        load_pipeline(tmp_path / "pipeline").give_encoders(LearnedEncoders(kit.codec, kit.captions))


def test_a_vae_decodes_what_it_encoded(kit: Kit, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, shift_factor=0.3).save_pretrained(tmp_path / "vae")
    vae = load_vae(tmp_path / "vae")
    encoders = PretrainedEncoders(vae, None, torch.nn.Identity(), identity={})
    video = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 8, 8), dtype=np.uint8)
    pipeline = make_pipeline(kit)
    pipeline.register_modules(codec=vae)
    frames = pipeline._frames(encoders.encode_video(video), "pt")
    pixels = torch.from_numpy(video[0]).float() / 127.5 - 1
    with torch.no_grad():
        wanted = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    assert torch.allclose(frames[0], (wanted / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_a_damaged_or_foreign_folder_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone/model_index.json: does not exist"):
        load_pipeline(tmp_path / "gone")
    weights = saved / "denoiser" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"pipeline: cannot be read as a pipeline"):
        load_pipeline(saved)


def test_index_of_the_pipeline_has_no_path_of_this_machine(saved: Path) -> None:
    assert str(saved.parent) not in json.dumps(json.loads((saved / "model_index.json").read_text()))
