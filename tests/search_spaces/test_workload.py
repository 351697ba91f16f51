from __future__ import annotations

from random import Random

import pytest

import search_spaces
from nas.core.architecture import Architecture
from nas.core.errors import ConfigError
from nas.core.scenario import Scenario
from nas.core.workload import BlockSpec
from search_spaces.layers import block_inputs, temporal_spec, write_block
from search_spaces.operators import sample

TINY = Scenario(frames=8, height=32, width=32, denoising_steps=4)
FULL = Scenario(frames=16, height=512, width=512, denoising_steps=4)
CASES = [("tiny", TINY), ("snapgen_v", FULL)]


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_every_tensor_is_made_before_it_is_used_and_used_unless_it_is_the_answer(name: str, scenario: Scenario) -> None:
    space = search_spaces.get(name)
    workload = space.workload(sample(space, Random(3)), scenario)
    made, used = {"sample", "timestep", "text"}, set()
    for operation in workload.operations:
        assert set(operation.inputs) <= made, operation.name
        assert not set(operation.outputs) & made, operation.name
        made |= set(operation.outputs)
        used |= set(operation.inputs)
    assert made == {tensor.name for tensor in workload.tensors}
    assert made - used == {"conv_out.output"}


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_answer_has_the_shape_of_the_sample(name: str, scenario: Scenario) -> None:
    space = search_spaces.get(name)
    shapes = {tensor.name: tensor.shape for tensor in space.workload(space.largest(), scenario).tensors}
    assert shapes["conv_out.output"] == shapes["sample"]


def test_temporal_layer_keeps_the_shape_it_is_given() -> None:
    space = search_spaces.get("tiny")
    shapes = {tensor.name: tensor.shape for tensor in space.workload(space.largest(), TINY).tensors}
    assert all(shapes[f"{slot}.temporal.output"] == shapes[f"{slot}.temporal.norm"] for slot in space.slots())


def test_blocks_are_named_in_execution_order() -> None:
    space = search_spaces.get("tiny")
    choices = dict(space.smallest().choices) | {"mid.0.kind": "conv3d", "mid.0.width_ratio": 0.5}
    architecture = type(space.smallest())(space.identifier, choices)
    assert [name for name, _ in space.workload(architecture, TINY).blocks] == [
        *("time_embedding", "conv_in", "down0.0", "down0.downsample", "down1.0", "down1.0.attention"),
        *("mid.0", "mid.0.temporal", "up0.0", "up0.upsample", "up1.0", "up1.0.attention", "conv_out"),
    ]


def test_operations_belong_to_listed_blocks_and_skips_wait_for_their_block() -> None:
    space = search_spaces.get("snapgen_v")
    workload = space.workload(space.smallest(), FULL)
    assert {operation.block for operation in workload.operations} == {name for name, _ in workload.blocks}
    taken = {operation.name: operation.inputs[1] for operation in workload.operations if operation.kind == "concat"}
    assert taken == {
        "up0.0.concat": "down2.0.attention.output",
        "up0.1.concat": "down1.downsample.output",
        "up1.0.concat": "down1.0.attention.output",
        "up1.1.concat": "down0.downsample.output",
        "up2.0.concat": "down0.0.output",
        "up2.1.concat": "conv_in.output",
    }


def test_skip_is_the_output_of_the_temporal_layer_where_there_is_one() -> None:
    space = search_spaces.get("tiny")
    operations = space.workload(space.largest(), TINY).operations
    concat = next(operation for operation in operations if operation.name == "up1.0.concat")
    assert concat.inputs == ("up0.upsample.output", "down0.0.temporal.output")


def test_weight_bytes_follow_the_precision() -> None:
    space = search_spaces.get("tiny")
    single = Scenario(frames=8, height=32, width=32, denoising_steps=4, precision="float32")
    half, full = (space.workload(space.largest(), scenario) for scenario in (TINY, single))
    assert half.weight_bytes == 2 * half.parameters
    assert full.weight_bytes == 4 * half.parameters


def test_calls_count_steps_and_guidance() -> None:
    space = search_spaces.get("tiny")
    guided = Scenario(frames=8, height=32, width=32, denoising_steps=25, guidance=True)
    assert space.workload(space.smallest(), guided).calls == 50


def test_default_backbone_is_within_the_published_share_of_sd15() -> None:
    # 860 M / 2.5 (METHODS, section 1); 340 to 350 M is the demand.
    space = search_spaces.get("snapgen_v")
    assert 340e6 < space.workload(space.smallest(), FULL).parameters < 350e6


def test_tiny_backbone_is_below_a_million_parameters() -> None:
    space = search_spaces.get("tiny")
    assert 0.8e6 < space.workload(space.smallest(), TINY).parameters < 1.0e6


def test_largest_has_more_parameters_than_any_sampled_architecture() -> None:
    space = search_spaces.get("snapgen_v")
    rng = Random(0)
    most = space.workload(space.largest(), FULL).parameters
    assert most > max(space.workload(sample(space, rng), FULL).parameters for _ in range(50))
    assert space.workload(space.smallest(), FULL).parameters < 0.6e9 < most  # "0.6 B" published lies inside


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (Scenario(frames=8, height=40, width=32, denoising_steps=4), "scenario.height: tiny needs a multiple of 16 px"),
        (Scenario(frames=8, height=32, width=8, denoising_steps=4), "scenario.width: tiny needs a multiple of 16 px"),
        (Scenario(frames=33, height=32, width=32, denoising_steps=4), "takes at most 32 latent frames, got 33"),
    ],
)
def test_scenario_that_does_not_fit_is_refused(scenario: Scenario, message: str) -> None:
    space = search_spaces.get("tiny")
    with pytest.raises(ConfigError, match=message):
        space.workload(space.smallest(), scenario)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", "unknown search space 'tinny'; known are snapgen_v, tiny; did you mean 'tiny'?"),
        ("tiny/7", "this release knows version 'tiny/1'"),
    ],
)
def test_unknown_space_lists_known_ones_and_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        search_spaces.get(name)


def test_space_is_found_by_name_and_by_identifier() -> None:
    assert search_spaces.get("tiny") is search_spaces.get("tiny/1")
    assert search_spaces.names() == ("snapgen_v", "tiny")


def test_unknown_kinds_are_refused() -> None:
    backbone = search_spaces.get("tiny").backbone
    with pytest.raises(ValueError, match="unknown temporal kind 'conv4d'"):
        temporal_spec(backbone, {"kind": "conv4d"}, channels=48, frames=8, height=4, width=4)
    spec = BlockSpec.of("conv4d", channels=48, frames=8, height=4, width=4)
    with pytest.raises(ValueError, match="unknown block kind 'conv4d'"):
        write_block("x", spec, {port: port for port in block_inputs(spec)}, 2)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    options = {"channels": 48, "inner": 24, "heads": 5, "groups": 8, "max_frames": 32}
    spec = BlockSpec.of("self_attention_1d", frames=8, height=4, width=4, **options)
    with pytest.raises(ValueError, match="width 24 is not divisible by 5 heads"):
        write_block("x", spec, {"video": "video"}, 2)


_CROSS = {"mid.0.kind": "cross_attention_3d", "mid.0.width_ratio": 0.5, "mid.0.heads": 8}


def test_two_layers_in_a_slot_cost_twice_one_layer() -> None:
    space = search_spaces.get("snapgen_v")
    base = space.workload(space.smallest(), FULL)
    one, two = (
        space.workload(Architecture(space.identifier, dict(space.smallest()) | _CROSS | {"mid.0.depth": depth}), FULL)
        for depth in (1, 2)
    )
    assert two.parameters - base.parameters == 2 * (one.parameters - base.parameters)
    assert two.flops - base.flops == 2 * (one.flops - base.flops)
    assert {"mid.0.temporal.0", "mid.0.temporal.1"} <= {name for name, _ in two.blocks}
