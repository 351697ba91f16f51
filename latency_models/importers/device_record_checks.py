"""What makes a line of the runner unfit to calibrate by: throttling, no warm-up, values that cannot be."""

from __future__ import annotations

from dataclasses import fields
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from nas.core.profile import THERMAL_STATES
from nas.core.units import megabytes, milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from latency_models.importers.device_record_schema import DeviceRecord, Latency

# Samples of one job on a cool phone lie within a few percent, with single calls beside the system's own work far off;
# a tenth of them five times as long as another tenth is no measurement of one thing.
MOST_SPREAD = 5.0
_LEAST_SAMPLES = 8  # for a spread
# Nothing that enters Core ML, checks its inputs and makes an output is back sooner on any device.
SHORTEST_CALL_MS = 0.005
_MOST_RAM_GB = 2048.0


def check_line(line: DeviceRecord) -> None:
    """Check one line that is not from a job that merely began.

    Raises:
        ValueError: It cannot be used; all reasons are named.
    """
    found = [*_impossible(line)]
    if line.latency is not None and line.error is None:
        found += [*_throttled(line), *_timing(line, line.latency)]
    if found:
        raise ValueError("; ".join(found))


def _throttled(line: DeviceRecord) -> Iterator[str]:
    """Name what slowed the phone down; ``fair`` at the end is warm, not slowed, and stays."""
    start, end = line.device.thermal_start, line.device.thermal_end
    if start in THERMAL_STATES and start != "nominal":
        yield f"the phone was {start!r} at the start: measure from 'nominal'"
    if end in ("serious", "critical"):
        yield f"the phone was {end!r} at the end: it throttled"
    if line.device.low_power:
        yield "low power mode was on"


def _timing(line: DeviceRecord, latency: Latency) -> Iterator[str]:
    if latency.warmup < 1:
        yield "has no warm-up: its first samples are of a cold start"
    steady = [milliseconds(value, latency.unit) for value in latency.samples[max(latency.warmup, 0) :]]
    if not steady or not all(isfinite(value) and value > 0 for value in steady):
        return  # the record itself refuses these
    if line.model.kind != "op" and min(steady) < SHORTEST_CALL_MS:
        yield f"a call of {min(steady):g} ms is shorter than any call, {SHORTEST_CALL_MS} ms"
    low, high = np.quantile(steady, [0.1, 0.9])
    if len(steady) >= _LEAST_SAMPLES and high > MOST_SPREAD * low:
        yield f"a tenth of the calls took over {high:g} ms, a tenth under {low:g} ms: something else ran beside them"


def _impossible(line: DeviceRecord) -> Iterator[str]:
    phone, latency, memory = line.device, line.latency, line.memory
    if phone.battery is not None and not 0.0 <= phone.battery <= 1.0:
        yield f"device.battery must lie in [0, 1], got {phone.battery:g}"
    if phone.ram_gb is not None and not 0.0 < phone.ram_gb <= _MOST_RAM_GB:
        yield f"device.ram_gb must lie above 0 and at most {_MOST_RAM_GB:g}, got {phone.ram_gb:g}"
    if latency is not None:
        for name in ("median", "p90", "min", "iqr", "cold_first"):
            value = getattr(latency, name)
            if value is not None and not (isfinite(value) and value >= 0):
                yield f"latency.{name} must be finite and not negative, got {value:g}"
    if memory is None or phone.ram_gb is None:
        return
    ram_mb = megabytes(phone.ram_gb, "GiB")
    for field in fields(memory):
        value = getattr(memory, field.name)
        if isinstance(value, (int, float)) and not megabytes(value, memory.unit) <= ram_mb:
            yield f"memory.{field.name} of {value:g} {memory.unit} is no size on a device of {phone.ram_gb:g} GiB"
