"""Fit a device's memory line on readings of both kinds: what the app held, and what the whole phone lost.

scipy is imported inside functions: predicting does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latency_models.memory import memory_graph
from latency_models.predictors.roofline import home_units
from latency_models.residency import MemoryTarget, resident_weight_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from latency_models.devices import DeviceSpec, WeightFormat
    from nas.core.cost import ComputeUnit
    from nas.core.profile import MemoryReadings, ProfileRecord, ProfileSet
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload

# Imputing what a censored reading would have been settles in a few rounds; a cycle of two values may not.
_MOST_ROUNDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """Activation memory of one network as a device showed it; ``at_least`` where it ran out of memory there."""

    value_mb: float
    at_least: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLine:
    """Memory on a device: ``scale`` times the estimate, plus a constant of the device."""

    scale: float
    constant_mb: float
    num_readings: int
    num_censored: int = 0

    def at(self, estimated_mb: float) -> float:
        """Return the line's value."""
        return self.constant_mb + self.scale * estimated_mb


def memory_reading(record: ProfileRecord, *, weights_mb: float, inputs_mb: float = 0.0) -> MemoryReading | None:
    """Return what a record says of the activation memory of its network, inputs included, or None.

    A phone has two numbers: the app's footprint decides when the app is killed, memory that the Neural Engine's own
    processes hold shows only in the whole system. The larger is what the phone must have; both include the weights.
    Running out of memory says that no less than the limit was needed.
    Readings that are not even the weights do not hold them (mapped from the file, or smaller than stated here) and say
    nothing of activations.

    Args:
        record: Of a whole network.
        weights_mb: Its weights as the device holds them, taken off where the reading includes them.
        inputs_mb: Its inputs, added where the reading is a rise above what was held before the call.
    """
    if record.failure is not None:
        limit_mb = record.failure.limit_mb
        return None if limit_mb is None else MemoryReading(value_mb=max(0.0, limit_mb - weights_mb), at_least=True)
    totals = [] if record.memory is None else [app_total_mb(record.memory), record.memory.system_rise_mb]
    known = [value for value in totals if value is not None]
    if known:
        return MemoryReading(value_mb=max(known) - weights_mb) if max(known) > weights_mb else None
    return None if record.peak_memory_mb is None else MemoryReading(value_mb=inputs_mb + record.peak_memory_mb)


def app_total_mb(memory: MemoryReadings) -> float | None:
    """Return what the app's footprint rose by from before loading to its peak."""
    if memory.footprint_peak_mb is None or memory.footprint_unloaded_mb is None:
        return None
    return max(0.0, memory.footprint_peak_mb - memory.footprint_unloaded_mb)


def network_readings(
    profiles: ProfileSet,
    workloads: Mapping[str, Workload],
    weights_mb: Callable[[Workload], float] | None = None,
) -> dict[str, MemoryReading]:
    """Return one reading for each network that has any: the largest seen, else the highest bound.

    Args:
        profiles: Records of networks, among others.
        workloads: By subject.
        weights_mb: What the device holds of a network's weights; as they are when left out.
    """
    found: dict[str, MemoryReading] = {}
    for record in profiles.records:
        if record.level != "network" or record.subject not in workloads:
            continue
        workload = workloads[record.subject]
        reading = memory_reading(
            record,
            weights_mb=weights_mb(workload) if weights_mb else workload.weight_bytes / 1e6,
            inputs_mb=memory_graph(workload).input_bytes / 1e6,
        )
        before = found.get(record.subject)
        if reading is not None and (before is None or _rank(reading) > _rank(before)):
            found[record.subject] = reading
    return found


def weights_on(
    device: DeviceSpec, compute_unit: ComputeUnit, scenario: Scenario, weights: WeightFormat
) -> Callable[[Workload], float]:
    """Return what tells the memory (MB) of a network's weights on a compute unit."""
    unit = home_units(device, compute_unit, scenario.compute_units, scenario.precision)[0]
    target = MemoryTarget.of_unit(unit, weights=weights)
    return lambda workload: resident_weight_bytes(workload, target) / 1e6


def _rank(reading: MemoryReading) -> tuple[bool, float]:
    return not reading.at_least, reading.value_mb


def fit_memory(estimated_mb: Sequence[float], readings: Sequence[MemoryReading]) -> MemoryLine:
    """Fit a line of readings on estimates that single odd networks do not tilt.

    Siegel's repeated medians; with fewer than five readings, no spread in the estimate, or a falling line, the scale is
    1 and only the constant is fitted. A censored reading counts as the larger of its bound and what the line says, in
    turn until both agree, so that it pushes the line up and never pulls it down.

    Raises:
        ValueError: There are no readings.

    Source:
        Siegel, "Robust regression using repeated medians" (Biometrika 1982); imputation as in Buckley and James,
        "Linear regression with censored data" (Biometrika 1979), with the line in place of a conditional mean.
    """
    if not readings:
        raise ValueError("a memory line needs at least one reading")
    estimated = np.array(estimated_mb, dtype=float)
    bounds = np.array([reading.value_mb for reading in readings])
    censored = np.array([reading.at_least for reading in readings])
    start = ~censored if not censored.all() else censored
    scale, constant = _line(estimated[start], bounds[start])
    for _ in range(_MOST_ROUNDS if censored.any() else 0):
        imputed = np.where(censored, np.maximum(bounds, constant + scale * estimated), bounds)
        before, (scale, constant) = (scale, constant), _line(estimated, imputed)
        if np.allclose(before, (scale, constant), rtol=1e-9, atol=1e-9):
            break
    return MemoryLine(
        scale=scale, constant_mb=constant, num_readings=len(readings), num_censored=int(np.count_nonzero(censored))
    )


def _line(estimated: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[float, float]:
    from scipy.stats import siegelslopes

    scale = 1.0
    if len(estimated) >= 5 and len(np.unique(estimated)) >= 3:
        slope = float(siegelslopes(measured, estimated)[0])
        scale = slope if slope > 0 else 1.0
    return scale, float(np.median(measured - scale * estimated))
