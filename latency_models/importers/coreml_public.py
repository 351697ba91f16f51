"""Public Core ML tables beyond whole-model times and memory: load times, planner estimates, chunks, constants.

Folders and files are those of the shared ``coreml_public``; each reader names repository and licence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from latency_models.importers.compute_plans import plan_record
from latency_models.importers.contract import ImportOptions, ImportResult, ReferenceFigure, Rows, read_csv
from latency_models.importers.naming import loose_device_name, ran_on, requested_units, third_party
from nas.core.profile import Failure, LoadTimes, PackageInfo, PlannedOperation, ProfileRecord, RunConditions
from nas.core.units import TIME_UNITS, milliseconds, quantity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nas.core.cost import ComputeUnit

_BACKENDS: dict[str, ComputeUnit] = {
    "ane": "neural_engine",
    "bnns": "cpu",
    "classic_cpu": "cpu",
    "mps_graph": "gpu",
}
_ROOFLINE_UNITS = {
    "peak_fp16_gemm_tflops": "TFLOP/s",
    "bandwidth_gbps": "GB/s",
    "ridge_flop_per_byte": "FLOP/byte",
    "peak_perf_per_w_gflops": "GFLOP/s/W",
}
_CHUNK = re.compile(r"(c\d+)(?: (\w+))?")
_NUMBER = re.compile(r"~?(-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?)\s*(.*)")


def read_conversions(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read first-load compile times of SD 1.5 on an M2 Pro; graph capture and conversion stay in the note.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    for line, cells in read_csv(path)[1]:
        with rows.row(line):
            rows.keep(_conversion_record(cells), line)
    return rows.result()


def _conversion_record(cells: Mapping[str, str]) -> ProfileRecord:
    asked = requested_units(cells["compute_unit"])
    load = LoadTimes(first_load_ms=_seconds(cells["first_load_compile_s"]))
    done = cells["status"] == "ok"
    return ProfileRecord(
        subject=f"SD 1.5 UNet {cells['attention']} {cells['resolution']} px",
        level="network",
        scenario="",
        device=third_party("M2 Pro", chip="M2 Pro", unit=ran_on((), asked), software="Core ML"),
        samples_ms=(),
        warmup=0,
        peak_memory_mb=None,
        memory_method=None,
        failure=None if done else Failure(stage="compile", message=cells["status"]),
        load=load if done else None,
        package=PackageInfo(
            file=cells["file"],
            toolchain=f"coremltools {cells['coremltools_major']}",
            weight_bits=float(cells["quantize"]) if cells["quantize"].isdigit() else None,
        ),
        conditions=RunConditions(
            requested_units=asked, lowering="einsum" if cells["attention"].startswith("SPLIT_EINSUM") else None
        ),
        tool=cells["backend"],
        taken_at="",
        origin="published",
        source="aszc-dev/coreml-diffusion-benchmarks (f80a211)",
        licence="MIT",
        note=f"graph capture {cells['graph_capture_s']} s, conversion {cells['convert_s']} s",
    )


def read_backend_estimates(path: Path, options: ImportOptions) -> ImportResult:
    """Read a planner's estimate per operation and back end; shares only, for its unit is the framework's own.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    lines = read_csv(path)[1]
    plan: list[PlannedOperation] = []
    total = sum(float(cells.get(f"est_time_{cells['selected_backend']}") or 0.0) for _, cells in lines)
    for line, cells in lines:
        with rows.row(line):
            plan.append(_estimated(cells, total))
    with rows.row(None):
        note = "planner's estimates, relative use only; freedomtan/coreml_modelc_profling (502bfb5), BSD-3-Clause"
        rows.keep(plan_record(path, plan, options, tool="segmentationAnalytics", note=note), None)
    return rows.result()


def _estimated(cells: Mapping[str, str], total: float) -> PlannedOperation:
    backend = cells["selected_backend"]
    if backend not in _BACKENDS:
        raise ValueError(f"unknown back end {backend!r}; known are {', '.join(_BACKENDS)}")
    estimate = cells[f"est_time_{backend}"]
    units = [unit for name, unit in _BACKENDS.items() if cells[f"est_time_{name}"]]
    return PlannedOperation(
        name=cells["op_location"],
        kind=cells["op_type"],
        preferred=_BACKENDS[backend],
        supported=tuple(dict.fromkeys(units)),
        cost_share=float(estimate) / total if estimate else None,
        reason=cells["invalid_reason"],
    )


def read_chunks(path: Path, options: ImportOptions) -> ImportResult:
    """Read times per chunk of a language model, in columns ``c1`` or ``c1 ms``, or per component in a column ``ms``.

    A column without a unit takes the one that another time of its row states.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    header, lines = read_csv(path)
    device = options.device or _chunk_device(path)
    if device is None:
        rows.remarks.append(f"{path}: states no device; --device names it")
    chunks = [(name, match) for name in header if (match := _CHUNK.fullmatch(name))]
    if "ms" in header:
        chunks = [("ms", re.fullmatch(r"(ms)()", "ms"))]  # type: ignore[list-item]  # always matches
    if not chunks:
        rows.remarks.append(f"{path}: has no time per chunk")
    for line, cells in lines:
        for name, match in chunks:
            with rows.row(line):
                number, own = quantity(cells[name])
                unit = "ms" if name == "ms" else own or match[2] or _row_unit(cells) or options.unit
                if not unit:
                    raise ValueError(f"{name} {number:g} has no unit")
                part = "" if name == "ms" else f", chunk {match[1]}"
                record = _chunk_record(path, f"{cells[header[0]]}{part}", milliseconds(number, unit), device)
                rows.keep(record, line)
    return rows.result()


def _row_unit(cells: Mapping[str, str]) -> str:
    for text in cells.values():
        try:
            unit = quantity(text)[1]
        except ValueError:
            continue
        if unit in TIME_UNITS:
            return unit
    return ""


def _chunk_device(path: Path) -> str | None:
    """Return the device of a table from the index beside it: the collection is of one phone and of Macs."""
    index = path.with_name("index.csv")
    if not index.is_file():
        return None
    stated = " ".join(
        f"{cells['doc']} {cells['section']}" for _, cells in read_csv(index)[1] if cells["file"] == path.name
    )
    if "iphone" in stated.lower():
        return "iPhone 17 Pro"
    return "Mac" if "mac" in stated.lower() else None


def _chunk_record(path: Path, subject: str, time_ms: float, device: str | None) -> ProfileRecord:
    return ProfileRecord(
        subject=f"{path.stem}: {subject}",
        level="block",
        scenario="",
        device=third_party(loose_device_name(device or "not stated"), software="Core ML"),
        samples_ms=(time_ms,),
        warmup=0,
        statistic="median",
        peak_memory_mb=None,
        memory_method=None,
        tool="published table",
        taken_at="",
        origin="published",
        source=f"john-rocky/CoreML-LLM (72178c6) {path.stem}",
        licence="MIT",
    )


def read_guide(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read one table of the Neural Engine guide: every cell that begins with a number, its unit behind it.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    header, lines = read_csv(path)
    silicon = next((name for name in header if name in ("Silicon", "Chip", "Device")), None)
    without = 0
    for line, cells in lines:
        for name in header[1:]:
            match = None if name == silicon else _NUMBER.fullmatch(cells[name])
            if match is None:
                without += name != silicon
                continue
            rows.figures.append(_guide_figure(path, line, cells, (header[0], name, silicon), match))
    if without:
        rows.remarks.append(f"{path}: {without} cells begin with no number")
    return rows.result()


def read_rooflines(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read community rooflines of Macs: reached rates of matrix products and of memory.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    for line, cells in read_csv(path)[1]:
        for name, unit in _ROOFLINE_UNITS.items():
            with rows.row(line):
                rows.figures.append(
                    ReferenceFigure(
                        device=cells["chip"],
                        quantity=name,
                        value=quantity(cells[name])[0],
                        unit=unit,
                        source="huggingface.co/datasets/aneforge/ane-rooflines",
                        licence="MIT",
                        file=str(path),
                        line=line,
                    )
                )
    return rows.result()


def _guide_figure(
    path: Path, line: int, cells: Mapping[str, str], columns: tuple[str, str, str | None], match: Any
) -> ReferenceFigure:
    first, name, silicon = columns
    return ReferenceFigure(
        device=cells[silicon] if silicon else name,
        quantity=f"{cells[first]} ({name})",
        value=float(match[1].replace(",", "")),
        unit=match[2],
        source=f"Apple Neural Engine guide, sbryngelson/ane-guide (9eb1afe), arXiv 2606.22283, {path.stem}",
        licence="CC BY 4.0",
        file=str(path),
        line=line,
    )


def _seconds(text: str) -> float | None:
    return milliseconds(quantity(text)[0], "s") if text else None
