"""The numbers each figure of the report draws, worked out from the run's files; nothing is drawn here."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING, Any

from nas.core.scenario import SCENARIO_SLOT
from nas.core.units import count, ratio, significant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nas.core.architecture import Architecture
    from nas.core.evaluation import Evaluation
    from nas.report.run_files import ClosedLoop, TrainedRun
    from nas.runs.front import FrontFile

# Enough to show any shape on a screen; the CSV keeps every step.
MAX_CURVE_POINTS = 400
# Order of the training stages of the contract; unknown stages follow in order of appearance.
TRAINING_STAGES = ("supernet", "teacher", "distillation", "trajectory", "adversarial")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate as a point: cost of one generation against quality (higher is better)."""

    digest: str
    state: str
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    peak_memory_mb: float
    parameters: int
    quality: float | None
    quality_error: float | None
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoFigure:
    """Front members by latency, the other complete candidates, and those screened out before quality was paid for.

    ``steps`` are the members that no faster one equals in quality; the others owe their place to lower memory.
    """

    front: tuple[Candidate, ...]
    steps: tuple[Candidate, ...]
    others: tuple[Candidate, ...]
    screened: tuple[Candidate, ...]
    selected: str | None
    quality_name: str
    budget_latency_ms: float | None
    budget_memory_mb: float | None
    origin: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One network predicted and measured, in the figure's unit."""

    label: str
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def error_ratio(self) -> float:
        """Absolute error of the prediction over the measured value."""
        return abs(self.predicted - self.measured) / self.measured

    @property
    def covered(self) -> bool:
        """Whether the measured value lies in the interval."""
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementFigure:
    """Predicted against measured; the three summary figures are worked out here from the points themselves.

    ``stated_coverage`` is what the intervals promise, ``seen_coverage`` the share of points that they hold.
    """

    title: str
    unit: str
    device: str
    source: str
    points: tuple[Compared, ...]
    median_error_ratio: float
    worst_error_ratio: float
    seen_coverage: float
    stated_coverage: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One logged value over the steps of a training stage, thinned to at most ``MAX_CURVE_POINTS`` by averaging."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveFigure:
    """Curves of one training stage; ``window`` neighbouring records are averaged into one point."""

    digest: str
    stage: str
    curves: tuple[Curve, ...]
    num_records: int
    window: int


def summarise(architecture: Architecture) -> str:
    """Return the temporal layers in one line: ``down0.0 conv1d (kernel 3), mid.0 attention1d (heads 2)``."""
    parts = [f"{slot} {setting}" for slot, setting in temporal_layers(architecture) if setting != "none"]
    return ", ".join(parts) if parts else "no temporal layer"


def temporal_layers(architecture: Architecture) -> tuple[tuple[str, str], ...]:
    """Return each slot with its setting in words, in name order; the choices are ``<slot>.<choice>``.

    Choices of the scenario are none of a layer.
    """
    slots: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in architecture.choices:
        slot, _, choice = name.rpartition(".")
        if slot == SCENARIO_SLOT:
            continue
        slots[slot.removesuffix(".temporal") or name][choice] = value
    return tuple((slot, _setting(choices)) for slot, choices in sorted(slots.items()))


def pareto_figure(front: FrontFile | None, evaluations: Sequence[Evaluation]) -> ParetoFigure:
    """Sort the search's candidates into front, other complete ones and screened ones.

    Raises:
        ValueError: There is neither a front nor an evaluation to draw.
    """
    members = front.members if front else ()
    known = {item.architecture.digest for item in members}
    rest = [item for item in evaluations if item.architecture.digest not in known]
    first = next(iter([*members, *evaluations]), None)
    if first is None:
        raise ValueError("a Pareto figure needs at least one evaluation")
    points = tuple(sorted(map(_candidate, members), key=lambda point: point.latency_ms))
    return ParetoFigure(
        front=points,
        steps=_steps(points),
        others=tuple(_candidate(item) for item in rest if item.state == "complete" and item.at_highest_level),
        screened=tuple(_candidate(item) for item in rest if item.state == "screened"),
        selected=front.selected if front else None,
        quality_name=_quality_name(front, first),
        budget_latency_ms=front.budget.latency_ms if front else None,
        budget_memory_mb=front.budget.peak_memory_mb if front else None,
        origin=first.cost.origin,
        device=first.cost.device,
    )


def closed_loop_figures(loop: ClosedLoop) -> tuple[AgreementFigure, ...]:
    """Return latency, and memory where it was measured, of the front's own networks."""
    source = "closed_loop/closed_loop.json"
    latencies = [
        Compared(
            label=row.digest, measured=row.measured_ms, predicted=row.predicted_ms, low=row.low_ms, high=row.high_ms
        )
        for row in loop.rows
    ]
    memories = [
        Compared(
            label=row.digest,
            measured=row.measured_memory_mb,
            predicted=row.predicted_memory_mb,
            low=row.memory_low_mb if row.memory_low_mb is not None else row.predicted_memory_mb,
            high=row.memory_high_mb if row.memory_high_mb is not None else row.predicted_memory_mb,
        )
        for row in loop.rows
        if row.measured_memory_mb and row.predicted_memory_mb is not None
    ]
    sets = (("Closed loop: latency", "ms", latencies), ("Closed loop: peak memory", "MB", memories))
    found = [
        agreement(title, unit, points, device=loop.device, source=source, stated_coverage=loop.stated_coverage)
        for title, unit, points in sets
        if points
    ]
    note = " ".join(part for part in (_scaling_note(loop), _selection_note(loop)) if part)
    return tuple(replace(figure, note=note) if note and figure.unit == "ms" else figure for figure in found)


def _selection_note(loop: ClosedLoop) -> str:
    """Say what intervals that allow for the selection cover; empty where there are none."""
    if loop.corrected_coverage is None or loop.coverage is None:
        return ""
    return (
        "The search selected these networks by the very predictions shown, whose errors helped some of them: the drawn "
        f"intervals hold {ratio(loop.coverage)} of the measured times, those that allow for the selection "
        f"{ratio(loop.corrected_coverage)}."
    )


def _scaling_note(loop: ClosedLoop) -> str:
    """Say that measured times were scaled, and what the error is without; empty where they were not."""
    raw = [(row.predicted_ms, row.raw_ms) for row in loop.rows if row.raw_ms]
    if loop.slowdown_ratio is None or not raw:
        return ""
    error = median(abs(predicted - measured) / measured for predicted, measured in raw)
    return (
        "Measured times of the closed loop are scaled to the machine's speed during calibration by a network that was "
        f"timed both times: the machine was {significant(loop.slowdown_ratio)} times as slow. "
        f"Against the unscaled times the median error is {ratio(error)}."
    )


def agreement(
    title: str,
    unit: str,
    points: Sequence[Compared],
    *,
    device: str,
    source: str,
    stated_coverage: float | None,
    held_out_coverage: float | None = None,
) -> AgreementFigure:
    """Summarise predicted against measured from the points themselves.

    Args:
        title: What was compared, where.
        unit: ms or MB.
        points: The networks.
        device: Where they were measured.
        source: File of the run that holds them.
        stated_coverage: Share of truths the intervals are stated to hold.
        held_out_coverage: Share seen, where it is known from intervals made without each point; otherwise it is
            counted from the points.

    Raises:
        ValueError: ``points`` is empty or a measured value is not above 0.
    """
    if not points or any(point.measured <= 0 for point in points):
        raise ValueError(f"{title}: needs points whose measured value is above 0")
    errors = [point.error_ratio for point in points]
    return AgreementFigure(
        title=title,
        unit=unit,
        device=device,
        source=source,
        points=tuple(points),
        median_error_ratio=median(errors),
        worst_error_ratio=max(errors),
        seen_coverage=sum(point.covered for point in points) / len(points)
        if held_out_coverage is None
        else held_out_coverage,
        stated_coverage=stated_coverage,
    )


def curve_figures(run: TrainedRun) -> tuple[CurveFigure, ...]:
    """Return one figure per training stage, the loss first."""
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    for record in run.metrics:
        by_stage.setdefault(str(record.get("stage", "training")), []).append(record)
    ranks = {stage: rank for rank, stage in enumerate(TRAINING_STAGES)}
    ordered = sorted(by_stage, key=lambda stage: ranks.get(stage, len(ranks)))
    return tuple(_curve_figure(run.digest, stage, by_stage[stage]) for stage in ordered)


def _curve_figure(digest: str, stage: str, records: Sequence[Mapping[str, Any]]) -> CurveFigure:
    window = -(-len(records) // MAX_CURVE_POINTS)
    # Bookkeeping grows in a straight line and tells nothing about training.
    skipped = {"stage", "step", "seconds", "elapsed_s", "time"}
    names = [name for name in dict.fromkeys(key for record in records for key in record) if name not in skipped]
    names.sort(key=lambda name: name != "loss")
    curves = [_curve(name, records, window) for name in names]
    return CurveFigure(
        digest=digest,
        stage=stage,
        curves=tuple(curve for curve in curves if curve.values),
        num_records=len(records),
        window=window,
    )


def _curve(name: str, records: Sequence[Mapping[str, Any]], window: int) -> Curve:
    pairs = [
        (float(record.get("step", index)), number)
        for index, record in enumerate(records)
        if (number := _number(record.get(name))) is not None
    ]
    chunks = [pairs[start : start + window] for start in range(0, len(pairs), window)]
    return Curve(
        name=name,
        steps=tuple(chunk[-1][0] for chunk in chunks),
        values=tuple(sum(value for _, value in chunk) / len(chunk) for chunk in chunks),
    )


def _steps(points: Sequence[Candidate]) -> tuple[Candidate, ...]:
    steps: list[Candidate] = []
    for point in points:
        best = steps[-1].quality if steps else None
        if point.quality is not None and (best is None or point.quality > best):
            steps.append(point)
    return tuple(steps)


def _candidate(evaluation: Evaluation) -> Candidate:
    cost, quality = evaluation.cost, evaluation.quality
    return Candidate(
        digest=evaluation.architecture.digest,
        state=evaluation.state,
        latency_ms=cost.latency_ms,
        latency_low_ms=cost.latency_interval_ms.low,
        latency_high_ms=cost.latency_interval_ms.high,
        peak_memory_mb=cost.peak_memory_mb,
        parameters=cost.parameters,
        quality=quality.score if quality else None,
        quality_error=quality.standard_error if quality else None,
        summary=f"{count(cost.parameters)} parameters; {summarise(evaluation.architecture)}",
    )


def _quality_name(front: FrontFile | None, first: Evaluation) -> str:
    if front and front.quality_estimator:
        return front.quality_estimator
    return first.quality.estimator if first.quality else "quality"


def _setting(choices: Mapping[str, Any]) -> str:
    details = [f"{name} {_value(value)}" for name, value in sorted(choices.items()) if name != "kind"]
    kind = str(choices.get("kind", ""))
    if not details:
        return kind
    return f"{kind} ({', '.join(details)})" if kind else ", ".join(details)


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return None
    return float(value)
