from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import search_spaces
from nas.core.schema import from_data, to_data
from search_spaces.backbone import BackboneSpec, Level, pruned_unet_stages


@pytest.mark.parametrize("name", ["tiny", "snapgen_v"])
def test_backbone_survives_as_plain_data(name: str) -> None:
    backbone = search_spaces.get(name).backbone
    assert from_data(BackboneSpec, to_data(backbone)) == backbone


@given(channels=st.sampled_from([48, 80, 320, 640, 1280]), ratio=st.sampled_from([0.25, 0.5, 1.0]))
def test_inner_width_is_divisible_by_every_number_of_heads(channels: int, ratio: float) -> None:
    for space, heads in ((search_spaces.get("tiny"), (2, 4)), (search_spaces.get("snapgen_v"), (4, 8))):
        width = space.backbone.inner_width(channels, ratio)
        assert all(width % count == 0 for count in heads)
        assert abs(width - channels * ratio) <= space.backbone.width_multiple / 2


def test_inner_width_is_at_least_one_multiple() -> None:
    assert search_spaces.get("snapgen_v").backbone.inner_width(16, 0.25) == 16


def test_every_stage_takes_the_channels_that_arrive() -> None:
    for name in search_spaces.names():
        backbone = search_spaces.get(name).backbone
        channels, sizes, size = backbone.base_channels, {"conv_in": (0, backbone.base_channels)}, 0
        for stage in backbone.stages:
            for index, block in enumerate(stage.blocks):
                assert block.in_channels == channels
                assert not block.skip or sizes[block.skip] == (size, block.skip_channels)
                channels = block.out_channels
                sizes[f"{stage.name}.{index}"] = (size, channels)
            size += {"down": 1, "up": -1, "none": 0}[stage.resample]
            sizes[f"{stage.name}.{stage.resample}sample"] = (size, channels)
        assert (size, channels) == (0, backbone.base_channels)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((Level(channels=16), Level(channels=32, down_blocks=(1,))), "level 1 must keep block 0 of its down stage"),
        ((Level(channels=16, up_blocks=(1, 2)), Level(channels=32)), "32 channels to 16, got blocks"),
        ((Level(channels=16, up_blocks=()),), "level 0 must keep a block of its up stage"),
    ],
)
def test_a_stage_keeps_a_block_and_the_one_that_changes_the_width(levels: tuple[Level, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pruned_unet_stages(levels)


def test_skip_of_a_pruned_block_is_what_it_would_have_got() -> None:
    stages = pruned_unet_stages((Level(channels=16, down_blocks=(1,), up_blocks=(0, 1, 2)),), source_levels=1)
    assert [block.skip for block in stages[-1].blocks] == ["down0.0", "conv_in", "conv_in"]
