from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from nas.core.errors import CheckpointError
from nas.core.schema import to_data
from nas.models.unet import VideoUNet
from nas.models.weights import load_image_weights
from search_spaces.backbone import BackboneSpec, Level, pruned_unet_stages
from search_spaces.snapgen_v import snapgen_v_backbone

if TYPE_CHECKING:
    from pathlib import Path

NAME = "diffusion_pytorch_model.safetensors"


def small_video_model() -> VideoUNet:
    """The layout of the pruned SD v1.5 backbone with few channels, and one temporal layer."""
    backbone = BackboneSpec(
        name="small",
        latent_channels=4,
        latent_downsampling=8,
        text_width=24,
        text_tokens=5,
        max_frames=4,
        norm_groups=8,
        attention_heads=8,
        time_width=64,
        width_multiple=8,
        stages=pruned_unet_stages(
            (
                Level(channels=16),
                Level(channels=32, down_attentions=(0,), up_attentions=(0, 2)),
                Level(channels=64, down_attentions=(0,), up_attentions=(0, 2)),
            )
        ),
    )
    choices = {f"{slot}.kind": "none" for slot in backbone.slots}
    choices |= {"mid.0.kind": "conv1d", "mid.0.width_ratio": 0.5, "mid.0.kernel": 3}
    torch.manual_seed(1)
    return VideoUNet(space="small/1", choices=choices, backbone=to_data(backbone))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with a random UNet of SD v1.5's key layout and few channels."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd15")
    model = UNet2DConditionModel(
        block_out_channels=(16, 32, 64, 64), cross_attention_dim=24, attention_head_dim=8, norm_num_groups=8
    )
    model.save_pretrained(folder / "unet")
    return folder


def test_kept_weights_are_those_of_the_named_source_blocks(checkpoint: Path) -> None:
    model = small_video_model()
    load_image_weights(model, checkpoint)
    source = load_file(checkpoint / "unet" / NAME)
    found = model.state_dict()
    # By hand from SD v1.5's layout: the deepest kept up stage is up_blocks.1, its second kept ResNet has index 2.
    expected = {
        "conv_in.weight": "conv_in.weight",
        "time_embedding.linear_2.bias": "time_embedding.linear_2.bias",
        "down_blocks.0.downsamplers.0.conv.weight": "down_blocks.0.downsamplers.0.conv.weight",
        "down_blocks.2.attentions.0.proj_in.weight": "down_blocks.2.attentions.0.proj_in.weight",
        "mid_block.resnets.0.conv1.weight": "mid_block.resnets.0.conv1.weight",
        "up_blocks.0.resnets.0.conv1.weight": "up_blocks.1.resnets.0.conv1.weight",
        "up_blocks.0.resnets.1.conv1.weight": "up_blocks.1.resnets.2.conv1.weight",
        "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k.weight": (
            "up_blocks.2.attentions.2.transformer_blocks.0.attn2.to_k.weight"
        ),
        "up_blocks.0.upsamplers.0.conv.bias": "up_blocks.1.upsamplers.0.conv.bias",
        "up_blocks.2.resnets.1.conv_shortcut.weight": "up_blocks.3.resnets.2.conv_shortcut.weight",
        "conv_norm_out.weight": "conv_norm_out.weight",
    }
    for key, origin in expected.items():
        assert torch.equal(found[key], source[origin]), key


def test_report_lists_every_key_once_with_its_size(checkpoint: Path) -> None:
    model = small_video_model()
    report = load_image_weights(model, checkpoint)
    source = load_file(checkpoint / "unet" / NAME)
    assert sorted(entry.source for entry in (*report.kept, *report.dropped)) == sorted(source)
    assert report.kept_parameters + report.dropped_parameters == sum(tensor.numel() for tensor in source.values())
    assert {entry.key for entry in (*report.kept, *report.new)} == {name for name, _ in model.named_parameters()}
    assert all(entry.key.startswith("temporal_layers.mid_0.") for entry in report.new)
    assert report.new_parameters == sum(parameter.numel() for parameter in model.temporal_layers.parameters())
    assert any(entry.key.startswith("down_blocks.3.") for entry in report.dropped)


@pytest.mark.parametrize("inside", ["unet", f"unet/{NAME}"])
def test_unet_folder_and_single_file_are_read_too(checkpoint: Path, inside: str) -> None:
    one, two = small_video_model(), small_video_model()
    load_image_weights(one, checkpoint)
    load_image_weights(two, checkpoint / inside)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_half_precision_file_is_cast(checkpoint: Path, tmp_path: Path) -> None:
    tensors = {key: tensor.half() for key, tensor in load_file(checkpoint / "unet" / NAME).items()}
    save_file(tensors, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    model = small_video_model()
    load_image_weights(model, tmp_path)
    assert model.conv_in.weight.dtype == torch.float32
    assert torch.equal(model.conv_in.weight, tensors["conv_in.weight"].float())


def ldm_key(key: str) -> str:
    """Key of the original release for a diffusers key, written down from the two published layouts."""
    fixed = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    stem, _, kind = key.rpartition(".")
    if stem in fixed:
        return f"{fixed[stem]}.{kind}"
    parts = key.split(".")
    if parts[0] == "mid_block":
        place, rest = f"middle_block.{2 * int(parts[2]) + (parts[1] == 'attentions')}", parts[3:]
    else:
        stage, part, index, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
        if part == "downsamplers":
            return f"input_blocks.{3 * stage + 3}.0.op.{kind}"
        if part == "upsamplers":
            return f"output_blocks.{3 * stage + 2}.{2 if stage else 1}.conv.{kind}"
        first = "input" if parts[0] == "down_blocks" else "output"
        number = 3 * stage + index + (first == "input")
        place = f"{first}_blocks.{number}.{int(part == 'attentions')}"
    inner = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    if "attentions" in parts:
        return ".".join([place, *rest])
    return ".".join([place, inner[rest[0]], *rest[1:]])


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
def test_layout_of_the_original_release_gives_the_same_weights(checkpoint: Path, tmp_path: Path, prefix: str) -> None:
    tensors = {f"{prefix}{ldm_key(key)}": value for key, value in load_file(checkpoint / "unet" / NAME).items()}
    tensors["first_stage_model.decoder.conv_in.weight"] = torch.zeros(1)
    save_file(tensors, tmp_path / "v1-5.safetensors")
    one, two = small_video_model(), small_video_model()
    load_image_weights(one, checkpoint)
    report = load_image_weights(two, tmp_path / "v1-5.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert all(entry.source.startswith(prefix) for entry in report.kept)


def test_full_size_backbone_takes_the_keys_and_shapes_of_sd15() -> None:
    with torch.device("meta"):
        reference = UNet2DConditionModel(cross_attention_dim=768)  # diffusers' defaults are SD v1.5's layout
        spec = snapgen_v_backbone()
        choices = {f"{slot}.kind": "none" for slot in spec.slots}
        model = VideoUNet(space="snapgen_v/1", choices=choices, backbone=to_data(spec))
    from nas.models.weights import source_keys

    shapes = {key: parameter.shape for key, parameter in reference.named_parameters()}
    parameters = dict(model.named_parameters())
    assert {key: shapes[source] for key, source in source_keys(model).items()} == {
        key: parameter.shape for key, parameter in parameters.items()
    }
    # 859.5 M is SD v1.5 (SnapFusion, table 1: 860 M); 2.5x smaller is the published ratio.
    assert sum(shape.numel() for shape in shapes.values()) == pytest.approx(860e6, rel=1e-3)


def test_nothing_is_copied_unless_everything_fits(checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoint / "unet" / NAME)
    del tensors["conv_out.bias"]
    tensors["mid_block.resnets.0.conv1.weight"] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / NAME)
    model = small_video_model()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(CheckpointError) as caught:
        load_image_weights(model, tmp_path)
    assert {(problem.path, problem.message) for problem in caught.value.problems} == {
        ("conv_out.bias", "is missing"),
        ("mid_block.resnets.0.conv1.weight", "has shape (3, 3), needs (64, 64, 3, 3)"),
    }
    assert "2 of" in str(caught.value)
    assert "conv_out.bias is missing" in str(caught.value)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_unknown_key_layout_names_the_first_keys(tmp_path: Path) -> None:
    save_file({"lora_unet_down.alpha": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(
        CheckpointError, match=r"neither the diffusers UNet layout .* begins with lora_unet_down\.alpha"
    ):
        load_image_weights(small_video_model(), tmp_path / "lora.safetensors")


@pytest.mark.parametrize("kept_ratio", [0.0, 0.001, 0.5])
def test_truncated_file_is_named(checkpoint: Path, tmp_path: Path, kept_ratio: float) -> None:
    data = (checkpoint / "unet" / NAME).read_bytes()
    path = tmp_path / NAME
    path.write_bytes(data[: int(len(data) * kept_ratio)])
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: cannot be read as safetensors")):
        load_image_weights(small_video_model(), path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent", "does not exist"),
        (lambda folder: folder, "holds none of diffusion_pytorch_model.safetensors"),
        (lambda folder: _touched(folder / "model.ckpt"), "only .safetensors files are read"),
    ],
)
def test_paths_without_weights_are_refused(tmp_path: Path, make: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_image_weights(small_video_model(), make(tmp_path))


def _touched(path: Path) -> Path:
    path.touch()
    return path
