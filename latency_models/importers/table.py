"""CSV of (architecture or block, time), hand-collected or published; where it is from and its unit must be stated.

Columns, of which the first three are required:

- ``architecture``, ``block`` or ``model``: an architecture's text, a block's signature, or a name.
- a time: ``median_ms``, ``latency_ms``, ``mean_s``, ``latency (us)``; or without a unit in its name, beside a column
  ``unit``, or with the unit in each cell. Without any of them the file needs a stated unit.
- ``source``: where the figure is from.
- ``device``, ``chip``, ``os``, ``os_build``, ``compute_units``, ``scenario``, ``origin``, ``licence``, ``note``,
  ``taken_at``, ``num_runs``, ``weight_bits``, ``lowering``, ``thermal_state``, and a memory: ``peak_memory_mb`` or
  ``memory (MiB)``. ``error_stage`` and ``error_message`` stand for a time that is missing because it failed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latency_models.importers.contract import ImportOptions, ImportResult, Rows, read_csv
from latency_models.importers.naming import device_name, ran_on, requested_units, subject
from nas.core.cost import Origin
from nas.core.errors import InputError
from nas.core.profile import DeviceInfo, Failure, PackageInfo, ProfileRecord, RunConditions, Statistic
from nas.core.schema import from_data
from nas.core.units import MEMORY_UNITS, TIME_UNITS, megabytes, milliseconds, quantity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SUBJECTS = ("architecture", "block", "model")
_STATISTICS: dict[str, Statistic] = {
    "latency": "median", "time": "median", "median": "median", "mean": "mean", "average": "mean", "avg": "mean",
    "min": "minimum", "minimum": "minimum",
}  # fmt: skip
_OTHER = frozenset({
    "unit", "source", "device", "chip", "os", "os_build", "compute_units", "scenario", "origin", "licence", "note",
    "taken_at", "num_runs", "weight_bits", "lowering", "thermal_state", "error_stage", "error_message",
})  # fmt: skip
_HEADER = re.compile(r"(?P<name>[a-z_ ]+?)[ _]*(?:[(\[](?P<bracket>[^)\]]+)[)\]]|_(?P<tail>[a-zµμ]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Which header is what; units are empty where the header names none."""

    subject: str
    time: str | None
    time_unit: str
    statistic: Statistic
    memory: str | None
    memory_unit: str
    ignored: tuple[str, ...]


def read(path: Path, options: ImportOptions) -> ImportResult:
    """Read a table; rows that cannot be used are named by their line.

    Raises:
        InputError: The file is missing, or its header lacks a required column; what is lacking is named.
    """
    rows = Rows(str(path))
    header, lines = read_csv(path)
    columns = _columns(path, header)
    if columns.ignored:
        rows.remarks.append(f"{path}: columns that are not read: {', '.join(columns.ignored)}")
    for line, cells in lines:
        with rows.row(line):
            if "" in cells:
                raise ValueError(f"has more cells than the header: {cells['']!r}")
            rows.keep(_record(cells, columns, options), line)
    return rows.result()


def _columns(path: Path, names: list[str]) -> _Columns:
    subjects = [name for name in _SUBJECTS if name in names]
    times: list[tuple[str, str, Statistic]] = []
    memories: list[tuple[str, str]] = []
    ignored: list[str] = []
    for name in names:
        if name in _OTHER or name in subjects[:1]:
            continue
        stem, unit = _header(name)
        if stem in _STATISTICS and (not unit or _is_known(unit, TIME_UNITS)):
            times.append((name, unit, _STATISTICS[stem]))
        elif stem in ("memory", "peak_memory") and (not unit or _is_known(unit, MEMORY_UNITS)):
            memories.append((name, unit))
        else:
            ignored.append(name)
    lacking = [
        text
        for text, found in (("one of " + ", ".join(_SUBJECTS), subjects), ("source", "source" in names))
        if not found
    ]
    if not times and "error_stage" not in names:
        lacking.append("a time such as median_ms or latency (s)")
    if lacking:
        raise InputError(f"{path}: line 1: the header lacks {'; '.join(lacking)}", hint=f"it has {', '.join(names)}")
    if len(times) > 1:
        ignored += [name for name, _, _ in times[1:]]
    time = times[0] if times else (None, "", "median")
    memory = memories[0] if memories else (None, "")
    return _Columns(
        subject=subjects[0],
        time=time[0],
        time_unit=time[1],
        statistic=time[2],  # type: ignore[arg-type]  # one of three from the table above
        memory=memory[0],
        memory_unit=memory[1],
        ignored=tuple(ignored),
    )


def _header(name: str) -> tuple[str, str]:
    """Split ``median_ms``, ``latency (s)`` or ``peak_memory_mb`` into stem and unit."""
    match = _HEADER.fullmatch(name.lower())
    if match is None:
        return name, ""
    stem, unit = match["name"].strip().replace(" ", "_"), match["bracket"] or match["tail"] or ""
    if match["tail"] and not (_is_known(unit, TIME_UNITS) or _is_known(unit, MEMORY_UNITS)):
        return f"{stem}_{unit}", ""
    return stem, unit


def _is_known(unit: str, known: Mapping[str, float]) -> bool:
    return unit.lower() in {name.lower() for name in known}


def _record(cells: Mapping[str, str], columns: _Columns, options: ImportOptions) -> ProfileRecord:
    if not cells.get("source"):
        raise ValueError("states no source")
    asked = requested_units(cells["compute_units"]) if cells.get("compute_units") else options.compute_units
    failure = _failure(cells)
    time = None if failure else _time(cells, columns, options)
    memory = _memory(cells, columns)
    body: dict[str, Any] = {name: cells.get(name, "") for name in ("licence", "note", "taken_at")}
    if cells.get("origin"):
        body["origin"] = from_data(_Origin, {"origin": cells["origin"]}, where="column origin").origin
    return ProfileRecord(
        **subject(cells[columns.subject]),
        scenario=cells.get("scenario") or options.scenario,
        device=DeviceInfo(
            name=_device(cells, options),
            chip=cells.get("chip", ""),
            compute_unit=ran_on((), asked),
            threads=1,
            memory_mb=None,
            os_build=cells.get("os_build", ""),
            software="",
            os=cells.get("os", ""),
        ),
        samples_ms=() if time is None else (time,),
        warmup=0,
        statistic="samples" if time is None else columns.statistic,
        num_runs=int(cells["num_runs"]) if cells.get("num_runs") else None,
        peak_memory_mb=memory,
        memory_method=None if memory is None else f"column {columns.memory}",
        thermal_states=(cells["thermal_state"],) if cells.get("thermal_state") else (),
        failure=failure,
        package=PackageInfo(weight_bits=float(cells["weight_bits"])) if cells.get("weight_bits") else None,
        conditions=from_data(
            RunConditions, {"requested_units": asked, "lowering": cells.get("lowering") or None}, where="lowering"
        ),
        tool="table",
        source=cells["source"],
        **{"origin": "measured", **body},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    origin: Origin


def _device(cells: Mapping[str, str], options: ImportOptions) -> str:
    name = cells.get("device") or options.device
    if not name:
        raise ValueError("states no device: add a column 'device' or give --device")
    return device_name(name)


def _time(cells: Mapping[str, str], columns: _Columns, options: ImportOptions) -> float:
    if columns.time is None:
        raise ValueError("has no time and no error_stage")
    return milliseconds(*_figure(cells, columns.time, columns.time_unit, options.unit))


def _memory(cells: Mapping[str, str], columns: _Columns) -> float | None:
    if columns.memory is None or not cells.get(columns.memory):
        return None
    return megabytes(*_figure(cells, columns.memory, columns.memory_unit, None, shared=False))


def _figure(
    cells: Mapping[str, str], column: str, header: str, stated: str | None, *, shared: bool = True
) -> tuple[float, str]:
    """Return a cell's number and the one unit that cell, header, unit column and user state."""
    number, cell = quantity(cells.get(column, ""))
    said = {"the cell": cell, "the header": header, "column unit": cells.get("unit", "") if shared else ""}
    given = {who: unit for who, unit in said.items() if unit}
    if not given and stated:
        given = {"the option": stated}
    if not given:
        raise ValueError(f"{column} {number:g} has no unit: name it in the header, in a column 'unit', or give --unit")
    if len({unit.lower() for unit in given.values()}) > 1:
        pairs = ", ".join(f"{who} {unit!r}" for who, unit in given.items())
        raise ValueError(f"{column} {number:g} has mixed units: {pairs}")
    return number, next(iter(given.values()))


def _failure(cells: Mapping[str, str]) -> Failure | None:
    if not cells.get("error_stage"):
        return None
    data = {"stage": cells["error_stage"], "message": cells.get("error_message", "")}
    return from_data(Failure, data, where="error")
