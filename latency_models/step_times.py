"""Time of lowered steps from rates: the slowest of computing, reading weights and moving activations, plus overhead.

Shapes: N steps. One function serves single prices and the fit of rates on many measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latency_models.lowering import WORK_KINDS, lower

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.devices import UnitSpec, WeightFormat
    from latency_models.lowering import OperationFeatures
    from nas.core.scenario import Precision

FloatArray = NDArray[np.float64]

_KIND_INDEX = {kind: index for index, kind in enumerate(WORK_KINDS)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """N lowered steps of one unit as arrays (N,).

    ``flops`` are with padded channels; ``weight_bytes`` are what takes the time of that many 16-bit bytes; ``streamed``
    says that activations go through memory; ``kind`` indexes ``lowering.WORK_KINDS``.
    """

    flops: FloatArray
    kind: NDArray[np.int64]
    weight_bytes: FloatArray
    moved_bytes: FloatArray
    resident_bytes: FloatArray
    launches: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitRates:
    """Rates of one unit as numbers: FLOP/s by kind of work, bytes/s, and seconds of one operation."""

    flops: FloatArray
    weight_bandwidth: float
    memory_bandwidth: float
    on_chip_bandwidth: float
    on_chip_bytes: float
    operation_s: float


def steps_of(operations: Iterable[OperationFeatures], unit: UnitSpec, weights: WeightFormat) -> Steps:
    """Lower ``operations`` for ``unit``."""
    lowered = [step for operation in operations for step in lower(operation, unit.lowered)]
    multiple = int(unit.channel_multiple.value)
    ratio = unit.weight_ratio(weights)
    return Steps(
        flops=np.array(
            [
                step.flops * _padding(step.in_channels, multiple) * _padding(step.out_channels, multiple)
                for step in lowered
            ]
        ),
        kind=np.array([_KIND_INDEX[step.work] for step in lowered], dtype=np.int64),
        weight_bytes=np.array([step.weight_bytes * ratio for step in lowered], dtype=float),
        moved_bytes=np.array([step.moved_bytes for step in lowered], dtype=float),
        resident_bytes=np.array([step.resident_bytes for step in lowered], dtype=float),
        launches=np.array([step.launches for step in lowered], dtype=float),
    )


def rates_of(unit: UnitSpec, precision: Precision) -> UnitRates:
    """Return the figures of ``unit`` at ``precision`` as numbers."""
    peak = unit.peak_flops_at(precision)
    return UnitRates(
        flops=peak * np.array([unit.rate(kind) for kind in WORK_KINDS]),
        weight_bandwidth=unit.weight_bandwidth.value,
        memory_bandwidth=unit.memory_bandwidth.value,
        on_chip_bandwidth=unit.on_chip_bandwidth.value,
        on_chip_bytes=unit.on_chip_bytes.value,
        operation_s=unit.operation_overhead_ms.value / 1e3,
    )


def step_seconds(steps: Steps, rates: UnitRates) -> FloatArray:
    """Return the time of each step, (N,) in seconds.

    Source:
        Williams, Waterman, Patterson, "Roofline" (CACM 2009), applied per operation, with weights and activations as
        two streams and activations that fit on the chip at the chip's own rate.
    """
    streamed = steps.resident_bytes > rates.on_chip_bytes
    bandwidth = np.where(streamed, rates.memory_bandwidth, rates.on_chip_bandwidth)
    slowest = np.maximum(steps.flops / rates.flops[steps.kind], steps.weight_bytes / rates.weight_bandwidth)
    return np.maximum(slowest, steps.moved_bytes / bandwidth) + steps.launches * rates.operation_s


def _padding(channels: int, multiple: int) -> float:
    return 1.0 if channels == 0 else -(-channels // multiple) * multiple / channels
