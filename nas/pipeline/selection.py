"""What selecting the front did to its intervals: replays the selection with what the calibration leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, cast

from latency_models.calibration import CalibrationReport
from latency_models.cost_table import CostTable
from latency_models.joint_table import JointCostTable
from latency_models.predictors.block_table import CalibratedPredictor
from latency_models.refits import draw_predictors, drawn_latencies_ms
from latency_models.selection import Correction, Select, bounded_selection, replay_selection
from nas.core.files import read_json
from nas.core.pareto import non_dominated
from nas.pipeline.calibrate import known_workloads, read_records
from nas.pipeline.context import Context
from nas.pipeline.costs import prior_device
from nas.pipeline.scenarios import context_at, stage_folder
from nas.runs.front import MemberInterval, SelectionEffect

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from latency_models.fleet import Fleet
    from nas.core.cost import Budget
    from nas.core.evaluation import Evaluation

_DRAWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The candidates of one scenario: the run in it, its prices, and their places in the pool with their options."""

    context: Context
    table: CostTable
    predictor: CalibratedPredictor
    rows: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


def selection_effect(
    context: Context,
    table: CostTable | JointCostTable,
    evaluations: Sequence[Evaluation],
    front: Sequence[Evaluation],
    budget: Budget,
) -> SelectionEffect | None:
    """Return the corrected intervals of the front; None where the predictor was not calibrated.

    Only complete candidates are replayed: the search knows no quality of the others. Of several scenarios, the
    residuals of all calibrations that priced a candidate count together.
    """
    pool = [one for one in evaluations if one.state == "complete" and one.at_highest_level]
    parts = _parts(context, table, pool)
    if not parts:
        return None
    reports = {stage_folder(part.context, "calibrate") / "report.json": part for part in parts}
    residuals = [
        log(row.measured_ms / row.predicted_ms)
        for path in reports
        for row in CalibrationReport.from_dict(read_json(path)).networks
    ]
    coverage = parts[0].predictor.ratios.coverage
    if len(pool) > len(front):
        correction = replay_selection(
            [evaluation.cost.latency_ms for evaluation in pool],
            _selector(pool, budget, parts[0].table.fleet),
            residuals,
            half_width=sum(len(part.rows) * log(part.predictor.ratios.latency[1]) for part in parts) / len(pool),
            coverage=coverage,
            rng=context.streams.numpy("selection-replays"),
            estimation_errors=_estimation_errors(parts, len(pool)),
        )
    else:
        correction = bounded_selection(residuals, selected=len(front), pool=len(pool), coverage=coverage)
    return _effect(correction, front)


def _parts(context: Context, table: CostTable | JointCostTable, pool: Sequence[Evaluation]) -> list[_Part]:
    """Return the candidates by scenario; none where a predictor was not calibrated."""
    options = [context.search_space.to_options(evaluation.architecture) for evaluation in pool]
    if isinstance(table, JointCostTable) and context.joint is not None:
        own_contexts = [context_at(context, point) for point in context.joint.points]
        tables = list(zip(own_contexts, table.tables, strict=True))
        places = [[row for row, chosen in enumerate(options) if chosen[-1] == index] for index in range(len(tables))]
        options = [chosen[:-1] for chosen in options]
    else:
        tables, places = [(context, cast("CostTable", table))], [list(range(len(pool)))]
    parts = []
    for (own_context, own), rows in zip(tables, places, strict=True):
        predictor = own.predictor
        if not isinstance(predictor, CalibratedPredictor):
            return []
        if rows:
            chosen = tuple(tuple(options[row]) for row in rows)
            parts.append(_Part(context=own_context, table=own, predictor=predictor, rows=tuple(rows), options=chosen))
    return parts


def _estimation_errors(parts: Sequence[_Part], count: int) -> NDArray[np.float64]:
    """Return the logarithm of what other profiles would have predicted over the prediction, for each draw."""
    import numpy as np

    errors = np.zeros((_DRAWS, count))
    drawn: dict[Path, tuple[CalibratedPredictor, ...]] = {}
    for part in parts:
        context, table = part.context, part.table
        folder = stage_folder(context, "profile")
        if folder not in drawn:
            drawn[folder] = _drawn(part, stream="selection-draws" if not drawn else f"selection-draws/{folder.name}")
        options = np.array(part.options)
        calls_ms = drawn_latencies_ms(drawn[folder], context.space, context.scenario, options)
        others = context.scenario.denoiser_calls * calls_ms + table.pipeline.latency_ms.value
        errors[:, list(part.rows)] = np.log(others / table.score(options).latency_ms)
    return errors


def _drawn(part: _Part, *, stream: str) -> tuple[CalibratedPredictor, ...]:
    context = part.context
    profiles, _ = read_records(context)
    return draw_predictors(
        part.predictor,
        profiles,
        known_workloads(profiles, context),
        context.scenario,
        prior_device(context),
        count=_DRAWS,
        rng=context.streams.numpy(stream),
    )


def _selector(pool: Sequence[Evaluation], budget: Budget, fleet: Fleet | None) -> Select:
    """Return what takes latencies of the pool to the indices of its front inside the budget.

    Only the run's own device is replayed: latencies on further ones are taken as predicted.
    """
    import numpy as np

    costs = [evaluation.cost for evaluation in pool]
    upper = np.array([cost.limit_end_ms(budget.probability) / cost.latency_ms for cost in costs])
    memory_mb = [cost.peak_memory_mb for cost in costs]
    worse = [-evaluation.quality.score if evaluation.quality else 0.0 for evaluation in pool]
    limit_ms = np.inf if budget.latency_ms is None else budget.latency_ms
    others_ms = np.array([[other.latency_ms for other in cost.devices] for cost in costs]).T

    def select(latency_ms: NDArray[np.float64]) -> NDArray[np.intp]:
        inside = np.flatnonzero(latency_ms * upper <= limit_ms)
        objective_ms = latency_ms if fleet is None else fleet.combined_ms(latency_ms, list(others_ms))
        points = [(float(objective_ms[index]), memory_mb[index], worse[index]) for index in inside]
        return inside[np.array(non_dominated(points), dtype=np.intp)]

    return select


def _effect(correction: Correction, front: Sequence[Evaluation]) -> SelectionEffect:
    intervals = []
    for evaluation in front:
        cost = evaluation.cost
        corrected = correction.interval(cost.latency_ms, cost.latency_interval_ms)
        intervals.append(MemberInterval(digest=evaluation.architecture.digest, latency_interval_ms=corrected))
    return SelectionEffect(
        coverage=correction.coverage,
        low_shift_ratio=correction.low_shift_ratio,
        high_shift_ratio=correction.high_shift_ratio,
        widening_ratio=correction.widening_ratio,
        seen_before=correction.seen_before,
        seen_after=correction.seen_after,
        seen_random=correction.seen_random,
        replays=correction.replays,
        pool=correction.pool,
        selected=correction.selected,
        members=tuple(intervals),
    )
