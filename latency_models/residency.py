"""Peak memory of one network on one target: weights as it holds them, activations, scratch, buffers, its constant.

Three figures of the activations: what no program can do without (liveness), what a planner gets them into (one arena,
packed greedily), and what a device shows (the line that ``latency_models.memory_fit`` fits on one of them).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from latency_models.devices import WeightForm, WeightFormat
from latency_models.lowering import LOWERINGS, Lowering, padded_bytes
from latency_models.memory import MemoryGraph, memory_graph, memory_profile
from nas.core.workload import TensorSpec, Workload

if TYPE_CHECKING:
    from latency_models.devices import UnitSpec
    from nas.core.cost import ComputeUnit

PLAIN = WeightFormat()
# Both plan activations when a network is loaded, one arena a segment, and take inputs and outputs as shared buffers
# (IOSurfaces): notes on Core ML's memory in github.com/sbryngelson/ane-guide and github.com/apple/ml-stable-diffusion,
# read 2026-11. torch's allocators take memory when a tensor is made and give it back when it is let go.
_PLANNED: tuple[ComputeUnit, ...] = ("neural_engine", "gpu")


def keeps_arenas(compute_unit: ComputeUnit) -> bool:
    """Return whether a loaded network holds its activation memory while it does not run."""
    return compute_unit in _PLANNED


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTarget:
    """How a compute unit holds a network.

    Attributes:
        lowering: How it runs attention, and how it pads tensors.
        weights: How weights are stored in the package.
        streamed_forms: Compressed forms that stay as they are in memory; others are expanded to 16 bits when loaded.
        io_buffers: Whether outputs are buffers of the caller, held throughout as inputs are.
        chunks: Packages the network is cut into, of about equal weights.
        residency: Chunks all loaded (``together``), or each loaded, run and unloaded (``in_turn``).
        constant_mb: What the device holds besides.
    """

    lowering: Lowering
    weights: WeightFormat = PLAIN
    streamed_forms: tuple[WeightForm, ...] = ()
    io_buffers: bool = False
    chunks: int = 1
    residency: Literal["together", "in_turn"] = "together"
    constant_mb: float = 0.0

    def __post_init__(self) -> None:
        if self.chunks < 1:
            raise ValueError(f"a network is at least one chunk, got {self.chunks}")

    @classmethod
    def of_unit(cls, unit: UnitSpec, *, weights: WeightFormat = PLAIN, lowering: str | None = None) -> MemoryTarget:
        """Return the target of a device's unit, in one chunk and without a constant."""
        return cls(
            lowering=LOWERINGS[lowering or unit.lowering],
            weights=weights,
            streamed_forms=unit.streamed_forms,
            io_buffers=unit.compute_unit in _PLANNED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """Peak memory of one call, in MB (1e6 bytes).

    Attributes:
        weights_mb: Weights held at the peak.
        live_mb: Largest sum of live tensors, buffers and scratch: no plan needs less.
        arena_mb: The same packed into one arena.
        constant_mb: What the device holds besides.
    """

    weights_mb: float
    live_mb: float
    arena_mb: float
    constant_mb: float

    @property
    def least_mb(self) -> float:
        """Lower bound of the peak."""
        return self.weights_mb + self.live_mb + self.constant_mb

    @property
    def packed_mb(self) -> float:
        """The peak of a planner that packs greedily by size."""
        return self.weights_mb + self.arena_mb + self.constant_mb


def resident_weight_bytes(workload: Workload, target: MemoryTarget) -> int:
    """Return the bytes that weights take in memory: as stored where the target streams the form, else expanded.

    Without a compressed form weights are held at the workload's own precision.
    """
    if target.weights.form == "plain":
        return workload.weight_bytes
    bits = target.weights.bits if target.weights.form in target.streamed_forms else 16.0
    return -(-int(workload.parameters * bits) // 8)


def peak_memory(workload: Workload, target: MemoryTarget) -> PeakMemory:
    """Return the peak memory of one call of ``workload`` on ``target``.

    Raises:
        InputError: The workload's tensors do not fit together.
    """
    parts = chunks_of(workload, target.chunks)
    found = [_peak_of_chunk(part, target) for part in parts]
    if target.residency == "together" and len(found) > 1:
        # A planned arena stays with its loaded chunk; an allocator's memory goes round.
        add = sum if target.io_buffers else max
        return PeakMemory(
            weights_mb=sum(peak.weights_mb for peak in found),
            live_mb=add(peak.live_mb for peak in found),
            arena_mb=add(peak.arena_mb for peak in found),
            constant_mb=target.constant_mb,
        )
    return max(found, key=lambda peak: peak.least_mb)


def _peak_of_chunk(chunk: Chunk, target: MemoryTarget) -> PeakMemory:
    lowering, names = target.lowering, frozenset(tensor.name for tensor in chunk.handed_on)
    passing = sum(padded_bytes(tensor.shape, tensor.element_bytes, lowering) for tensor in chunk.passing)
    profile = memory_profile(chunk.workload, lowering, kept=names, buffered=target.io_buffers)
    graph = memory_graph(chunk.workload, lowering, kept=names, buffered=target.io_buffers)
    return PeakMemory(
        weights_mb=resident_weight_bytes(chunk.workload, target) / 1e6,
        live_mb=(profile.peak_activation_bytes + passing) / 1e6,
        arena_mb=(arena_bytes(graph) + passing) / 1e6,
        constant_mb=target.constant_mb,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A stretch of a network's operations that is a package of its own.

    Attributes:
        workload: Its operations and the tensors they touch; what earlier chunks made is its input.
        handed_on: Tensors it makes or takes that later chunks read.
        passing: Tensors made before and read after, that it does not touch; the caller holds them.
    """

    workload: Workload
    handed_on: tuple[TensorSpec, ...]
    passing: tuple[TensorSpec, ...]


def chunks_of(workload: Workload, count: int) -> tuple[Chunk, ...]:
    """Cut a workload where the weights so far reach each share of all of them, as Apple's converter halves them.

    Fewer chunks come back where operations are fewer.
    """
    weights = np.cumsum([operation.weight_bytes for operation in workload.operations], dtype=float)
    shares = weights[-1] * np.arange(1, count) / count
    cuts = sorted({int(cut) + 1 for cut in np.searchsorted(weights, shares)} - {len(weights)})
    edges = [0, *cuts, len(workload.operations)]
    return tuple(_chunk(workload, start, stop) for start, stop in pairwise(edges))


def _chunk(workload: Workload, start: int, stop: int) -> Chunk:
    operations = workload.operations[start:stop]
    touched = {name for operation in operations for name in (*operation.inputs, *operation.outputs)}
    later = {name for operation in workload.operations[stop:] for name in operation.inputs}
    made_later = {name for operation in workload.operations[stop:] for name in operation.outputs}
    blocks = {operation.block for operation in operations}
    return Chunk(
        workload=replace(
            workload,
            operations=operations,
            tensors=tuple(tensor for tensor in workload.tensors if tensor.name in touched),
            blocks=tuple(item for item in workload.blocks if item[0] in blocks),
        ),
        handed_on=tuple(tensor for tensor in workload.tensors if tensor.name in touched & later),
        passing=tuple(tensor for tensor in workload.tensors if tensor.name in later - touched - made_later),
    )


def arena_bytes(graph: MemoryGraph) -> int:
    """Return the size of one arena for all tensors and scratch, packed largest first at the lowest gap that fits.

    Source:
        "Greedy by size for offset calculation" of Pisarchyk and Lee, "Efficient memory management for deep neural net
        inference" (arXiv:2001.03288), which TensorFlow Lite uses.
    """
    steps = len(graph.scratch_bytes)
    items = [(graph.input_bytes, 0, steps - 1)]
    items += [(tensor.num_bytes, tensor.first, tensor.last) for tensor in graph.tensors]
    items += [(size, step, step) for step, size in enumerate(graph.scratch_bytes)]
    items = sorted((item for item in items if item[0]), key=lambda item: -item[0])
    placed = np.zeros((4, len(items)), dtype=np.int64)  # first, last, offset, end
    for count, (size, first, last) in enumerate(items):
        known = placed[:, :count]
        together = known[:, (known[0] <= last) & (known[1] >= first)]
        together = together[:, np.argsort(together[2], kind="stable")]
        ends = np.concatenate([[0], np.maximum.accumulate(together[3])])
        gaps = np.flatnonzero(together[2] - ends[:-1] >= size)
        offset = int(ends[gaps[0]] if len(gaps) else ends[-1])
        placed[:, count] = first, last, offset, offset + size
    return int(placed[3].max(initial=0))
