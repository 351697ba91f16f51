"""Constants of a device file that were fitted: what each is, and a device with them in place of the file's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import exp, log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from latency_models.devices import DeviceSpec, Figure, UnitSpec

UNIT_CONSTANTS = (
    "peak_flops",
    "weight_bandwidth",
    "memory_bandwidth",
    "on_chip_bandwidth",
    "operation_overhead_ms",
    "segment_overhead_ms",
    "call_overhead_ms",
)
SCALE = "scale of "  # of all times of a chip


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedConstant:
    """One constant: factor on the file's value, and standard deviations of its logarithm before and after."""

    name: str
    factor: float
    prior_log_sd: float
    log_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What fitted figures say of themselves: on how many samples, and how sure each is."""

    samples: int
    log_sds: Mapping[str, float]


def shifted(
    device: DeviceSpec, shifts: Mapping[str, float], working_set_factor: float, note: Note | None = None
) -> DeviceSpec:
    """Return ``device`` with its constants times exp(shift), and all its times by the scale of its chip."""
    scale = shifts.get(f"{SCALE}{device.chip}", 0.0)

    def move(name: str, figure: Figure) -> Figure:
        if name not in shifts and scale == 0.0:
            return figure
        own = 0.0 if ".rates." in name else scale if name.endswith("_ms") else -scale
        value = figure.value * exp(shifts.get(name, 0.0) + own)
        if note is None:
            return replace(figure, value=value)
        return replace(
            figure,
            value=value,
            kind="measured",
            source=f"fitted on {note.samples} measurements, from: {figure.source}",
            date=datetime.now(UTC).date().isoformat(),
            spread=max(1.0 + 1e-9, exp(note.log_sds.get(name, figure.log_sd))),
        )

    units = tuple(_moved_unit(unit, move, working_set_factor) for unit in device.units)
    return replace(device, units=units, crossing_ms=move("crossing_ms", device.crossing_ms))


def _moved_unit(unit: UnitSpec, move: Callable[[str, Figure], Figure], working_set_factor: float) -> UnitSpec:
    prefix = unit.compute_unit
    changes: dict[str, Any] = {name: move(f"{prefix}.{name}", getattr(unit, name)) for name in UNIT_CONSTANTS}
    rates = tuple(replace(item, ratio=move(f"{prefix}.rates.{item.work}", item.ratio)) for item in unit.rates)
    size = replace(unit.on_chip_bytes, value=unit.on_chip_bytes.value * working_set_factor)
    return replace(unit, rates=rates, on_chip_bytes=size, **changes)


def with_constants(
    spec: DeviceSpec, constants: Sequence[FittedConstant], working_set_factor: float, *, samples: int
) -> DeviceSpec:
    """Return ``spec`` with constants that were fitted on so many samples."""
    shifts = {constant.name: log(constant.factor) for constant in constants}
    note = Note(samples=samples, log_sds={constant.name: constant.log_sd for constant in constants})
    return shifted(spec, shifts, working_set_factor, note=note)
