"""The description without torch equals the torch network: parameters and FLOPs, layer by layer and whole."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import search_spaces
from nas.core.scenario import Scenario
from nas.core.workload import BlockSpec
from nas.models.build import build_block, build_denoiser, example_inputs
from search_spaces.layers import BLOCK_KINDS, block_inputs, write_block
from search_spaces.operators import sample

if TYPE_CHECKING:
    from torch import nn

TINY = Scenario(frames=8, height=32, width=32, denoising_steps=4)
SMALL = Scenario(frames=4, height=64, width=64, denoising_steps=4)  # full-size network, few latent pixels
FULL = Scenario(frames=16, height=512, width=512, denoising_steps=4)
SIZES = [(1, 4, 4), (8, 4, 4), (3, 6, 2), (5, 2, 8)]  # frames, height, width
SHARED = {"channels": 32, "inner": 16, "groups": 8}
ATTENTION = SHARED | {"heads": 4, "max_frames": 16}
TEXT = {"text_tokens": 7, "text_width": 24}
KINDS: list[tuple[str, dict[str, int]]] = [
    ("conv_in", {"in_channels": 4, "out_channels": 32}),
    ("conv_out", {"in_channels": 32, "out_channels": 4, "groups": 8}),
    ("resnet", {"in_channels": 32, "skip_channels": 0, "out_channels": 32, "time_width": 20, "groups": 8}),
    ("resnet", {"in_channels": 32, "skip_channels": 0, "out_channels": 48, "time_width": 20, "groups": 8}),
    ("resnet", {"in_channels": 32, "skip_channels": 16, "out_channels": 32, "time_width": 20, "groups": 8}),
    ("resnet", {"in_channels": 16, "skip_channels": 16, "out_channels": 32, "time_width": 20, "groups": 8}),
    ("spatial_attention", {"channels": 32, "heads": 4, "groups": 8} | TEXT),
    ("downsample", {"channels": 32}),
    ("upsample", {"channels": 32}),
    ("conv1d", SHARED | {"kernel": 3}),
    ("conv1d", SHARED | {"kernel": 5}),
    ("conv3d", SHARED | {"kernel": 3}),
    ("self_attention_1d", ATTENTION),
    ("self_attention_3d", ATTENTION),
    ("cross_attention_1d", ATTENTION | TEXT),
    ("cross_attention_3d", ATTENTION | TEXT),
]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def measured_flops(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops()


def check_block(spec: BlockSpec) -> None:
    operations, tensors = write_block("block", spec, {port: port for port in block_inputs(spec)}, 2)
    module, inputs = build_block(spec, device="meta")
    assert sum(operation.parameters for operation in operations) == count(module)
    assert sum(operation.flops for operation in operations) == measured_flops(module, inputs)
    shape = tensors[-1].shape
    assert tuple(module(*inputs).shape)[-len(shape) :] == shape


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind for kind, _ in KINDS])
def test_block_has_the_described_parameters_and_flops(
    kind: str, options: dict[str, int], size: tuple[int, int, int]
) -> None:
    frames, height, width = size
    check_block(BlockSpec.of(kind, frames=frames, height=height, width=width, **options))


@pytest.mark.parametrize(("channels", "time_width"), [(32, 64), (320, 1280)])
def test_time_embedding_has_the_described_parameters_and_flops(channels: int, time_width: int) -> None:
    check_block(BlockSpec.of("time_embedding", channels=channels, time_width=time_width))


def test_every_block_kind_of_the_catalogue_is_checked() -> None:
    assert {kind for kind, _ in KINDS} | {"time_embedding"} == set(BLOCK_KINDS)


@pytest.mark.parametrize(("name", "scenario"), [("tiny", TINY), ("snapgen_v", SMALL)])
def test_random_architectures_have_the_described_parameters_and_flops(name: str, scenario: Scenario) -> None:
    space = search_spaces.get(name)
    rng = Random(11)
    inputs = example_inputs(space, scenario, device="meta")
    for architecture in [space.smallest(), space.largest(), *(sample(space, rng) for _ in range(20))]:
        workload = space.workload(architecture, scenario)
        model = build_denoiser(space, architecture, device="meta")
        assert workload.parameters == count(model), architecture
        assert workload.flops == measured_flops(model, inputs), architecture


def test_full_size_network_in_its_full_scenario_has_the_described_flops() -> None:
    space = search_spaces.get("snapgen_v")
    architecture = sample(space, Random(5))
    model = build_denoiser(space, architecture, device="meta")
    inputs = example_inputs(space, FULL, device="meta")
    assert space.workload(architecture, FULL).flops == measured_flops(model, inputs)


@pytest.mark.parametrize(("name", "scenario"), [("tiny", TINY), ("snapgen_v", SMALL)])
def test_blocks_of_an_architecture_add_up_to_the_whole_network(name: str, scenario: Scenario) -> None:
    space = search_spaces.get(name)
    architecture = sample(space, Random(2))
    built = [build_block(spec, device="meta")[0] for _, spec in space.workload(architecture, scenario).blocks]
    assert sum(map(count, built)) == count(build_denoiser(space, architecture, device="meta"))


def test_example_inputs_of_blocks_run_on_the_cpu_in_half_precision() -> None:
    space = search_spaces.get("tiny")
    for name, spec in space.workload(space.largest(), TINY).blocks:
        module, inputs = build_block(spec, dtype=torch.bfloat16)
        assert torch.isfinite(module(*inputs)).all(), name


def test_profiled_temporal_layer_does_work() -> None:
    spec = BlockSpec.of("conv1d", frames=4, height=2, width=2, kernel=3, **SHARED)
    module, (video,) = build_block(spec)
    assert not torch.equal(module(video), video)


def test_unknown_block_kind_lists_the_known_ones() -> None:
    spec = BlockSpec.of("pooling", channels=4, frames=1, height=2, width=2)
    with pytest.raises(ValueError, match="unknown block kind 'pooling'; known are conv_in"):
        build_block(spec)
