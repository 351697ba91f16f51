from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

import search_spaces
from nas.core.errors import ArchitectureError
from nas.core.scenario import Scenario
from nas.core.schema import to_data
from nas.models.build import build_denoiser, build_temporal_layer, example_inputs
from nas.models.unet import VideoUNet
from nas.models.weights import load_image_weights
from search_spaces.backbone import BackboneSpec, Level, pruned_unet_stages
from search_spaces.layers import TEMPORAL_KINDS
from search_spaces.operators import sample

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.architecture import Architecture
    from search_spaces import TemporalSpace

SCENARIO = Scenario(frames=8, height=32, width=32, denoising_steps=4)


@pytest.fixture(scope="module")
def space() -> TemporalSpace:
    return search_spaces.get("tiny")


def one_of_every_kind(space: TemporalSpace, kinds: tuple[str, ...]) -> Architecture:
    options = []
    for slot, kind in zip(space.slots(), kinds, strict=True):
        wanted = [index for index, option in enumerate(space.options(slot)) if option[f"{slot}.kind"] == kind]
        options.append(wanted[0])
    return space.from_options(options)


def busy_model(space: TemporalSpace, architecture: Architecture) -> VideoUNet:
    """A network whose temporal layers are no longer identities."""
    torch.manual_seed(0)
    model = build_denoiser(space, architecture)
    for layer in model.temporal_layers.values():
        layer.proj_out.reset_parameters()
    return model


MIXED = ("conv1d", "cross_attention_3d", "self_attention_1d", "conv3d", "cross_attention_1d")


@pytest.mark.parametrize("seed", range(6))
def test_fresh_temporal_layers_give_every_frame_the_image_models_output(space: TemporalSpace, seed: int) -> None:
    torch.manual_seed(seed)
    video_model = build_denoiser(space, sample(space, Random(seed))).eval()
    image_model = build_denoiser(space, space.smallest()).eval()
    image_model.load_state_dict(
        {key: value for key, value in video_model.state_dict().items() if not key.startswith("temporal_layers.")}
    )
    video, time, text = example_inputs(space, SCENARIO, batch=2)
    with torch.no_grad():
        together = video_model(video, time, text)
        for frame in range(video.shape[1]):
            alone = image_model(video[:, frame : frame + 1], time, text)
            torch.testing.assert_close(together[:, frame : frame + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", TEMPORAL_KINDS[1:])
def test_every_kind_starts_as_identity_and_mixes_frames_afterwards(space: TemporalSpace, kind: str) -> None:
    workload = space.workload(one_of_every_kind(space, (kind,) * 5), SCENARIO)
    layer = build_temporal_layer(dict(workload.blocks)["down0.0.temporal"]).eval()
    torch.manual_seed(1)
    video, text = torch.randn(2, 8, 48, 4, 4), torch.randn(2, 12, 64)
    with torch.no_grad():
        assert torch.equal(layer(video, text), video)
        layer.proj_out.reset_parameters()
        changed = video.clone()
        changed[:, 4] = torch.randn(2, 48, 4, 4)
        difference = (layer(changed, text) - layer(video, text)).abs().amax(dim=(0, 2, 3, 4))
        assert difference[3] > 1e-4
        assert difference[5] > 1e-4


@pytest.mark.parametrize("kind", TEMPORAL_KINDS[1:])
def test_only_cross_attention_kinds_see_the_text(space: TemporalSpace, kind: str) -> None:
    workload = space.workload(one_of_every_kind(space, (kind,) * 5), SCENARIO)
    layer = build_temporal_layer(dict(workload.blocks)["down0.0.temporal"]).eval()
    torch.manual_seed(1)
    layer.proj_out.reset_parameters()
    video, text = torch.randn(1, 8, 48, 4, 4), torch.randn(1, 12, 64)
    with torch.no_grad():
        same = torch.equal(layer(video, text), layer(video, 2 * text))
    assert same is not kind.startswith("cross")


@pytest.mark.parametrize("kind", TEMPORAL_KINDS[1:])
def test_one_dimensional_kinds_keep_pixels_apart_and_three_dimensional_ones_do_not(
    space: TemporalSpace, kind: str
) -> None:
    workload = space.workload(one_of_every_kind(space, (kind,) * 5), SCENARIO)
    layer = build_temporal_layer(dict(workload.blocks)["down0.0.temporal"]).eval()
    torch.manual_seed(1)
    layer.proj_out.reset_parameters()
    layer.norm = torch.nn.Identity()  # the norm itself mixes the pixels of a frame
    video, text = torch.randn(1, 8, 48, 4, 4), torch.randn(1, 12, 64)
    changed = video.clone()
    changed[..., 0, 0] = torch.randn(1, 8, 48)
    with torch.no_grad():
        elsewhere = (layer(changed, text) - layer(video, text))[..., 1, 1].abs().max()
    assert (float(elsewhere) > 0) is kind.endswith("3d")


def test_clips_of_a_batch_do_not_see_each_other(space: TemporalSpace) -> None:
    model = busy_model(space, one_of_every_kind(space, MIXED)).eval()
    video, time, text = example_inputs(space, SCENARIO, batch=3)
    time = torch.tensor([100.0, 500.0, 900.0])
    with torch.no_grad():
        together = model(video, time, text)
        apart = torch.cat([model(video[i : i + 1], time[i : i + 1], text[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", ["down_blocks.1.attentions.0", "temporal_layers.up1_0", "temporal_layers.down1_0"])
def test_sharing_text_equals_repeating_it(space: TemporalSpace, module: str) -> None:
    model = busy_model(space, one_of_every_kind(space, MIXED)).eval()
    block = next(m for m in model.get_submodule(module).modules() if type(m).__name__ == "BasicTransformerBlock")
    tokens, text = torch.randn(6, 5, block.dim), torch.randn(2, 12, 64)
    with torch.no_grad():
        shared = block(tokens, encoder_hidden_states=text)
        block.attn2.set_processor(AttnProcessor2_0())
        repeated = block(tokens, encoder_hidden_states=text.repeat_interleave(3, dim=0))
    torch.testing.assert_close(shared, repeated, rtol=1e-5, atol=1e-5)


def test_one_frame_skips_temporal_layers(space: TemporalSpace) -> None:
    model = busy_model(space, one_of_every_kind(space, MIXED)).eval()
    image, time, text = example_inputs(space, Scenario(frames=1, height=32, width=32, denoising_steps=4))
    with torch.no_grad():
        before = model(image, time, text)
        model.temporal_layers.clear()
        assert torch.equal(model(image, time, text), before)


def test_save_and_load_keep_architecture_weights_and_output(space: TemporalSpace, tmp_path: Path) -> None:
    model = busy_model(space, one_of_every_kind(space, MIXED)).eval()
    model.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = VideoUNet.from_pretrained(tmp_path)
    inputs = example_inputs(space, SCENARIO)
    assert loaded.architecture == model.architecture
    assert loaded.architecture.digest == model.architecture.digest
    with torch.no_grad():
        assert torch.equal(loaded(*inputs), model(*inputs))


def test_gradient_checkpointing_changes_no_gradient(space: TemporalSpace) -> None:
    model = busy_model(space, one_of_every_kind(space, MIXED)).train()
    inputs = example_inputs(space, SCENARIO, batch=2)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(*inputs).square().mean().backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    plain = gradients()
    model.enable_gradient_checkpointing()
    calls = []
    for layer in model.temporal_layers.values():
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    checkpointed = gradients()
    assert len(calls) == 2 * 5  # each temporal layer ran again on the way back
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_bfloat16_runs_close_to_float32(space: TemporalSpace) -> None:
    model = busy_model(space, one_of_every_kind(space, MIXED)).eval()
    video, time, text = example_inputs(space, SCENARIO)
    with torch.no_grad():
        expected = model(video, time, text)
        found = model.to(torch.bfloat16)(video.bfloat16(), time, text.bfloat16())
    assert found.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits; errors of about 40 layers in a row add up to a few per cent.
    assert (found.float() - expected).norm() < 0.05 * expected.norm()


def test_channels_last_gives_the_same_output_and_gradients(space: TemporalSpace) -> None:
    model = busy_model(space, one_of_every_kind(space, MIXED))
    inputs = example_inputs(space, SCENARIO)
    expected = model(*inputs)
    model = model.to(memory_format=torch.channels_last)
    assert model.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    found = model(*inputs)
    found.sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_features_are_those_of_down_stages_and_middle_and_carry_gradients(space: TemporalSpace) -> None:
    model = busy_model(space, one_of_every_kind(space, MIXED))
    video, time, text = example_inputs(space, SCENARIO, batch=2)
    video.requires_grad_()
    features = model.encode(video, time, text)
    assert [tuple(feature.shape) for feature in features] == [(2, 8, 48, 4, 4), (2, 8, 80, 2, 2), (2, 8, 80, 2, 2)]
    sum(feature.sum() for feature in features).backward()
    assert video.grad is not None
    assert video.grad.abs().sum() > 0


def test_features_beside_the_output_equal_both_alone(space: TemporalSpace) -> None:
    model = busy_model(space, one_of_every_kind(space, MIXED)).eval()
    inputs = example_inputs(space, SCENARIO)
    with torch.no_grad():
        output, features = model.forward_with_features(*inputs)
        assert torch.equal(output, model(*inputs))
        assert all(torch.equal(one, two) for one, two in zip(features, model.encode(*inputs), strict=True))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 8, 4, 4, 4), (1,), (1, 12, 64)), r"sample must be \(batch, frames, 16, height, width\)"),
        (((1, 33, 16, 4, 4), (1,), (1, 12, 64)), "sample has 33 frames, tiny has positions for 32"),
        (((2, 8, 16, 4, 4), (1,), (2, 12, 64)), r"timestep must be \(2,\), one per clip, got \(1,\)"),
        (((2, 8, 16, 4, 4), (2,), (1, 12, 64)), r"encoder_hidden_states must be \(2, tokens, 64\), got \(1, 12, 64\)"),
    ],
)
def test_wrong_shapes_are_named(
    space: TemporalSpace, shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], message: str
) -> None:
    model = build_denoiser(space, space.smallest())
    with pytest.raises(ValueError, match=message):
        model(*(torch.zeros(shape) for shape in shapes))


def test_architecture_of_another_space_is_refused(space: TemporalSpace) -> None:
    with pytest.raises(ArchitectureError, match="belongs to space 'snapgen_v/1', not to 'tiny/1'"):
        build_denoiser(space, search_spaces.get("snapgen_v").smallest())


def test_temporal_layers_are_found_by_slot(space: TemporalSpace) -> None:
    model = build_denoiser(space, one_of_every_kind(space, ("none", "conv1d", "none", "none", "none")))
    assert model.temporal_layer("down0.0") is None
    assert type(model.temporal_layer("down1.0")).__name__ == "TemporalConv"


def test_unpruned_backbone_equals_the_unet_of_diffusers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=8,
    ).eval()
    reference.save_pretrained(tmp_path)
    every = {"down_blocks": (0, 1), "up_blocks": (0, 1, 2)}
    backbone = BackboneSpec(
        name="unpruned",
        latent_channels=4,
        latent_downsampling=8,
        text_width=24,
        text_tokens=5,
        max_frames=4,
        norm_groups=8,
        attention_heads=4,
        time_width=64,
        width_multiple=8,
        stages=pruned_unet_stages(
            (
                Level(channels=16, **every),
                Level(channels=32, down_attentions=(0, 1), up_attentions=(0, 1, 2), **every),
            ),
            source_levels=2,
        ),
    )
    choices = {f"{slot}.kind": "none" for slot in backbone.slots}
    model = VideoUNet(space="unpruned/1", choices=choices, backbone=to_data(backbone)).eval()
    report = load_image_weights(model, tmp_path)
    assert report.dropped == report.new == ()
    image, time, text = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 700.0]), torch.randn(2, 5, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(image[:, None], time, text)[:, 0], reference(image, time, text).sample)
