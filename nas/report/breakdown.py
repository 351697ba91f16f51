"""Where time and memory of the chosen architecture go, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.core.evaluation import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShare:
    """Cost of one block of the chosen architecture; ``role`` is what ``block_role`` says of its name."""

    block: str
    role: str
    latency_ms: float
    memory_mb: float
    compute_unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakdownFigure:
    """Blocks in execution order; latencies sum to the total, memories are levels while each block runs."""

    blocks: tuple[BlockShare, ...]
    latency_ms: float
    peak_memory_mb: float
    temporal_ratio: float
    origin: str
    predictor: str
    device: str

    @property
    def correction_ms(self) -> float:
        """What is taken off the blocks' sum, as a time above 0; 0 where an overhead is added instead."""
        return -sum(item.latency_ms for item in self.blocks if item.role == "correction")


def breakdown_figure(evaluation: Evaluation) -> BreakdownFigure:
    """Return the blocks of one candidate's cost in execution order, each with its role."""
    cost = evaluation.cost
    blocks = tuple(
        BlockShare(
            block=item.block,
            role=block_role(item.block),
            latency_ms=item.latency_ms,
            memory_mb=item.memory_mb,
            compute_unit=item.compute_unit,
        )
        for item in cost.blocks
    )
    temporal = sum(item.latency_ms for item in blocks if item.role == "temporal")
    return BreakdownFigure(
        blocks=blocks,
        latency_ms=cost.latency_ms,
        peak_memory_mb=cost.peak_memory_mb,
        temporal_ratio=temporal / cost.latency_ms if cost.latency_ms else 0.0,
        origin=cost.origin,
        predictor=cost.predictor,
        device=cost.device,
    )


def block_role(block: str) -> str:
    """Return ``overhead``, ``correction``, ``other phase``, ``temporal`` (a part of the name) or ``backbone``."""
    if block in ("overhead", "correction"):
        return block
    if block in ("text_encoder", "decoder"):
        return "other phase"
    return "temporal" if "temporal" in block.split(".") else "backbone"
