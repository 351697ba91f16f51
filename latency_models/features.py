"""Figures of each block of a workload that predictors work on; all of them add up over blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.lowering import OperationFeatures, describe_operation
from latency_models.memory import memory_profile
from nas.core.workload import BlockSpec

if TYPE_CHECKING:
    from latency_models.lowering import Lowering
    from nas.core.workload import Operation, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFeatures:
    """Work and memory of one block in its network.

    ``held_bytes`` are alive around it, ``inside_bytes`` what its own operations add at their peak, ``alone_bytes`` what
    they add where the caller keeps its inputs, as when it is measured alone.
    """

    block: str
    spec: BlockSpec
    operations: tuple[OperationFeatures, ...]
    held_bytes: int
    inside_bytes: int
    alone_bytes: int

    @property
    def flops(self) -> int:
        """FLOPs of one call of the block."""
        return sum(operation.flops for operation in self.operations)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the block's weights."""
        return sum(operation.weight_bytes for operation in self.operations)

    @property
    def moved_bytes(self) -> int:
        """Activation bytes its operations read and write."""
        return sum(operation.moved_bytes for operation in self.operations)


def block_features(workload: Workload, lowering: Lowering | None = None) -> tuple[BlockFeatures, ...]:
    """Return the features of every block that has an operation, in execution order.

    ``lowering`` is that of the unit whose memory is wanted; None for the graph's own, see ``memory_profile``.
    """
    tensors = {tensor.name: tensor for tensor in workload.tensors}
    specs = dict(workload.blocks)
    by_block: dict[str, list[Operation]] = {}
    for operation in workload.operations:
        by_block.setdefault(operation.block, []).append(operation)
    return tuple(
        BlockFeatures(
            block=memory.block,
            spec=specs[memory.block],
            operations=tuple(describe_operation(operation, tensors) for operation in by_block[memory.block]),
            held_bytes=memory.held_bytes,
            inside_bytes=memory.inside_bytes,
            alone_bytes=memory.alone_bytes,
        )
        for memory in memory_profile(workload, lowering).blocks
    )
