"""Published whole-model times of Core ML, memory of models on phones, and constants of the Neural Engine.

The tables are those of the shared measurements: ``apple_coreml.csv``, ``device_memory.csv`` and ``ane_micro.csv``. Each
row names its repository and licence, and stays ``published``: a third party measured it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.importers.contract import ImportOptions, ImportResult, ReferenceFigure, Rows, read_csv
from latency_models.importers.naming import loose_device_name, ran_on, requested_units, third_party
from nas.core.profile import PackageInfo, ProfileRecord, RunConditions
from nas.core.units import megabytes, milliseconds, quantity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nas.core.scenario import ComputeUnits

_SETTINGS: dict[str, ComputeUnits] = {"default(all)": "all", "ANE(all)": "all"}


def read_times(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read whole-model times; a row that also has an end-to-end time gives a second record.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    for line, cells in read_csv(path)[1]:
        with rows.row(line):
            time_ms = milliseconds(quantity(cells["latency_ms"])[0], "ms")
            rows.keep(_times_record(cells, cells["model"], time_ms), line)
            if cells.get("end_to_end_s"):
                whole_ms = milliseconds(quantity(cells["end_to_end_s"])[0], "s")
                rows.keep(_times_record(cells, f"{cells['model']}, end to end", whole_ms, pipeline=True), line)
    return rows.result()


def _times_record(cells: Mapping[str, str], subject: str, time_ms: float, *, pipeline: bool = False) -> ProfileRecord:
    unit = cells["unit"]
    asked = _asked(unit)
    size = [f"{float(cells['input_px']):g} px"] if cells.get("input_px") else []
    section = [cells["section"]] if cells.get("section") else []
    remarks = [
        f"{name} {cells[name]}" for name in ("precision", "doc_version", "width_mult", "note") if cells.get(name)
    ]
    attention = cells.get("attention", "")
    return ProfileRecord(
        subject=", ".join([subject, *size, *section]),
        level="pipeline" if pipeline else "network",
        scenario="",
        device=third_party(
            loose_device_name(cells["device"]),
            chip=cells.get("chip", ""),
            unit=ran_on((), asked),
            software=unit if asked is None else "Core ML",
        ),
        samples_ms=(time_ms,),
        warmup=0,
        statistic="mean" if pipeline else "median",
        peak_memory_mb=None,
        memory_method=None,
        package=PackageInfo(parameters=_scaled(cells.get("params_m"), 1e6), macs=_scaled(cells.get("macs_g"), 1e9)),
        conditions=RunConditions(
            requested_units=asked,
            lowering="einsum" if attention.startswith("SPLIT_EINSUM") else None,
            optimization_hints=(("attention", attention),) if attention else (),
        ),
        tool="published table",
        taken_at="",
        origin="published",
        source=cells["source"],
        licence=cells["licence"],
        note="; ".join(remarks),
    )


def read_memory(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read peak memory of models on phones, in the unit that each row names.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    for line, cells in read_csv(path)[1]:
        with rows.row(line):
            size_mb = megabytes(quantity(cells["value"])[0], cells["unit"])
            if size_mb <= 0:
                raise ValueError(f"memory must be above 0, got {cells['value']} {cells['unit']}")
            rows.keep(_memory_record(cells, size_mb), line)
    return rows.result()


def _memory_record(cells: Mapping[str, str], size_mb: float) -> ProfileRecord:
    return ProfileRecord(
        subject=f"{cells['model']}, {cells['section']}",
        level="network",
        scenario="",
        device=third_party(loose_device_name(cells["device"]), software=cells["backend"]),
        samples_ms=(),
        warmup=0,
        peak_memory_mb=size_mb,
        memory_method="published rise of the app's memory",
        tool="published table",
        taken_at="",
        origin="published",
        source=cells["source"],
        licence=cells["licence"],
        note=f"doc_version {cells['doc_version']}",
    )


def read_figures(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read constants of chips; a value that is a range or no number is named.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    header, lines = read_csv(path)
    device = "chip" if "chip" in header else "device"
    for line, cells in lines:
        with rows.row(line):
            rows.figures.append(
                ReferenceFigure(
                    device=cells[device],
                    quantity=": ".join(cells[name] for name in ("situation", "quantity") if cells.get(name)),
                    value=quantity(cells["value"])[0],
                    unit=cells["unit"],
                    source=cells["source"],
                    licence=cells.get("licence", "fact, quoted"),
                    file=str(path),
                    line=line,
                )
            )
    return rows.result()


def _asked(unit: str) -> ComputeUnits | None:
    """Return the Core ML setting of the column ``unit``; None where it names a runtime."""
    if unit in _SETTINGS:
        return _SETTINGS[unit]
    try:
        return requested_units(unit)
    except ValueError:
        return None


def _scaled(text: str | None, factor: float) -> int | None:
    return round(quantity(text)[0] * factor) if text else None
