"""Read the device files and look devices up by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import yaml

from nas.core.cost import ComputeUnit
from nas.core.errors import ConfigError
from nas.core.schema import check_schema, from_data

if TYPE_CHECKING:
    from nas.core.scenario import ComputeUnits, Precision

FigureKind = Literal["measured", "published", "estimate"]

# What a Core ML setting may use, most preferred first.
_PREFERENCE: dict[str, tuple[ComputeUnit, ...]] = {
    "all": ("neural_engine", "gpu", "cuda", "cpu"),
    "cpu_and_ne": ("neural_engine", "cpu"),
    "cpu_and_gpu": ("gpu", "cuda", "cpu"),
    "cpu_only": ("cpu",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number with where it comes from.

    ``kind`` is ``measured`` (by the named third party), ``published`` (by the vendor or a paper) or ``estimate``
    (ours; ``source`` gives the reasoning). ``date`` is when the source was read.
    """

    value: float
    kind: FigureKind
    source: str
    date: str

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ValueError(f"a device figure must not be negative, got {self.value}")
        if not self.source or not self.date:
            raise ValueError("a device figure needs a source and a date")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpec:
    """Rates and overheads of one compute unit.

    Attributes:
        compute_unit: Which unit.
        peak_flops: Reachable FLOP/s at half precision (a multiply-add is two).
        memory_bandwidth: Bytes/s of activations streamed through memory.
        weight_bandwidth: Bytes/s of weights.
        operation_overhead_ms: Fixed time of one operation.
        call_overhead_ms: Fixed time of one call of a network.
    """

    compute_unit: ComputeUnit
    peak_flops: Figure
    memory_bandwidth: Figure
    weight_bandwidth: Figure
    operation_overhead_ms: Figure
    call_overhead_ms: Figure

    def peak_flops_at(self, precision: Precision) -> float:
        """FLOP/s at ``precision``; accelerators halve at single precision, CPU figures hold for both."""
        halved = precision == "float32" and self.compute_unit != "cpu"
        return self.peak_flops.value / (2.0 if halved else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A device that costs can be stated for.

    ``usable_memory_mb`` is what one app may hold. ``prior_factor`` is how far, as a ratio, an uncalibrated prediction
    is stated to be off either way.
    """

    name: str
    label: str
    chip: str
    usable_memory_mb: Figure
    prior_factor: Figure
    units: tuple[UnitSpec, ...]

    def __post_init__(self) -> None:
        if not self.units:
            raise ValueError(f"device {self.name!r} has no compute unit")
        if self.prior_factor.value <= 1.0:
            raise ValueError(f"device {self.name!r}: prior_factor must be above 1, got {self.prior_factor.value}")

    def unit_for(self, compute_units: ComputeUnits) -> UnitSpec:
        """Return the preferred unit a Core ML setting allows; a device with one unit always uses that."""
        if len(self.units) == 1:
            return self.units[0]
        by_name = {unit.compute_unit: unit for unit in self.units}
        for name in _PREFERENCE[compute_units]:
            if name in by_name:
                return by_name[name]
        raise ConfigError(
            f"device {self.name!r} has no figures for compute_units {compute_units!r}",
            hint=f"it has {', '.join(by_name)}",
        )


def names() -> tuple[str, ...]:
    """Names of the known devices, sorted."""
    folder = resources.files("latency_models.devices")
    return tuple(sorted(entry.name[: -len(".yaml")] for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def get(name: str) -> DeviceSpec:
    """Look a device up; dashes and underscores are alike.

    Raises:
        ConfigError: The name is unknown; the message lists the known names and the nearest.
    """
    wanted = name.replace("-", "_")
    known = names()
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        suffix = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"device {name!r} is not known; known are {', '.join(known)}{suffix}")
    return _read(wanted)


@cache
def _read(name: str) -> DeviceSpec:
    file = resources.files("latency_models.devices") / f"{name}.yaml"
    data: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    body = check_schema(data, "device", 1, where=f"{name}.yaml")
    return from_data(DeviceSpec, body, where=f"{name}.yaml")
