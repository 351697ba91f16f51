"""Read the chip and device files and look devices up by name.

A chip's rates and limits stand in ``chips/<chip>.yaml``; it may name a ``base`` chip whose figures it takes over where
it has none. ``devices.yaml`` lists the devices: label, chip, memory.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from latency_models.devices.figures import Figure
from latency_models.devices.units import UnitSpec
from nas.core.errors import ConfigError, InputError
from nas.core.schema import check_schema, from_data

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.core.cost import ComputeUnit
    from nas.core.scenario import ComputeUnits, Precision

# What a Core ML setting may use, most preferred first.
_PREFERENCE: dict[str, tuple[ComputeUnit, ...]] = {
    "all": ("neural_engine", "gpu", "cuda", "cpu"),
    "cpu_and_ne": ("neural_engine", "cpu"),
    "cpu_and_gpu": ("gpu", "cuda", "cpu"),
    "cpu_only": ("cpu",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A device that costs can be stated for.

    ``ram_mb`` is what is built in, ``usable_memory_mb`` what one app may hold. ``prior_factor`` is how far, as a ratio,
    an uncalibrated prediction is stated to be off either way. ``crossing_ms`` is the time of handing tensors from one
    compute unit to another. ``session_shift`` is by how much, as a ratio, whole sessions are known to differ from an
    earlier one (standard deviation); None where that is not known.
    """

    name: str
    label: str
    chip: str
    ram_mb: Figure
    usable_memory_mb: Figure
    prior_factor: Figure
    crossing_ms: Figure
    units: tuple[UnitSpec, ...]
    session_shift: Figure | None = None

    def __post_init__(self) -> None:
        if not self.units:
            raise ValueError(f"device {self.name!r} has no compute unit")
        if self.prior_factor.value <= 1.0:
            raise ValueError(f"device {self.name!r}: prior_factor must be above 1, got {self.prior_factor.value}")

    def relowered(self, lowerings: Iterable[tuple[str, str]]) -> DeviceSpec:
        """Return the device with other lowerings, by compute unit, as a network converted for them has.

        Raises:
            ConfigError: The device has no such unit.
        """
        changed = dict(lowerings)
        for name in changed:
            self.unit(name)  # type: ignore[arg-type]  # refuses what is no unit of the device
        if not changed:
            return self
        units = tuple(replace(unit, lowering=changed.get(unit.compute_unit, unit.lowering)) for unit in self.units)
        return replace(self, units=units)

    def unit(self, compute_unit: ComputeUnit) -> UnitSpec:
        """Return the unit of a kind.

        Raises:
            ConfigError: The device has none.
        """
        for unit in self.units:
            if unit.compute_unit == compute_unit:
                return unit
        raise ConfigError(f"device {self.name!r} has no {compute_unit!r}", hint=f"it has {self._known()}")

    def unit_for(self, compute_units: ComputeUnits) -> UnitSpec:
        """Return the preferred unit a Core ML setting allows; a device with one unit always uses that."""
        return self.units_for(compute_units)[0]

    def units_for(self, compute_units: ComputeUnits, precision: Precision | None = None) -> tuple[UnitSpec, ...]:
        """Return the units a Core ML setting allows, most preferred first; a device with one unit always uses that.

        Args:
            compute_units: Core ML setting.
            precision: Leave out units that do not compute at it.

        Raises:
            ConfigError: None is left.
        """
        if len(self.units) == 1:
            return self.units
        by_name = {unit.compute_unit: unit for unit in self.units}
        allowed = tuple(by_name[name] for name in _PREFERENCE[compute_units] if name in by_name)
        if not allowed:
            raise ConfigError(
                f"device {self.name!r} has no figures for compute_units {compute_units!r}",
                hint=f"it has {self._known()}",
            )
        fitting = tuple(unit for unit in allowed if precision is None or precision in unit.precisions)
        if not fitting:
            known = ", ".join(sorted({name for unit in allowed for name in unit.precisions}))
            raise ConfigError(
                f"no unit of {self.name!r} allowed by compute_units {compute_units!r} computes at {precision!r}",
                hint=f"they compute at {known}: set scenario.precision",
            )
        return fitting

    def _known(self) -> str:
        return ", ".join(unit.compute_unit for unit in self.units)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chip:
    name: str
    label: str
    prior_factor: Figure
    crossing_ms: Figure
    units: tuple[UnitSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    name: str
    label: str
    chip: str
    ram_mb: Figure
    usable_memory_mb: Figure
    session_shift: Figure | None = None


def names() -> tuple[str, ...]:
    """Names of the known devices, sorted."""
    return tuple(sorted(_listings()))


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
    return _device(wanted)


def read_listings(text: str, *, where: str) -> dict[str, Any]:
    """Return the devices of a ``nas/devices/2`` file by name.

    Raises:
        InputError: Not such a file; one of the first version, a file for each device, is named as that.
    """
    data: Any = yaml.safe_load(text)
    if isinstance(data, dict) and data.get("schema") == "nas/device/1":
        raise InputError(
            f"{where}: schema is 'nas/device/1', a file for each device; this version reads 'nas/devices/2'",
            hint="put the chip's rates into chips/<chip>.yaml (schema nas/chip/1) and list the device in devices.yaml",
        )
    body = check_schema(data, "devices", 2, where=where)
    listings = from_data(list[_Listing], body.get("devices"), where=where)
    return {listing.name: listing for listing in listings}


@cache
def _listings() -> dict[str, Any]:
    file = resources.files("latency_models.devices") / "devices.yaml"
    return read_listings(file.read_text(encoding="utf-8"), where="devices.yaml")


@cache
def _device(name: str) -> DeviceSpec:
    listing: _Listing = _listings()[name]
    chip = _chip(listing.chip)
    return DeviceSpec(
        name=listing.name,
        label=listing.label,
        chip=chip.label,
        ram_mb=listing.ram_mb,
        usable_memory_mb=listing.usable_memory_mb,
        prior_factor=chip.prior_factor,
        crossing_ms=chip.crossing_ms,
        units=chip.units,
        session_shift=listing.session_shift,
    )


@cache
def _chip(name: str) -> _Chip:
    data = _chip_data(name)
    data["units"] = [
        {**figures, "compute_unit": unit, "rates": [{"work": work, "ratio": ratio} for work, ratio in rates.items()]}
        for unit, figures in data["units"].items()
        for rates in [figures.get("rates", {})]
    ]
    return from_data(_Chip, data, where=f"chips/{name}.yaml")


def _chip_data(name: str) -> dict[str, Any]:
    """Return a chip's file laid over that of its base."""
    file = resources.files("latency_models.devices") / "chips" / f"{name}.yaml"
    data = check_schema(yaml.safe_load(file.read_text(encoding="utf-8")), "chip", 1, where=f"chips/{name}.yaml")
    base = data.pop("base", None)
    return data if base is None else _laid_over(_chip_data(base), data)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return ``below`` with what ``above`` has; a figure is replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict) and "value" not in value
        merged[key] = _laid_over(merged[key], value) if nested else value
    return merged
