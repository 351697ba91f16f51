"""What the report says in words and tables: headline, attributes, export and stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from typing import TYPE_CHECKING, Any

from nas.core.scenario import scenario_point
from nas.core.units import (
    ABSENT,
    count,
    duration,
    interval,
    latency,
    memory,
    ratio,
    significant,
)
from nas.report.figures import temporal_layers
from nas.report.limits import Fact, limit_facts
from nas.report.run_files import StageState

if TYPE_CHECKING:
    from nas.core.artefacts import ParityReport
    from nas.core.evaluation import Evaluation
    from nas.core.scenario import ScenarioPoint
    from nas.report.run_files import ClosedLoopRow, ExportedRun, RunFiles, TrainedRun

# Metrics that are shares of clips judged right; the rest are amounts, lower is better except for diversity.
ACCURACIES = ("colour", "shape", "direction", "motion", "mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The chosen architecture and its main figures."""

    digest: str
    space: str
    selection: str
    device: str
    scenario: str
    facts: tuple[Fact, ...]
    layers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A table cell; ``share`` in 0-1 draws a bar behind it, ``raw`` goes to the CSV."""

    text: str
    share: float | None = None
    raw: float | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeTable:
    """Every judged sampler of one training run."""

    digest: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """When a stage ran, as shares (0-1) of the time from the first start to the last end.

    ``shown`` is False where a stage has no readable start and time.
    """

    stage: StageState
    shown: bool
    start_ratio: float
    length_ratio: float


def headline(files: RunFiles) -> Headline | None:
    """Return the chosen architecture with its figures, or None before the search has chosen one."""
    chosen = files.selected
    if chosen is None or files.front is None:
        return None
    return Headline(
        digest=chosen.architecture.digest,
        space=chosen.architecture.space,
        selection=files.front.selection or "chosen",
        device=chosen.cost.device,
        scenario=scenario_words(files.config, scenario_point(chosen.architecture)) or chosen.cost.scenario,
        facts=tuple(_headline_facts(files, chosen)),
        layers=temporal_layers(chosen.architecture),
    )


def _headline_facts(files: RunFiles, chosen: Evaluation) -> list[Fact]:
    cost = chosen.cost
    loop = measured_row(files, chosen.architecture.digest)
    device = files.closed_loop.device if files.closed_loop else ""
    facts = [
        Fact(
            label="Latency",
            value=latency(cost.latency_ms),
            detail=f"one generation on {cost.device}; {_interval_words(cost.latency_interval_ms, cost.latency_ms)}",
            origin=cost.origin,
        ),
        Fact(
            label="Latency, measured",
            value=latency(loop.measured_ms) if loop else ABSENT,
            detail=_measured_detail(loop, device) if loop else "the closed loop has not measured this network",
            origin="measured" if loop else "",
            tone="" if loop is None else ("good" if loop.low_ms <= loop.measured_ms <= loop.high_ms else "bad"),
        ),
        Fact(
            label="Peak memory",
            value=memory(cost.peak_memory_mb),
            detail=_memory_detail(cost.memory_interval_mb, cost.peak_memory_mb, loop),
            origin=cost.origin,
        ),
        Fact(label="Parameters", value=count(cost.parameters), detail="of the denoiser", origin="counted"),
    ]
    facts += _selection_facts(files, chosen)
    facts += limit_facts(files.front, chosen) if files.front else []
    if chosen.quality:
        error = chosen.quality.standard_error
        spread = f" ± {significant(error, 2)} (standard error)" if error is not None else ""
        facts.append(
            Fact(
                label="Quality",
                value=significant(chosen.quality.score),
                detail=f"higher is better; {chosen.quality.estimator}, {chosen.quality.fidelity}{spread}",
                origin=chosen.quality.origin,
            )
        )
    if not cost.in_domain:
        text = cost.domain_note or "the predictor had to extrapolate"
        facts.append(Fact(label="Outside calibration", value="yes", detail=text, tone="bad"))
    return facts


def _selection_facts(files: RunFiles, chosen: Evaluation) -> list[Fact]:
    """Return the interval that allows for the choice, beside what the replays of the search saw of both."""
    effect = files.front.selection_effect if files.front else None
    corrected = effect.interval(chosen.architecture.digest) if effect else None
    if effect is None or corrected is None:
        return []
    detail = f"before, {_interval_words(chosen.cost.latency_interval_ms, chosen.cost.latency_ms)}; "
    if effect.seen_before is None or effect.seen_after is None:
        detail += f"a bound for {effect.selected:.0f} selected of {effect.pool}"
    else:
        detail += (
            f"in {effect.replays} replays of the search, of {effect.selected:.0f} selected from {effect.pool}, "
            f"{ratio(effect.seen_before)} were inside before and {ratio(effect.seen_after)} after"
        )
    text = _interval_words(corrected, chosen.cost.latency_ms)
    return [Fact(label="Latency, allowing for the selection", value=text, detail=detail, origin=chosen.cost.origin)]


def measured_row(files: RunFiles, digest: str) -> ClosedLoopRow | None:
    """Return the closed-loop measurement of one architecture."""
    rows = files.closed_loop.rows if files.closed_loop else ()
    return next((row for row in rows if row.digest == digest), None)


def scenario_words(config: Mapping[str, Any], point: ScenarioPoint | None = None) -> str:
    """Return the scenario of the configuration in words, empty where it has none; what ``point`` chose is in it."""
    scenario = config.get("scenario")
    if not isinstance(scenario, Mapping):
        return ""
    scenario = {**scenario, **_chosen(point)} if point else scenario
    parts = []
    if {"frames", "height", "width"} <= set(scenario):
        parts.append(f"{scenario['frames']} latent frames at {scenario['width']} x {scenario['height']} px")
    if "denoising_steps" in scenario:
        guided = ", with guidance" if scenario.get("guidance") else ", no guidance"
        parts.append(f"{scenario['denoising_steps']} denoising steps{guided}")
    if "precision" in scenario:
        parts.append(str(scenario["precision"]))
    if point and point.weight_bits:
        parts.append(f"{point.weight_bits}-bit weights")
    return "; ".join(parts)


def _chosen(point: ScenarioPoint) -> dict[str, int]:
    height, width = point.size or (None, None)
    given = {"denoising_steps": point.denoising_steps, "frames": point.frames, "height": height, "width": width}
    return {name: value for name, value in given.items() if value is not None}


def attribute_table(run: TrainedRun) -> AttributeTable | None:
    """Return one row per judged sampler, or None where none was judged."""
    if not run.rows:
        return None
    names = list(dict.fromkeys(name for row in run.rows for name in row.metrics))
    columns = ("sampler", *names, "stage", "steps", "guidance", "calls", "clips")
    rows = []
    for row in run.rows:
        metrics = [_metric(name, row.metrics.get(name)) for name in names]
        sampling = (None, None, None) if row.stage == "real" else (row.steps, row.guidance, row.calls)
        rest = [_plain(value) for value in (row.stage, *sampling, row.num_clips)]
        rows.append((_plain(row.name), *metrics, *rest))
    return AttributeTable(digest=run.digest, columns=columns, rows=tuple(rows), note=_attribute_note(run))


def _attribute_note(run: TrainedRun) -> str:
    counts = [row.num_clips for row in run.rows if row.num_clips]
    text = "Accuracies are shares of clips that the analytic detector reads as their caption says; higher is better. "
    text += "Flicker, jitter and distances from real clips (Frechet, sliced Wasserstein) are lower-is-better amounts; "
    text += "diversity is best near that of real clips. Judged on held-out captions."
    if counts:
        error = ratio(sqrt(0.25 / min(counts)))
        text += f" With {min(counts)} clips, one standard error of an accuracy is at most {error}."
    return text


def export_facts(run: ExportedRun) -> tuple[Fact, ...]:
    """Return what was exported and how the checks ended."""
    model = run.model
    passed = sum(check.passed for check in model.checks)
    operations = sum(number for _, number in model.operations)
    return (
        Fact(
            label="Package",
            value=memory(model.package_bytes / 1e6),
            detail=", ".join(model.packages),
            origin="measured",
        ),
        Fact(
            label="Format",
            value=f"{model.precision}, stored weights {model.weights}",
            detail=f"Core ML ML Program, {model.minimum_os} or newer",
        ),
        Fact(
            label="Parameters",
            value=count(model.parameters),
            detail=f"{count(operations)} operations",
            origin="counted",
        ),
        Fact(
            label="Checks after reloading",
            value=f"{passed} of {len(model.checks)}",
            detail="passed; the package has not been run on a device",
            origin="measured",
            tone="good" if passed == len(model.checks) else "bad",
        ),
        *_parity_facts(model.parity),
        Fact(
            label="Export took",
            value=duration(model.seconds),
            detail=f"peak memory of the process {memory(model.peak_rss_mb)}",
            origin="measured",
        ),
    )


def _parity_facts(report: ParityReport | None) -> tuple[Fact, ...]:
    """Return how far the package's outputs are from the network's, and the memory that the program asks for."""
    if report is None:
        return ()
    worst = {
        name: max(row.max_relative for row in report.rows if row.precision == name)
        for name in sorted({row.precision for row in report.rows})
    }
    return (
        Fact(
            label="Largest relative difference from the network",
            value=", ".join(f"{error:.1e} in {name}" for name, error in worst.items()),
            detail=f"both computed by PyTorch on the export host; {report.inputs}",
            origin="measured",
        ),
        Fact(
            label="Activation peak of the program",
            value=memory(report.activation_peak_bytes / 1e6),
            detail=f"by liveness, beside {memory(report.decompressed_bytes / 1e6)} of weights",
            origin="counted",
        ),
    )


def timeline(stages: Sequence[StageState]) -> tuple[Span, ...]:
    """Return every stage with its place in time; stages without a readable start have length 0."""
    starts = [_epoch_s(stage.started_at) for stage in stages]
    lengths = [stage.seconds or 0.0 for stage in stages]
    known = [(start, start + length) for start, length in zip(starts, lengths, strict=True) if start is not None]
    first = min((start for start, _ in known), default=0.0)
    total = max((end for _, end in known), default=0.0) - first or 1.0
    return tuple(
        Span(
            stage=stage,
            shown=start is not None and length > 0,
            start_ratio=0.0 if start is None else (start - first) / total,
            length_ratio=0.0 if start is None else length / total,
        )
        for stage, start, length in zip(stages, starts, lengths, strict=True)
    )


def _epoch_s(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def _interval_words(range_: Any, value: float) -> str:
    scale = 1000.0 if abs(value) >= 1000 else 1.0
    return f"{interval(range_, scale)} interval"


def _memory_detail(range_: Any, value: float, loop: ClosedLoopRow | None) -> str:
    text = _interval_words(range_, value)
    if loop and loop.measured_memory_mb is not None:
        text += f"; measured {memory(loop.measured_memory_mb)}"
    return text


def _measured_detail(loop: ClosedLoopRow, device: str) -> str:
    error = loop.predicted_ms / loop.measured_ms - 1
    inside = "inside" if loop.low_ms <= loop.measured_ms <= loop.high_ms else "outside"
    direction = "above" if error >= 0 else "below"
    unscaled = f" (unscaled {latency(loop.raw_ms)})" if loop.raw_ms and loop.raw_ms != loop.measured_ms else ""
    return f"on {device}{unscaled}; the prediction is {ratio(abs(error))} {direction}, the truth {inside} the interval"


def _plain(value: float | str | None) -> Cell:
    if value is None:
        return Cell(text=ABSENT)
    return Cell(text=value if isinstance(value, str) else f"{value:g}", raw=value)


def _metric(name: str, value: float | None) -> Cell:
    if value is None:
        return Cell(text=ABSENT)
    share = value if name in ACCURACIES and 0.0 <= value <= 1.0 else None
    # Hundredths: a few hundred clips tell no more.
    return Cell(text=f"{value:.2f}" if share is not None else significant(value), share=share, raw=value)
