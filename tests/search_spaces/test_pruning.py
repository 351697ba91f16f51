"""Pruning an image UNet: which units can go, what is left, and the plan file that a space reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import search_spaces
from nas.core.errors import ConfigError, InputError
from nas.core.schema import from_data, to_data
from search_spaces.backbone import BackboneSpec, Level, pruned_unet_stages
from search_spaces.plan import PruningPlan, make_plan, parse_plan, plan_text, read_plan, write_plan
from search_spaces.pruning import (
    SourceUNet,
    backbone_of,
    full_layout,
    layout_cost,
    layout_without,
    may_remove,
    parameter_table,
    possible_depths,
    removable_units,
    skipped_parts,
)
from search_spaces.snapgen_v import snapgen_v, snapgen_v_backbone, snapgen_v_plan
from search_spaces.sources import SD15_SOURCE, get_source

if TYPE_CHECKING:
    from pathlib import Path


def test_unpruned_source_has_the_parameters_of_sd15() -> None:
    # 859,520,964 parameters: UNet2DConditionModel of the published unet/config.json, which is SnapFusion's 860 M.
    table = parameter_table(SD15_SOURCE)
    assert layout_cost(SD15_SOURCE, full_layout(SD15_SOURCE), table) == 859_520_964


def test_units_of_sd15_are_its_residual_blocks_and_its_deepest_level() -> None:
    units = removable_units(SD15_SOURCE)
    names = [unit.name for unit in units]
    assert sum(unit.kind == "attention" for unit in units) == 3 * 2 + 1 + 3 * 3
    # 22 ResNet blocks less the four that change the width: 320-640, 640-1280, 1280-640, 640-320.
    assert sum(unit.kind == "block" for unit in units) == 22 - 4
    assert not {"down_blocks.1.resnets.0", "down_blocks.2.resnets.0"} & set(names)
    assert not {"up_blocks.2.resnets.0", "up_blocks.3.resnets.0"} & set(names)
    assert [unit.name for unit in units if unit.kind == "level"] == ["level.3"]
    assert possible_depths(SD15_SOURCE) == (4, 3)


def test_block_takes_its_transformer_with_it() -> None:
    layout = layout_without(SD15_SOURCE, {"up_blocks.1.resnets.1"})
    assert layout.levels[2].up_blocks == layout.levels[2].up_attentions == (0, 2)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({"down_blocks.1.resnets.0"}, "no units of sd15_unet that can be removed: down_blocks.1.resnets.0"),
        ({"level.2"}, "can be removed: level.2"),
        ({"mid_block.resnets.0", "mid_block.resnets.1"}, "mid_block would keep no block"),
    ],
)
def test_layouts_that_cannot_be_built_are_refused(removed: set[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout_without(SD15_SOURCE, removed)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_may_be_removed_leaves_a_smaller_network(data: st.DataObject) -> None:
    table, removed, before = parameter_table(SD15_SOURCE), set[str](), 1e12
    for _ in range(data.draw(st.integers(1, 12))):
        free = may_remove(SD15_SOURCE, removed)
        removed.add(data.draw(st.sampled_from(free)).name)
        layout = layout_without(SD15_SOURCE, removed)
        backbone_of(SD15_SOURCE, layout, name="x")
        now = layout_cost(SD15_SOURCE, layout, table)
        assert now < before
        before = now


def test_dropped_level_is_skipped_with_its_change_of_resolution() -> None:
    assert skipped_parts(SD15_SOURCE, {"level.3", "up_blocks.3.attentions.2"}) == {
        "down3", "up0", "down2.downsample", "up3.2.attention"
    }  # fmt: skip


def test_default_plan_is_the_layout_of_the_first_release() -> None:
    expected = pruned_unet_stages(
        (
            Level(channels=320),
            Level(channels=640, down_attentions=(0,), up_attentions=(0, 2)),
            Level(channels=1280, down_attentions=(0,), up_attentions=(0, 2)),
        )
    )
    assert snapgen_v_backbone().stages == expected
    assert snapgen_v_backbone().name == "sd15_pruned"
    assert snapgen_v_plan().parameters == 346_884_804
    assert search_spaces.get("snapgen_v").identifier == "snapgen_v/1"


@pytest.fixture
def other_plan() -> PruningPlan:
    layout = layout_without(SD15_SOURCE, {"level.3", "down_blocks.0.attentions.0"})
    return make_plan(SD15_SOURCE, layout, name="other", method="test")


def test_plan_survives_its_file(other_plan: PruningPlan, tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.yaml", other_plan)
    assert read_plan(tmp_path / "plan.yaml") == other_plan


def test_space_of_another_plan_has_its_own_identifier(other_plan: PruningPlan) -> None:
    space = search_spaces.get("snapgen_v", other_plan)
    assert space.identifier == f"snapgen_v-{other_plan.digest}/1"
    assert space.backbone == from_data(BackboneSpec, to_data(other_plan.backbone()))
    assert space.smallest().digest != search_spaces.get("snapgen_v").smallest().digest
    assert snapgen_v(snapgen_v_plan()).identifier == "snapgen_v/1"


def test_digest_is_of_the_network_and_not_of_what_chose_it(other_plan: PruningPlan) -> None:
    again = make_plan(SD15_SOURCE, other_plan.layout, name="renamed", method="greedy", scores="measured")
    assert again.digest == other_plan.digest
    assert snapgen_v_plan().digest != other_plan.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("schema: nas/pruning_plan/1", "schema: nas/pruning_plan/9"), "schema is 'nas/pruning_plan/9'"),
        (("640, down_blocks: [0, 1]", "640, down_blocks: [1]"), "level 1 must keep block 0 of its down stage"),
        (("up_attentions: [0, 1, 2]", "up_attentions: [0, 2]"), "states 617709444 of 859520964 parameters, its layout"),
        (("name: other", "nane: other"), "nane"),
        (("digest: ", "digest: 'x' #"), "digest is 'x', its layout gives"),
        (("layout:", "layout: [unclosed"), "is not YAML"),
    ],
)
def test_faults_of_a_plan_are_named(other_plan: PruningPlan, change: tuple[str, str], message: str) -> None:
    text = plan_text(other_plan)
    assert change[0] in text
    with pytest.raises(InputError, match=message):
        parse_plan(text.replace(*change, 1), where="plan.yaml")


def test_missing_plan_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such pruning plan"):
        read_plan(tmp_path / "absent.yaml")


def test_space_without_a_plan_refuses_one(other_plan: PruningPlan) -> None:
    with pytest.raises(ConfigError, match="'tiny' reads no pruning plan; those that do: snapgen_v"):
        search_spaces.get("tiny", other_plan)


def test_small_source_of_any_depth_can_lose_every_equal_level() -> None:
    source = SourceUNet(
        name="small", channels=(16, 16, 16), attention_levels=(0,), latent_channels=4, latent_downsampling=8,
        text_width=8, text_tokens=4, norm_groups=8, attention_heads=2, time_width=32, width_multiple=8,
    )  # fmt: skip
    assert possible_depths(source) == (3, 2, 1)
    assert layout_without(source, {"level.2", "level.1"}).levels[-1].channels == 16


def test_unknown_source_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown network to prune 'sd51'; known are sd15, toy_image; did you mean"):
        get_source("sd51")
