"""Activation memory by liveness: what is alive at each operation of a workload, on the graph or on a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.eager import bound_until, workspace_bytes
from latency_models.lowering import describe_operation, padded_bytes, scratch_bytes
from nas.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Container

    from latency_models.lowering import Lowering
    from nas.core.workload import Operation, TensorSpec, Workload

# The lowering of this machine's processor: operations run one by one, as Python meets them.
EAGER = "torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockMemory:
    """Activation bytes around and inside one block.

    Attributes:
        held_bytes: Alive when the block's first operation starts: its inputs and everything kept for later.
        peak_bytes: Largest live sum while the block runs; not below ``held_bytes``.
        alone_bytes: What the block adds when it is called alone, by a caller that keeps its inputs.
    """

    block: str
    held_bytes: int
    peak_bytes: int
    alone_bytes: int

    @property
    def inside_bytes(self) -> int:
        """What the block adds to the bytes held."""
        return self.peak_bytes - self.held_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryProfile:
    """Activation memory of a workload, per block and in all; weights come on top."""

    blocks: tuple[BlockMemory, ...]
    weight_bytes: int

    @property
    def peak_activation_bytes(self) -> int:
        """Largest live sum at any operation."""
        return max((block.peak_bytes for block in self.blocks), default=0)

    @property
    def peak_bytes(self) -> int:
        """Weights and the largest live sum of activations."""
        return self.weight_bytes + self.peak_activation_bytes


def memory_profile(
    workload: Workload, lowering: Lowering | None = None, *, kept: Container[str] = (), buffered: bool = False
) -> MemoryProfile:
    """Walk the operations in order and track which tensors are alive: no program needs less.

    A tensor lives from the operation that makes it to the last that reads it; at an operation its inputs and outputs
    are both alive. Tensors nobody makes are the network's inputs and live throughout, as the caller holds them;
    tensors nobody reads are its outputs and live to the end.

    Args:
        workload: What is computed.
        lowering: How the target runs it: pads tensors, writes attention scores out, and, for eager torch, copies and
            names that outlive their use. None for the graph itself.
        kept: Tensors that are read after the workload too, so that they live to its end.
        buffered: Whether outputs and ``kept`` are the caller's buffers, held throughout.

    Raises:
        InputError: An operation names an unknown tensor, reads one before it is made, or makes one twice.
    """
    graph = memory_graph(workload, lowering, kept=kept, buffered=buffered)
    made: dict[int, int] = {}
    ended: dict[int, list[LiveTensor]] = {}
    for tensor in graph.tensors:
        made[tensor.first] = made.get(tensor.first, 0) + tensor.num_bytes
        ended.setdefault(tensor.last, []).append(tensor)
    blocks: dict[str, BlockMemory] = {}
    live, start, let_go = graph.input_bytes, 0, 0  # of the block that runs: where it starts, inputs it has let go
    for index, operation in enumerate(workload.operations):
        block = blocks.get(operation.block)
        if block is None:
            block = BlockMemory(block=operation.block, held_bytes=live, peak_bytes=0, alone_bytes=0)
            start, let_go = index, 0
        live += made.get(index, 0)
        level = live + graph.scratch_bytes[index]
        blocks[operation.block] = BlockMemory(
            block=block.block,
            held_bytes=block.held_bytes,
            peak_bytes=max(block.peak_bytes, level),
            alone_bytes=max(block.alone_bytes, level + let_go - block.held_bytes),
        )
        gone = ended.get(index, ())
        live -= sum(tensor.num_bytes for tensor in gone)
        let_go += sum(tensor.num_bytes for tensor in gone if tensor.first < start)
    return MemoryProfile(blocks=tuple(blocks.values()), weight_bytes=workload.weight_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTensor:
    """A tensor that an operation makes: its bytes, and the first and last operation at which it is alive."""

    name: str
    num_bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGraph:
    """What memory planning sees: inputs held throughout, tensors with their lifetimes, scratch by operation."""

    input_bytes: int
    tensors: tuple[LiveTensor, ...]
    scratch_bytes: tuple[int, ...]


def memory_graph(
    workload: Workload, lowering: Lowering | None = None, *, kept: Container[str] = (), buffered: bool = False
) -> MemoryGraph:
    """Return the lifetimes and sizes of a workload's tensors on a target; see ``memory_profile``."""
    specs = {tensor.name: tensor for tensor in workload.tensors}
    produced_at, last_use = _lifetimes(workload, specs)
    sizes = {name: _tensor_bytes(spec, lowering) for name, spec in specs.items()}
    eager = lowering is not None and lowering.name == EAGER
    bound = bound_until(workload) if eager else {}
    scratch = [0] * len(workload.operations)
    if lowering is not None:
        for index, operation in enumerate(workload.operations):
            described = describe_operation(operation, specs)
            scratch[index] = (
                workspace_bytes(described)
                if eager
                else scratch_bytes(
                    described, lowering, input_outlives=_outlives(operation, index, last_use, produced_at)
                )
            )
    end = len(workload.operations) - 1
    outputs = {name for name in produced_at if name not in last_use or name in kept}
    return MemoryGraph(
        input_bytes=sum(size for name, size in sizes.items() if name not in produced_at),
        tensors=tuple(
            LiveTensor(
                name=name,
                num_bytes=sizes[name],
                first=0 if buffered and name in outputs else first,
                last=end if name in outputs else max(last_use[name], bound.get(name, 0)),
            )
            for name, first in produced_at.items()
        ),
        scratch_bytes=tuple(scratch),
    )


def _outlives(operation: Operation, index: int, last_use: dict[str, int], produced_at: dict[str, int]) -> bool:
    """Whether the first input of an operation is needed behind it; inputs of the network are held throughout."""
    name = operation.inputs[0]
    return name not in produced_at or last_use[name] > index


def _tensor_bytes(spec: TensorSpec, lowering: Lowering | None) -> int:
    return spec.num_bytes if lowering is None else padded_bytes(spec.shape, spec.element_bytes, lowering)


def _lifetimes(workload: Workload, known: Container[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return for each tensor the index of the operation that makes it, and of the last that reads it."""
    produced_at: dict[str, int] = {}
    last_use: dict[str, int] = {}
    for index, operation in enumerate(workload.operations):
        for name in (*operation.inputs, *operation.outputs):
            if name not in known:
                raise InputError(f"workload: operation {operation.name!r} names unknown tensor {name!r}")
        for name in operation.inputs:
            last_use[name] = index
        for name in operation.outputs:
            if name in produced_at:
                raise InputError(f"workload: tensor {name!r} is made twice, again by {operation.name!r}")
            if name in last_use:
                raise InputError(f"workload: tensor {name!r} is read before {operation.name!r} makes it")
            produced_at[name] = index
    return produced_at, last_use
