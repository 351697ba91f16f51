"""CSV files beside the page: the same numbers, unrounded, for whoever wants to plot them again."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from nas.core.files import write_text_atomically
from nas.report.breakdown import breakdown_figure
from nas.report.limits import CHANCE_COLUMNS, DEVICE_COLUMNS, chance_rows, device_rows
from nas.report.scenarios import scenario_of, scenario_texts, stated_worth

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from nas.core.evaluation import Evaluation
    from nas.report.facts import AttributeTable
    from nas.report.figures import AgreementFigure
    from nas.report.origins import Origin
    from nas.report.run_files import ExportedRun, RunFiles, StageState, TrainedRun

Row = tuple[Any, ...]

_EVALUATION_COLUMNS = (
    "number", "digest", "state", "latency_ms", "latency_low_ms", "latency_high_ms", "peak_memory_mb", "memory_low_mb",
    "memory_high_mb", "parameters", "quality", "quality_standard_error", "origin", "device", "in_front", "selected",
    "in_domain", "selected_low_ms", "selected_high_ms", "package_mb", "objective_ms", "quality_estimator",
)  # fmt: skip


def write_tables(
    folder: Path,
    files: RunFiles,
    *,
    agreements: Sequence[AgreementFigure],
    attributes: Sequence[AttributeTable],
    origins: Sequence[Origin],
) -> tuple[Path, ...]:
    """Write every table that has rows into ``folder`` as CSV; returns the files written, in page order."""
    tables: dict[str, tuple[Sequence[str], Iterable[Row]]] = {
        "evaluations": (_EVALUATION_COLUMNS, _evaluations(files)),
        "scenarios": (
            ("digest", "denoising_steps", "frames", "height", "width", "weight_bits", "stated_worth", "selected"),
            _scenarios(files),
        ),
        "phases": (
            ("phase", "calls", "latency_ms", "low_ms", "high_ms", "peak_memory_mb", "origin", "source"),
            _phases(files.selected),
        ),
        "blocks": (("block", "role", "latency_ms", "memory_mb", "compute_unit"), _blocks(files.selected)),
        "chances": (CHANCE_COLUMNS, chance_rows(files.front)),
        "devices": (DEVICE_COLUMNS, device_rows(files.front)),
        "predicted_measured": (
            ("set", "network", "unit", "measured", "predicted", "low", "high", "covered"),
            _compared(agreements),
        ),
        "closed_loop_times": (("network", "measured_ms", "raw_ms"), _closed_loop(files)),
        "training": (("digest", "stage", "step", "name", "value"), _metrics(files.trained)),
        "attributes": _attributes(attributes),
        "export_checks": (("digest", "check", "expected", "found", "passed"), _checks(files.exported)),
        "export_parity": (
            (
                "digest",
                "output",
                "precision",
                "reference",
                "max_absolute",
                "max_relative",
                "psnr_db",
                "cosine",
            ),
            _parity(files.exported),
        ),
        "operations": (("digest", "operation", "count"), _operations(files.exported)),
        "stages": (("stage", "state", "started_at", "finished_at", "seconds", "error", "stale"), _stages(files.stages)),
        "origins": (
            ("number", "value", "origin", "where", "how", "file"),
            [(row.number, row.value, row.origin, row.where, row.how, row.file) for row in origins],
        ),
    }
    written = []
    for name, (columns, rows) in tables.items():
        body = list(rows)
        if body:
            path = folder / f"{name}.csv"
            write_text_atomically(path, csv_text(columns, body))
            written.append(path)
    return tuple(written)


def csv_text(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a CSV with a header line; absent values are empty, numbers unrounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def _evaluations(files: RunFiles) -> Iterable[Row]:
    members = {item.architecture.digest for item in files.front.members} if files.front else set()
    selected = files.front.selected if files.front else None
    effect = files.front.selection_effect if files.front else None
    for item in files.evaluations or (files.front.members if files.front else ()):
        cost, quality, digest = item.cost, item.quality, item.architecture.digest
        allowed = effect.interval(digest) if effect else None
        yield (
            item.number, digest, item.state, cost.latency_ms, cost.latency_interval_ms.low,
            cost.latency_interval_ms.high, cost.peak_memory_mb, cost.memory_interval_mb.low,
            cost.memory_interval_mb.high, cost.parameters, quality.score if quality else None,
            quality.standard_error if quality else None, cost.origin, cost.device,
            digest in members and item.at_highest_level, digest == selected and item.at_highest_level, cost.in_domain,
            allowed.low if allowed else None, allowed.high if allowed else None, cost.package_mb, cost.objective_ms,
            quality.estimator if quality else None,
        )  # fmt: skip


def _scenarios(files: RunFiles) -> Iterable[Row]:
    for item in files.front.members if files.front and scenario_texts(files.front) else ():
        point, digest = scenario_of(item), item.architecture.digest
        height, width = point.size or (None, None)
        yield (
            digest, point.denoising_steps, point.frames, height, width, point.weight_bits, stated_worth(item),
            files.front is not None and digest == files.front.selected,
        )  # fmt: skip


def _phases(chosen: Evaluation | None) -> Iterable[Row]:
    for part in chosen.cost.phases if chosen else ():
        range_ = part.latency_interval_ms
        yield (
            part.phase, part.calls, part.latency_ms, range_.low, range_.high, part.peak_memory_mb, part.origin,
            part.source,
        )  # fmt: skip


def _blocks(chosen: Evaluation | None) -> Iterable[Row]:
    for item in breakdown_figure(chosen).blocks if chosen else ():
        yield item.block, item.role, item.latency_ms, item.memory_mb, item.compute_unit


def _compared(agreements: Sequence[AgreementFigure]) -> Iterable[Row]:
    for figure in agreements:
        for point in figure.points:
            yield (
                figure.title, point.label, figure.unit, point.measured, point.predicted, point.low, point.high,
                point.covered,
            )  # fmt: skip


def _closed_loop(files: RunFiles) -> Iterable[Row]:
    for row in files.closed_loop.rows if files.closed_loop else ():
        yield row.digest, row.measured_ms, row.raw_ms


def _metrics(runs: Sequence[TrainedRun]) -> Iterable[Row]:
    for run in runs:
        for record in run.metrics:
            for name, value in record.items():
                if name not in {"stage", "step"}:
                    yield run.digest, record.get("stage"), record.get("step"), name, value


def _attributes(tables: Sequence[AttributeTable]) -> tuple[Sequence[str], Iterable[Row]]:
    columns = list(dict.fromkeys(name for table in tables for name in table.columns))
    rows = []
    for table in tables:
        for cells in table.rows:
            by_name = dict(zip(table.columns, (cell.raw for cell in cells), strict=True))
            rows.append((table.digest, *(by_name.get(name) for name in columns)))
    return ("digest", *columns), rows


def _checks(runs: Sequence[ExportedRun]) -> Iterable[Row]:
    for run in runs:
        for check in run.model.checks:
            yield run.digest, check.name, check.expected, check.found, check.passed


def _parity(runs: Sequence[ExportedRun]) -> Iterable[Row]:
    for run in runs:
        for row in run.model.parity.rows if run.model.parity else ():
            yield (
                run.digest, row.output, row.precision, row.reference, row.max_absolute, row.max_relative, row.psnr_db,
                row.cosine,
            )  # fmt: skip


def _operations(runs: Sequence[ExportedRun]) -> Iterable[Row]:
    for run in runs:
        for name, number in run.model.operations:
            yield run.digest, name, number


def _stages(stages: Sequence[StageState]) -> Iterable[Row]:
    for stage in stages:
        yield (
            stage.name, stage.state, stage.started_at, stage.finished_at, stage.seconds, stage.error,
            " ".join(stage.stale_inputs),
        )  # fmt: skip
