"""The model of eager torch's memory against torch's allocator; on x86 with AVX-512 the two agree to the byte."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest
import torch

import search_spaces
from latency_models.backends.torch_memory import peak_allocated_bytes
from latency_models.lowering import LOWERINGS
from latency_models.memory import memory_profile
from latency_models.planning import choose_networks
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario
from nas.core.workload import BlockSpec, TensorSpec, Workload
from nas.models.build import build_block, build_denoiser, example_inputs
from search_spaces.layers import block_inputs, write_block

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="describes torch's kernels on x86 processors"
)
SIZE = {"frames": 8, "height": 8, "width": 8}
TEMPORAL = {"channels": 48, "inner": 32, "groups": 8, **SIZE}
ATTENTION = {**TEMPORAL, "heads": 4, "max_frames": 32}
TEXT = {"text_tokens": 12, "text_width": 64}
RESNET = {"skip_channels": 0, "time_width": 64, "groups": 8, **SIZE}
BLOCKS = [
    BlockSpec.of("time_embedding", channels=48, time_width=128),
    BlockSpec.of("conv_in", in_channels=16, out_channels=48, **SIZE),
    BlockSpec.of("conv_in", in_channels=4, out_channels=48, **SIZE),
    BlockSpec.of("conv_out", in_channels=48, out_channels=16, groups=8, **SIZE),
    BlockSpec.of("resnet", in_channels=48, out_channels=48, **RESNET),
    BlockSpec.of("resnet", in_channels=48, out_channels=80, **RESNET),
    BlockSpec.of("resnet", in_channels=80, out_channels=48, **RESNET | {"skip_channels": 48}),
    BlockSpec.of("downsample", channels=48, **SIZE),
    BlockSpec.of("upsample", channels=48, **SIZE),
    BlockSpec.of("spatial_attention", channels=48, heads=4, groups=8, **SIZE, **TEXT),
    BlockSpec.of("conv1d", kernel=3, **TEMPORAL),
    BlockSpec.of("conv1d", kernel=5, **TEMPORAL | {"height": 24, "width": 24}),
    BlockSpec.of("conv3d", kernel=3, **TEMPORAL),
    BlockSpec.of("self_attention_1d", **ATTENTION),
    BlockSpec.of("self_attention_3d", **ATTENTION),
    BlockSpec.of("cross_attention_1d", **ATTENTION, **TEXT),
    BlockSpec.of("cross_attention_3d", **ATTENTION, **TEXT),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


def workload_of(spec: BlockSpec) -> Workload:
    shapes = block_inputs(spec)
    operations, tensors = write_block("block", spec, {port: port for port in shapes}, 4)
    inputs = [TensorSpec(name=port, shape=shape, element_bytes=4) for port, shape in shapes.items()]
    return Workload(
        operations=operations, tensors=(*inputs, *tensors), blocks=(("block", spec),), repeats=(("denoiser", 1),)
    )


@pytest.mark.parametrize("spec", BLOCKS, ids=lambda spec: spec.signature)
def test_rise_inside_a_block_is_that_of_the_allocator(spec: BlockSpec) -> None:
    module, inputs = build_block(spec, dtype=torch.float32, device="cpu")
    module(*inputs)
    measured = peak_allocated_bytes(lambda: module(*inputs))
    assert memory_profile(workload_of(spec), LOWERINGS["torch"]).blocks[0].inside_bytes == pytest.approx(
        measured, rel=0.02
    )


def test_rise_of_a_block_alone_is_known_from_the_network_around_it() -> None:
    space = search_spaces.get("tiny/1")
    scenario = Scenario(frames=8, height=32, width=32, denoising_steps=4, precision="float32")
    lowering = LOWERINGS["torch"]
    for architecture in choose_networks(space, 3, RandomStreams(2)):
        workload = space.workload(architecture, scenario)
        specs = dict(workload.blocks)
        for block in memory_profile(workload, lowering).blocks:
            alone = memory_profile(workload_of(specs[block.block]), lowering).blocks[0]
            assert alone.inside_bytes == pytest.approx(block.alone_bytes, rel=0.001), block.block


def test_peaks_of_whole_networks_are_within_a_hundredth_of_the_allocator() -> None:
    space = search_spaces.get("tiny/1")
    scenario = Scenario(frames=8, height=32, width=32, denoising_steps=4, precision="float32")
    inputs = example_inputs(space, scenario, dtype=torch.float32, device="cpu")
    held = sum(tensor.nbytes for tensor in inputs)
    for architecture in choose_networks(space, 4, RandomStreams(1)):
        network = build_denoiser(space, architecture, dtype=torch.float32, device="cpu").eval()
        network(*inputs)
        measured = peak_allocated_bytes(lambda network=network: network(*inputs))
        profile = memory_profile(space.workload(architecture, scenario), LOWERINGS["torch"])
        assert profile.peak_activation_bytes - held == pytest.approx(measured, rel=0.01)
