"""Latencies and memory that papers and project pages report for diffusion networks and others, one figure a row.

Source:
    ``published_device_latencies.csv`` of the shared data; its column ``source`` names where each figure was read and
    ``confidence`` how sure it is. Figures from memory alone are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latency_models.importers.contract import ImportOptions, ImportResult, Rows, read_csv
from latency_models.importers.naming import loose_device_name, requested_units, third_party
from nas.core.profile import Failure, PackageInfo, ProfileRecord, RunConditions
from nas.core.units import quantity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nas.core.cost import ComputeUnit
    from nas.core.scenario import ComputeUnits

_UNITS: tuple[tuple[str, ComputeUnit], ...] = (
    ("Neural Engine", "neural_engine"),
    ("NPU", "neural_engine"),
    ("GPU", "gpu"),
    ("CPU", "cpu"),
)


def read(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read the table; rows from memory, and rows without any figure, are named and left out.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    for line, cells in read_csv(path)[1]:
        with rows.row(line):
            if cells["confidence"].startswith("memory-unverified"):
                raise ValueError(
                    f"{cells['model']!r}: confidence is {cells['confidence']!r}: a recollection, no figure"
                )
            rows.keep(_record(cells), line)
    return rows.result()


def _record(cells: Mapping[str, str]) -> ProfileRecord:
    known = [
        cells[name] for name in ("component", "resolution", "batch_or_frames") if cells[name] not in ("", "unknown")
    ]
    steps = [f"{cells['steps']} steps"] if cells["steps"] not in ("", "unknown", "1") else []
    time_ms = quantity(cells["latency_ms"])[0] if cells["latency_ms"] else None
    memory_mb = quantity(cells["memory_mb"])[0] if cells["memory_mb"] else None
    asked = _asked(cells["compute_unit"])
    shown: dict[str, Any] = {"samples_ms": (), "statistic": "samples"}
    if time_ms is not None:
        shown = {"samples_ms": (time_ms,), "statistic": "median"}
    return ProfileRecord(
        subject=", ".join([cells["model"], *known, *steps]),
        level="pipeline" if cells["component"].startswith(("end-to-end", "text-to-video")) else "network",
        scenario="",
        device=third_party(
            loose_device_name(cells["device"]), unit=_ran_on(cells["compute_unit"]), software=cells["runtime"]
        ),
        warmup=0,
        peak_memory_mb=memory_mb,
        memory_method=None if memory_mb is None else "as published",
        failure=None if time_ms is not None else _failure(f"{cells['component']}; {cells['confidence']}"),
        package=PackageInfo(parameters=round(quantity(cells["params_M"])[0] * 1e6)) if cells["params_M"] else None,
        conditions=RunConditions(
            requested_units=asked, lowering="einsum" if "SPLIT_EINSUM" in cells["runtime"] else None
        ),
        tool="published table",
        taken_at="",
        origin="published",
        source=cells["source"],
        licence="figures, quoted",
        note=f"confidence: {cells['confidence']}",
        **shown,
    )


def _failure(text: str) -> Failure | None:
    if "out of memory" in text:
        return Failure(stage="out_of_memory", message=text)
    return Failure(stage="predict", message=text) if "does not run" in text else None


def _asked(text: str) -> ComputeUnits | None:
    try:
        return requested_units(text.split("(")[0])
    except ValueError:
        return None


def _ran_on(text: str) -> ComputeUnit:
    """Return the one unit that the column names; a setting that allows several leaves it unknown."""
    named = [unit for name, unit in _UNITS if text.startswith(name) and not text.startswith("CPU_AND")]
    return named[0] if named else "unknown"
