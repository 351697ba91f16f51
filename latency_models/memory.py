"""Peak memory of a workload by liveness: what is alive at each operation, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.errors import InputError

if TYPE_CHECKING:
    from nas.core.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockMemory:
    """Activation bytes around and inside one block.

    Attributes:
        held_bytes: Alive when the block's first operation starts: its inputs and everything kept for later.
        peak_bytes: Largest live sum while the block runs; not below ``held_bytes``.
    """

    block: str
    held_bytes: int
    peak_bytes: int

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


def memory_profile(workload: Workload) -> MemoryProfile:
    """Walk the operations in order and track which tensors are alive.

    A tensor lives from the operation that makes it to the last that reads it; at an operation its inputs and outputs
    are both alive. Tensors nobody makes are the network's inputs and live throughout, as the caller holds them;
    tensors nobody reads are its outputs and live to the end.

    Raises:
        InputError: An operation names an unknown tensor, reads one before it is made, or makes one twice.
    """
    sizes = {tensor.name: tensor.num_bytes for tensor in workload.tensors}
    produced_at, last_use = _lifetimes(workload, sizes)
    live = sum(size for name, size in sizes.items() if name not in produced_at)
    held: dict[str, int] = {}
    peaks: dict[str, int] = {}
    for index, operation in enumerate(workload.operations):
        held.setdefault(operation.block, live)
        live += sum(sizes[name] for name in operation.outputs)
        peaks[operation.block] = max(peaks.get(operation.block, 0), live)
        freed = {name for name in operation.inputs if last_use[name] == index and name in produced_at}
        live -= sum(sizes[name] for name in freed)
    blocks = tuple(BlockMemory(block=name, held_bytes=held[name], peak_bytes=peaks[name]) for name in held)
    return MemoryProfile(blocks=blocks, weight_bytes=workload.weight_bytes)


def _lifetimes(workload: Workload, sizes: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    produced_at: dict[str, int] = {}
    last_use: dict[str, int] = {}
    for index, operation in enumerate(workload.operations):
        for name in (*operation.inputs, *operation.outputs):
            if name not in sizes:
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
