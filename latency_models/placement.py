"""Which compute unit runs each operation of a block, and what runs nowhere.

An operation goes to the most preferred unit that does not refuse it. Between blocks a network is on its home unit, the
most preferred one of all: a block that leaves it pays the way there and back, so that costs add up over blocks. (Of two
neighbours that both leave, the real network saves the way between them.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from latency_models.lowering import OperationFeatures, attention_scratch_bytes, laid_out, padded_bytes, work_kind
from nas.core.cost import ComputeUnit

if TYPE_CHECKING:
    from latency_models.devices import Figure, UnitSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a unit does not run an operation, and where that is known from."""

    compute_unit: ComputeUnit
    reason: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Unit of each operation of a block, as positions in the preference; and the refusals of those that no unit takes.

    An operation that no unit takes is put on the last one, so that it still has a time.
    """

    units: tuple[int, ...]
    refused: tuple[Refusal, ...]

    @property
    def segments(self) -> tuple[int, ...]:
        """Unit of each run of operations on one unit, from home back to home: (0,) when nothing leaves."""
        runs = [0]
        for unit in (*self.units, 0):
            if unit != runs[-1]:
                runs.append(unit)
        return tuple(runs)


@lru_cache(maxsize=16384)
def place(operations: tuple[OperationFeatures, ...], units: tuple[UnitSpec, ...]) -> Placement:
    """Place the operations of one block on ``units``, most preferred first."""
    chosen: list[int] = []
    refused: list[Refusal] = []
    for operation in operations:
        reasons = []
        for position, unit in enumerate(units):
            reason = refusal(operation, unit)
            if reason is None:
                chosen.append(position)
                break
            reasons.append(reason)
        else:
            chosen.append(len(units) - 1)
            refused += reasons
    return Placement(units=tuple(chosen), refused=tuple(refused))


def refusal(operation: OperationFeatures, unit: UnitSpec) -> Refusal | None:
    """Return why ``unit`` does not run ``operation``; None when it does."""
    lowering = unit.lowered
    work = work_kind(operation, lowering)
    kinds = (work,) if operation.kernel else (work, operation.kind)  # a convolution is what it is run as
    for item in unit.unsupported:
        if item.kind in kinds:
            return Refusal(compute_unit=unit.compute_unit, reason=f"{item.kind} does not run there", source=item.source)
    for label, value, limit in _measures(operation, unit):
        if limit is not None and value > limit.value:
            return Refusal(
                compute_unit=unit.compute_unit,
                reason=f"{label} {_text(value)}, at most {_text(limit.value)}",
                source=limit.source,
            )
    return None


def _measures(operation: OperationFeatures, unit: UnitSpec) -> list[tuple[str, float, Figure | None]]:
    limits, lowering = unit.limits, unit.lowered
    shapes = tuple(laid_out(shape, lowering) for shape in (*operation.inputs, operation.output))
    rank = max(map(len, shapes))
    if lowering.conv3d_as_conv2d and operation.kind == "conv3d":
        rank = 4
    tokens = [shape[1] for shape in shapes if len(shape) == 3]
    inner = [max(shape[2:]) for shape in shapes if len(shape) > 3]
    channels = [shape[2] for shape in shapes if len(shape) == 3] + [shape[1] for shape in shapes if len(shape) > 3]
    scratch = attention_scratch_bytes(operation, lowering)
    if scratch:
        channels.append(operation.inputs[1][1])  # scores are kept as (batch, keys, heads, queries)
    held = scratch + sum(padded_bytes(shape, operation.element_bytes, lowering) for shape in shapes)
    kernel = operation.kernel
    return [
        ("rank is", rank, limits.rank),
        ("tokens are", max(tokens, default=0), limits.axis),
        ("an axis is", max(inner, default=0), limits.axis),
        ("channels are", max(channels, default=0), limits.channels),
        ("batch rows are", max(shape[0] for shape in shapes), limits.batch),
        ("kernel width is", kernel[-1] if kernel else 0, limits.kernel_width),
        (
            f"tensors{' and attention scores' if scratch else ''} take in MB",
            held / 1e6 if prod(operation.output) else 0.0,
            limits.window_mb,
        ),
    ]


def _text(value: float) -> str:
    return f"{value:,.0f}"
