"""Where every number of the report comes from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.units import (
    count,
    latency,
    latency_with_interval,
    memory,
    memory_with_interval,
    ratio,
    significant,
)
from nas.report.facts import measured_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import CostEstimate
    from nas.core.evaluation import Evaluation
    from nas.report.figures import AgreementFigure
    from nas.report.run_files import ExportedRun, RunFiles, TrainedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one number of the page comes from."""

    number: str
    value: str
    origin: str
    where: str
    how: str
    file: str


def origins(files: RunFiles, agreements: Sequence[AgreementFigure]) -> tuple[Origin, ...]:
    """Return where every number of the page comes from, in the order of the page."""
    rows: list[Origin] = []
    if files.selected:
        rows += _cost_origins(files, files.selected)
    rows += _profile_origins(files)
    rows += [_agreement_origin(figure) for figure in agreements]
    rows += [row for run in files.trained for row in _training_origins(run)]
    rows += [row for run in files.exported for row in _export_origins(run)]
    return tuple(rows)


def _cost_origins(files: RunFiles, chosen: Evaluation) -> list[Origin]:
    cost = chosen.cost
    file = "search/front.json"
    rows = [
        Origin(
            number="latency of the chosen architecture",
            value=latency_with_interval(cost.latency_ms, cost.latency_interval_ms, cost.origin),
            origin=cost.origin,
            where=cost.device,
            how=f"{cost.predictor}; {cost.scenario}",
            file=file,
        ),
        Origin(
            number="peak memory of the chosen architecture",
            value=memory_with_interval(cost.peak_memory_mb, cost.memory_interval_mb, cost.origin),
            origin=cost.origin,
            where=cost.device,
            how=f"{cost.predictor}; {cost.scenario}",
            file=file,
        ),
        *(
            Origin(
                number=f"time of the {part.phase.replace('_', ' ')}",
                value=latency_with_interval(part.latency_ms, part.latency_interval_ms, part.origin),
                origin=part.origin,
                where=cost.device,
                how=part.source,
                file=file,
            )
            for part in cost.phases
        ),
        Origin(
            number="latency and memory per block",
            value=f"{len(cost.blocks)} blocks",
            origin=cost.origin,
            where=cost.device,
            how=cost.predictor,
            file=file,
        ),
        Origin(
            number="parameters",
            value=count(cost.parameters),
            origin="counted",
            where="description of the network",
            how="analytic, held equal to the built network by tests",
            file=file,
        ),
    ]
    if chosen.quality:
        rows.append(
            Origin(
                number="quality of the candidates",
                value=significant(chosen.quality.score),
                origin=chosen.quality.origin,
                where="training host",
                how=f"{chosen.quality.estimator}, {chosen.quality.fidelity}",
                file="search/evaluations.jsonl",
            )
        )
    loop = measured_row(files, chosen.architecture.digest)
    if loop and files.closed_loop:
        rows.append(
            Origin(
                number="measured latency of the chosen architecture",
                value=latency(loop.measured_ms),
                origin="measured",
                where=files.closed_loop.device,
                how=f"{_what_was_measured(chosen.cost)}, at calibration speed",
                file="closed_loop/closed_loop.json",
            )
        )
    return rows


def _what_was_measured(cost: CostEstimate) -> str:
    """Phases that were measured here can be run here, so whole generations were measured beside them."""
    if any(part.origin == "measured" for part in cost.phases):
        return "one whole generation, caption to clip"
    return "one denoiser call of the whole network, times the calls of a generation"


def _profile_origins(files: RunFiles) -> list[Origin]:
    groups = Counter((record.level, record.origin, record.device.name) for record in files.records)
    samples: Counter[tuple[str, str, str]] = Counter()
    for record in files.records:
        samples[record.level, record.origin, record.device.name] += len(record.steady_ms)
    return [
        Origin(
            number=f"{level} profiles",
            value=f"{number:,} records",
            origin=origin,
            where=device,
            how=f"{samples[level, origin, device]:,} samples after warm-up",
            file="profile/records.jsonl",
        )
        for (level, origin, device), number in sorted(groups.items())
    ]


def _agreement_origin(figure: AgreementFigure) -> Origin:
    return Origin(
        number=figure.title,
        value=f"median error {ratio(figure.median_error_ratio)}, coverage {ratio(figure.seen_coverage)}",
        origin="measured",
        where=figure.device,
        how=f"{len(figure.points)} networks predicted and measured",
        file=figure.source,
    )


def _training_origins(run: TrainedRun) -> list[Origin]:
    rows = []
    if run.metrics:
        rows.append(
            Origin(
                number="training curves",
                value=f"{len(run.metrics):,} records",
                origin="measured",
                where="training host",
                how=f"network {run.digest}" if run.digest else "training during the search",
                file=f"{run.folder}/metrics.jsonl",
            )
        )
    if run.rows:
        clips = sorted({row.num_clips for row in run.rows if row.num_clips})
        rows.append(
            Origin(
                number="attribute accuracies, flicker, jitter",
                value=f"{len(run.rows)} samplers",
                origin="measured",
                where="training host",
                how=f"analytic detector, {'/'.join(map(str, clips)) or 'unknown number of'} clips each",
                file=f"{run.folder}/evaluation.json",
            )
        )
    return rows


def _export_origins(run: ExportedRun) -> list[Origin]:
    return [
        Origin(
            number="package size, operations, checks",
            value=memory(run.model.package_bytes / 1e6),
            origin="measured",
            where="export host",
            how="read back from the saved package; not run on a device",
            file=f"{run.folder}/export.json",
        )
    ]
