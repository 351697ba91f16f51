"""Text encoders and decoders as components: the same numbers as their libraries, convertible, and their words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from nas.core.errors import InputError, UnavailableError
from nas.export.decoder import VaeFrames, patch_component, vae_component
from nas.export.metadata import ExportMetadata
from nas.export.packaged_coders import PackagedDecoder, PackagedText
from nas.export.parts import write_part
from nas.export.text_encoder import MASKED, ClipTextStates, clip_component, word_component
from nas.export.tokenizer import copy_clip_tokenizer, read_tokenizer, write_words
from nas.export.verification import read_reference, reference_path
from nas.models.caption import CaptionEncoder
from nas.training.codec import PatchCodec
from tests.export.clip_stand_in import LENGTH, WORDS, StandIn

if TYPE_CHECKING:
    from pathlib import Path

    from nas.export.component import Component

FORMS = ("fused", "decomposed")
METADATA = ExportMetadata(author="A. N. Author", license="Apache-2.0")


def some_ids(seed: int = 1) -> torch.Tensor:
    return torch.randint(WORDS, (1, LENGTH), generator=torch.Generator().manual_seed(seed))


def small_vae(kind: str = "AutoencoderKL", *, levels: int = 2) -> Any:
    """16 latent channels, as the toy space takes them; norms are not at one."""
    torch.manual_seed(0)
    channels = (8,) * levels
    if kind == "AutoencoderTiny":
        vae: Any = AutoencoderTiny(
            encoder_block_out_channels=channels,
            decoder_block_out_channels=channels,
            num_encoder_blocks=(1,) * levels,
            num_decoder_blocks=(1,) * levels,
            latent_channels=16,
            scaling_factor=0.5,
        )
    else:
        vae = AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=1,
            norm_num_groups=2,
            latent_channels=16,
            scaling_factor=0.5,
            shift_factor=0.25,
        )
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return vae.eval()


def fitted_codec() -> PatchCodec:
    codec = PatchCodec(patch=8, channels=16)
    generator = torch.Generator().manual_seed(0)
    codec.components.copy_(0.1 * torch.randn(codec.components.shape, generator=generator))
    codec.mean.copy_(0.1 * torch.randn(codec.mean.shape, generator=generator))
    codec.scale.copy_(1.0 + torch.rand(codec.scale.shape, generator=generator))
    return codec


def difference(component: Component, *inputs: torch.Tensor) -> float:
    assert component.reference is not None
    with torch.no_grad():
        return float((component.module(*inputs) - component.reference(*inputs)).abs().max())


@pytest.mark.parametrize("form", FORMS)
def test_clip_states_are_those_of_a_causal_transformer(form: Any) -> None:
    component = clip_component(StandIn(), some_ids(), attention=form)
    assert difference(component, some_ids(2).int()) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_later_words_do_not_change_earlier_states(form: Any) -> None:
    module = ClipTextStates(StandIn(), attention=form).eval()
    before, after = some_ids(), some_ids()
    after[0, 5:] = (after[0, 5:] + 1) % WORDS
    with torch.no_grad():
        first, second = module(before), module(after)
    assert torch.equal(first[0, :5], second[0, :5])
    assert not torch.allclose(first[0, 5:], second[0, 5:], atol=1e-2)


def test_the_mask_is_finite_in_float16() -> None:
    mask = ClipTextStates(StandIn()).mask
    assert torch.isfinite(mask.half()).all()
    assert (mask.min(), mask.max()) == (MASKED, 0.0)


@pytest.mark.parametrize("form", FORMS)
def test_clip_states_are_those_of_transformers(form: Any) -> None:
    transformers = pytest.importorskip("transformers", reason="the text extra is not installed")
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=WORDS - 2,
        eos_token_id=WORDS - 1,
    )
    model = transformers.CLIPTextModel(config).eval()
    assert difference(clip_component(model, some_ids(), attention=form), some_ids(2).int()) < 1e-5


def test_ids_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a caption has 12 tokens, got ids of \(1, 5\)"):
        clip_component(StandIn(), torch.zeros(1, 5, dtype=torch.long))


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
@pytest.mark.parametrize("form", FORMS)
def test_frames_are_those_of_diffusers_with_the_scaling_inside(kind: str, form: Any) -> None:
    component = vae_component(small_vae(kind), frames=2, latent_size=(4, 4), attention=form)
    latents = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pixels = component.module(latents)
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels.std() > 0.01
    assert difference(component, latents) < 1e-5


def test_a_decomposed_decoder_leaves_the_autoencoder_alone() -> None:
    vae = small_vae()
    processors = [type(part.processor).__name__ for part in vae.modules() if hasattr(part, "set_processor")]
    VaeFrames(vae, attention="decomposed")
    assert processors == [type(part.processor).__name__ for part in vae.modules() if hasattr(part, "set_processor")]


def test_patches_are_those_of_the_codec() -> None:
    codec = fitted_codec()
    component = patch_component(
        components=codec.components, scale=codec.scale, mean=codec.mean, patch=8, frames=2, latent_size=(4, 4)
    )
    latents = 3.0 * torch.randn(1, 2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pixels = component.module(latents[0]) * 2.0 - 1.0
    expected = codec.decode(latents)[0]
    assert expected.abs().max() == 1.0  # some are clamped
    assert torch.allclose(pixels, expected, atol=1e-5)


def test_a_clip_package_computes_what_the_model_does(tmp_path: Path) -> None:
    part = write_part(
        clip_component(StandIn(num_layers=1), some_ids(), attention="fused"),
        tmp_path,
        metadata=METADATA,
        lowering="gpu",
        calls="once a caption",
        parity=True,
    )
    (package,) = part.packages
    assert [str(port.shape) + port.dtype for port in package.inputs] == ["(1, 12)int32"]
    assert [str(port.shape) + port.dtype for port in package.outputs] == ["(1, 12, 64)float16"]
    assert all(check.passed for check in part.checks)
    assert read_reference(reference_path(tmp_path / package.file.path)).packages == (package.file.sha256,)
    assert part.parity is not None
    assert min(row.psnr_db or 999.0 for row in part.parity.rows) > 55.0


@pytest.mark.parametrize(("kind", "form"), [("AutoencoderKL", "decomposed"), ("AutoencoderTiny", "fused")])
def test_a_decoder_package_takes_frames_in_parts(tmp_path: Path, kind: str, form: Any) -> None:
    vae = small_vae(kind, levels=1 if kind == "AutoencoderKL" else 2)
    component = vae_component(vae, frames=2, latent_size=(4, 4), attention=form)
    part = write_part(component, tmp_path, metadata=METADATA, lowering="gpu", calls="2 frames", parity=True)
    assert all(check.passed for check in part.checks)
    latents = torch.randn(1, 3, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = vae.decode(latents[0] / 0.5 + (vae.config.shift_factor or 0.0)).sample.clamp(-1.0, 1.0)
    pixels = PackagedDecoder(tmp_path / part.packages[0].file.path)(latents)
    assert pixels.shape == (1, *expected.shape)
    assert torch.allclose(pixels[0], expected, atol=2e-2)


def test_a_word_package_reads_captions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = CaptionEncoder(vocabulary=["a", "red", "ball"], width=64, num_tokens=4).eval()
    part = write_part(
        word_component(encoder, "red ball"), tmp_path, metadata=METADATA, lowering="gpu", calls="once", parity=True
    )
    write_words(encoder.vocabulary, tmp_path / "tokenizer")
    packaged = PackagedText(tmp_path / part.packages[0].file.path, tmp_path / "tokenizer")
    with torch.no_grad():
        expected = encoder.encode(["a red ball", ""]).tokens
    assert torch.allclose(packaged(["a red ball", ""]), expected, atol=5e-3)
    with pytest.raises(ValueError, match="unknown word 'bell', did you mean 'ball'"):
        packaged(["a red bell"])
    with pytest.raises(InputError, match=r"takes input_ids and gives encoder_hidden_states, needed are latents"):
        PackagedDecoder(tmp_path / part.packages[0].file.path)


def test_a_damaged_list_of_words_is_named(tmp_path: Path) -> None:
    write_words(["a", "a"], tmp_path)
    with pytest.raises(InputError, match=r"words\.json: not a list of words: caption vocabulary repeats a word"):
        read_tokenizer(tmp_path, num_tokens=4)
    (tmp_path / "words.json").write_text(json.dumps({"schema": "nas/words/2"}))
    with pytest.raises(InputError, match="schema is 'nas/words/2'"):
        read_tokenizer(tmp_path, num_tokens=4)


def test_a_clip_tokenizer_without_transformers_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UnavailableError, match="needs transformers, which is not installed") as caught:
        read_tokenizer(tmp_path, num_tokens=4)
    assert caught.value.hint == "pip install 'mobile-video-nas[text]'"


def test_only_a_tokenizers_own_files_are_copied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "pytorch_model.bin"):
        (source / name).write_text(name)
    copy_clip_tokenizer(source, tmp_path / "tokenizer")
    assert sorted(path.name for path in (tmp_path / "tokenizer").iterdir()) == [
        "merges.txt",
        "tokenizer_config.json",
        "vocab.json",
    ]
