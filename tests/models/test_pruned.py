"""Pruned image networks compute what the source does with the pruned units left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from nas.models.pruned import build_pruned, build_source
from nas.models.weights import load_image_weights
from search_spaces.pruning import SourceUNet, full_layout, layout_without, skipped_parts

if TYPE_CHECKING:
    from pathlib import Path

    from nas.models.unet import VideoUNet

SOURCE = SourceUNet(
    name="small_sd",
    channels=(16, 32, 64, 64),
    attention_levels=(0, 1, 2),
    latent_channels=4,
    latent_downsampling=8,
    text_width=24,
    text_tokens=5,
    norm_groups=8,
    attention_heads=8,
    time_width=64,
    width_multiple=8,
)


@pytest.fixture
def network() -> VideoUNet:
    torch.manual_seed(0)
    return build_source(SOURCE).eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 1, 4, 16, 16), torch.tensor([10.0, 700.0]), torch.randn(2, 5, 24)


@pytest.mark.parametrize(
    "removed",
    [
        set(),
        {"down_blocks.0.attentions.1", "up_blocks.3.attentions.0"},
        {"down_blocks.0.resnets.0"},
        {"down_blocks.2.resnets.1", "up_blocks.1.resnets.0", "mid_block.resnets.0"},
        {"level.3", "up_blocks.1.resnets.1", "mid_block.attentions.0"},
        {"down_blocks.3.resnets.0", "up_blocks.0.resnets.0", "up_blocks.0.resnets.2"},
    ],
)
@torch.no_grad()
def test_pruned_network_is_the_source_without_the_units(network: VideoUNet, removed: set[str]) -> None:
    pruned = build_pruned(network, SOURCE, layout_without(SOURCE, removed), name="pruned").eval()
    skipped = skipped_parts(SOURCE, removed)
    wanted, wanted_features = network.forward_with_features(*inputs(), skipped=skipped)
    found, features = pruned.forward_with_features(*inputs())
    assert torch.equal(found, wanted)
    assert torch.equal(network(*inputs(), skipped=skipped), wanted)
    assert len(features) == len(wanted_features)
    assert all(torch.equal(a, b) for a, b in zip(features, wanted_features, strict=True))


@torch.no_grad()
def test_every_removal_changes_the_output(network: VideoUNet) -> None:
    from search_spaces.pruning import removable_units

    whole = network(*inputs())
    for unit in removable_units(SOURCE):
        assert not torch.equal(network(*inputs(), skipped=skipped_parts(SOURCE, {unit.name})), whole), unit.name


@torch.no_grad()
def test_source_computes_what_diffusers_does_with_its_own_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = UNet2DConditionModel(
        block_out_channels=SOURCE.channels, cross_attention_dim=24, attention_head_dim=8, norm_num_groups=8
    ).eval()
    reference.save_pretrained(tmp_path / "unet")
    network = build_source(SOURCE).eval()
    report = load_image_weights(network, tmp_path)
    assert not report.dropped
    assert not report.new
    sample, time, text = inputs()
    wanted = reference(sample[:, 0], time, text, return_dict=False)[0]
    assert torch.allclose(network(sample, time, text)[:, 0], wanted, atol=1e-5)


def test_layout_of_everything_keeps_everything(network: VideoUNet) -> None:
    pruned = build_pruned(network, SOURCE, full_layout(SOURCE), name="all")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in pruned.state_dict().items())
