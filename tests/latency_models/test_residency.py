"""Peak memory on a target: closed forms for scratch, padding, weights and chunks; packing against its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import search_spaces
from latency_models import devices
from latency_models.devices import WeightFormat
from latency_models.lowering import LOWERINGS
from latency_models.memory import LiveTensor, MemoryGraph, memory_graph, memory_profile
from latency_models.residency import (
    MemoryTarget,
    arena_bytes,
    chunks_of,
    keeps_arenas,
    peak_memory,
    resident_weight_bytes,
)
from nas.core.scenario import Scenario
from nas.core.workload import BlockSpec, Operation, TensorSpec, Workload
from tests.latency_models.test_memory import random_workloads

if TYPE_CHECKING:
    from collections.abc import Sequence

GRAPH = LOWERINGS["fused_sdpa"]


def chain(sizes: Sequence[int], weights: Sequence[int]) -> Workload:
    """A line of operations over tensors of 2-byte elements."""
    tensors = [TensorSpec(name=f"t{index}", shape=(size,), element_bytes=2) for index, size in enumerate(sizes)]
    operations = [
        Operation(
            name=f"block.{index}",
            block="block",
            kind="linear",
            flops=1,
            parameters=weight,
            weight_bytes=2 * weight,
            inputs=(f"t{index}",),
            outputs=(f"t{index + 1}",),
        )
        for index, weight in enumerate(weights)
    ]
    return Workload(
        operations=tuple(operations),
        tensors=tuple(tensors),
        blocks=(("block", BlockSpec.of("any")),),
        repeats=(("denoiser", 1),),
    )


def attention(batch: int, tokens: int, width: int, heads: int) -> Workload:
    names = ("query", "key", "value", "out")
    operation = Operation(
        name="block.attention",
        block="block",
        kind="attention",
        flops=1,
        parameters=0,
        weight_bytes=0,
        inputs=names[:3],
        outputs=names[3:],
        options=(("heads", heads),),
    )
    return Workload(
        operations=(operation,),
        tensors=tuple(TensorSpec(name=name, shape=(batch, tokens, width), element_bytes=2) for name in names),
        blocks=(("block", BlockSpec.of("any")),),
        repeats=(("denoiser", 1),),
    )


@pytest.mark.parametrize(
    ("lowering", "batch", "scratch"),
    [
        ("fused_sdpa", 8, 0),
        ("fused_sdpa", 10, 10 * 8 * 1024 * 1024 * 2),  # the fused pattern is wrong from ten rows on
        ("decomposed", 8, 8 * 8 * 1024 * 1024 * 2),  # 134 MB: eight frames, eight heads, 32 x 32 latents
        ("split_einsum", 8, 8 * 8 * 1024 * 1024 * 2),
        ("split_einsum_v2", 8, 8 * 8 * 1024 * 512 * 2),
    ],
)
def test_attention_scores_are_held_where_they_are_written_out(lowering: str, batch: int, scratch: int) -> None:
    workload = attention(batch, 1024, 320, 8)
    peak = peak_memory(workload, MemoryTarget(lowering=LOWERINGS[lowering]))
    assert peak.live_mb == pytest.approx((4 * batch * 1024 * 320 * 2 + scratch) / 1e6)


def test_tokens_of_a_neural_engine_are_padded_to_64_bytes() -> None:
    # (batch, tokens, width) is kept as (batch, width, 1, tokens): 77 half floats take 192 bytes, 8 take 64.
    for tokens, row in ((77, 192), (8, 64), (1, 64), (64, 128)):
        workload = attention(1, tokens, 32, 1)
        peak = peak_memory(workload, MemoryTarget(lowering=LOWERINGS["split_einsum"]))
        scores = tokens * row
        assert peak.live_mb == pytest.approx((4 * 32 * row + scores) / 1e6)


@pytest.mark.parametrize(
    ("weights", "streamed", "expected"),
    [
        (WeightFormat(), (), 2000),
        (WeightFormat(bits=4.0, form="palettised"), ("palettised",), 500),
        (WeightFormat(bits=6.0, form="palettised"), ("palettised",), 750),
        (WeightFormat(bits=8.0, form="linear"), ("palettised", "linear"), 1000),
        (WeightFormat(bits=8.0, form="linear"), ("palettised",), 2000),  # expanded when it is loaded
        (WeightFormat(bits=4.0, form="blockwise"), ("palettised", "linear"), 2000),
    ],
)
def test_weights_stay_compressed_where_the_unit_streams_the_form(
    weights: WeightFormat, streamed: Any, expected: int
) -> None:
    target = MemoryTarget(lowering=GRAPH, weights=weights, streamed_forms=streamed)
    assert resident_weight_bytes(chain([1, 1, 1], [600, 400]), target) == expected


def test_palettised_weights_stream_on_every_neural_engine_and_blocks_only_on_newer_ones() -> None:
    forms = {
        name: MemoryTarget.of_unit(devices.get(name).unit_for("cpu_and_ne")).streamed_forms
        for name in ("iphone12", "iphone16_pro_max")
    }
    assert all("palettised" in found for found in forms.values())
    assert ("blockwise" in forms["iphone12"], "blockwise" in forms["iphone16_pro_max"]) == (False, True)


def test_two_chunks_hold_their_own_weights_in_turn_and_both_together() -> None:
    workload = chain([100, 400, 50, 300, 10], [1000, 1000, 1000, 1000])
    whole = peak_memory(workload, MemoryTarget(lowering=GRAPH))
    in_turn = peak_memory(workload, MemoryTarget(lowering=GRAPH, chunks=2, residency="in_turn"))
    together = peak_memory(workload, MemoryTarget(lowering=GRAPH, chunks=2))
    # Peaks in elements: t0 + t1 + t2 (the input stays) in the whole, t0 + t1 + t2 and t2 + t3 + t4 in the chunks.
    assert (whole.weights_mb, whole.live_mb) == (8000 / 1e6, 1100 / 1e6)
    assert (in_turn.weights_mb, in_turn.live_mb) == (4000 / 1e6, 1100 / 1e6)
    assert (together.weights_mb, together.live_mb) == (8000 / 1e6, 1100 / 1e6)
    planned = peak_memory(workload, MemoryTarget(lowering=GRAPH, chunks=2, io_buffers=True))
    assert planned.live_mb == pytest.approx((1100 + 720) / 1e6)  # both arenas stay


def test_a_tensor_that_passes_a_chunk_by_is_still_held() -> None:
    straight = chain([10, 20, 30, 40], [1, 1, 1])
    last = straight.operations[-1]
    skipping = Workload(
        operations=(*straight.operations[:-1], replace_inputs(last, (*last.inputs, "t0"))),
        tensors=straight.tensors,
        blocks=straight.blocks,
        repeats=straight.repeats,
    )
    first, second, third = chunks_of(skipping, 3)
    assert [tensor.name for tensor in second.passing] == ["t0"]
    assert [tensor.name for tensor in first.handed_on] == ["t0", "t1"]
    assert third.passing == ()


def replace_inputs(operation: Operation, inputs: tuple[str, ...]) -> Operation:
    from dataclasses import replace

    return replace(operation, inputs=inputs)


def test_the_constant_is_on_top() -> None:
    workload = chain([5, 5], [10])
    plain = peak_memory(workload, MemoryTarget(lowering=GRAPH))
    with_constant = peak_memory(workload, MemoryTarget(lowering=GRAPH, constant_mb=120.0))
    assert with_constant.least_mb == pytest.approx(plain.least_mb + 120.0)


@settings(max_examples=150, deadline=None)
@given(workload=random_workloads(), chunks=st.integers(1, 4), buffered=st.booleans())
def test_packing_lies_between_liveness_and_no_sharing(workload: Workload, chunks: int, buffered: bool) -> None:
    target = MemoryTarget(lowering=GRAPH, chunks=chunks, io_buffers=buffered, residency="in_turn")
    peak = peak_memory(workload, target)
    assert peak.least_mb <= peak.packed_mb + 1e-9
    graph = memory_graph(workload, GRAPH)
    everything = graph.input_bytes + sum(tensor.num_bytes for tensor in graph.tensors) + sum(graph.scratch_bytes)
    assert memory_profile(workload, GRAPH).peak_activation_bytes <= arena_bytes(graph) <= everything


@settings(max_examples=100, deadline=None)
@given(workload=random_workloads(), chunks=st.integers(2, 4))
def test_chunks_in_turn_hold_no_more_weights_than_the_whole_and_lose_no_operation(
    workload: Workload, chunks: int
) -> None:
    parts = chunks_of(workload, chunks)
    assert [item for part in parts for item in part.workload.operations] == list(workload.operations)
    target = MemoryTarget(lowering=GRAPH, chunks=chunks, residency="in_turn")
    assert peak_memory(workload, target).weights_mb <= workload.weight_bytes / 1e6


def test_packing_of_a_known_case() -> None:
    # Two long-lived tensors of 40 and 30 around short ones of 60 and 50 that share their place.
    tensors = tuple(
        LiveTensor(name=name, num_bytes=size, first=first, last=last)
        for name, size, first, last in (("a", 60, 0, 1), ("b", 50, 2, 3), ("c", 40, 0, 3), ("d", 30, 1, 2))
    )
    assert arena_bytes(MemoryGraph(input_bytes=0, tensors=tensors, scratch_bytes=(0, 0, 0, 0))) == 130


def test_engines_keep_arenas_and_allocators_do_not() -> None:
    assert [keeps_arenas(unit) for unit in ("neural_engine", "gpu", "cpu", "cuda")] == [True, True, False, False]


def test_full_size_attention_at_64_x_64_does_not_fit_without_query_chunks() -> None:
    # Two gigabytes of scores: eight frames, eight heads, 4096 tokens; in chunks of 512 queries an eighth of them.
    workload = attention(8, 4096, 320, 8)
    plain = peak_memory(workload, MemoryTarget(lowering=LOWERINGS["split_einsum"]))
    chunked = peak_memory(workload, MemoryTarget(lowering=LOWERINGS["split_einsum_v2"]))
    assert plain.live_mb == pytest.approx(2147.5 + 83.9, rel=1e-3)
    assert chunked.live_mb == pytest.approx(2147.5 / 8 + 83.9, rel=1e-3)


def test_a_whole_network_packs_close_to_its_bound() -> None:
    space = search_spaces.get("snapgen_v/1")
    scenario = Scenario(frames=16, height=512, width=512, denoising_steps=4)
    workload = space.workload(space.from_options([5] * len(space.slots())), scenario)
    peak = peak_memory(workload, MemoryTarget.of_unit(devices.get("iphone16_pro_max").unit_for("cpu_and_gpu")))
    assert peak.live_mb <= peak.arena_mb <= 1.25 * peak.live_mb
