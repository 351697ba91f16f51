"""What selecting the front did to its intervals: replays the selection with what the calibration leaves open."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from latency_models.calibration import CalibrationReport
from latency_models.predictors.block_table import CalibratedPredictor
from latency_models.refits import draw_predictors, drawn_latencies_ms
from latency_models.selection import Correction, Select, bounded_selection, replay_selection
from nas.core.files import read_json
from nas.core.pareto import non_dominated
from nas.pipeline.calibrate import known_workloads, read_records
from nas.pipeline.costs import prior_device
from nas.runs.front import MemberInterval, SelectionEffect

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from latency_models.cost_table import CostTable
    from nas.core.cost import Budget
    from nas.core.evaluation import Evaluation
    from nas.pipeline.context import Context

_DRAWS = 16


def selection_effect(
    context: Context, table: CostTable, evaluations: Sequence[Evaluation], front: Sequence[Evaluation], budget: Budget
) -> SelectionEffect | None:
    """Return the corrected intervals of the front; None where the predictor was not calibrated.

    Only complete candidates are replayed: the search knows no quality of the others.
    """
    predictor = table.predictor
    if not isinstance(predictor, CalibratedPredictor):
        return None
    pool = [one for one in evaluations if one.state == "complete" and one.at_highest_level]
    report = CalibrationReport.from_dict(read_json(context.path("calibrate", "report.json")))
    residuals = [log(row.measured_ms / row.predicted_ms) for row in report.networks]
    coverage = predictor.ratios.coverage
    if len(pool) > len(front):
        correction = replay_selection(
            [evaluation.cost.latency_ms for evaluation in pool],
            _selector(pool, budget),
            residuals,
            half_width=log(predictor.ratios.latency[1]),
            coverage=coverage,
            rng=context.streams.numpy("selection-replays"),
            estimation_errors=_estimation_errors(context, table, predictor, pool),
        )
    else:
        correction = bounded_selection(residuals, selected=len(front), pool=len(pool), coverage=coverage)
    return _effect(correction, front)


def _estimation_errors(
    context: Context,
    table: CostTable,
    predictor: CalibratedPredictor,
    pool: Sequence[Evaluation],
) -> NDArray[np.float64]:
    """Return the logarithm of what other profiles would have predicted over the prediction, for each draw."""
    import numpy as np

    profiles, _ = read_records(context)
    options = np.array([context.space.to_options(evaluation.architecture) for evaluation in pool])
    centre = table.score(options).latency_ms
    drawn = draw_predictors(
        predictor,
        profiles,
        known_workloads(profiles, context),
        context.scenario,
        prior_device(context),
        count=_DRAWS,
        rng=context.streams.numpy("selection-draws"),
    )
    calls_ms = drawn_latencies_ms(drawn, context.space, context.scenario, options)
    others = context.scenario.denoiser_calls * calls_ms + table.pipeline.latency_ms.value
    errors: NDArray[np.float64] = np.log(others / centre)
    return errors


def _selector(pool: Sequence[Evaluation], budget: Budget) -> Select:
    """Return what takes latencies of the pool to the indices of its front inside the budget."""
    import numpy as np

    costs = [evaluation.cost for evaluation in pool]
    upper = np.array([cost.latency_interval_ms.high / cost.latency_ms for cost in costs])
    memory_mb = [cost.peak_memory_mb for cost in costs]
    worse = [-evaluation.quality.score if evaluation.quality else 0.0 for evaluation in pool]
    limit_ms = np.inf if budget.latency_ms is None else budget.latency_ms

    def select(latency_ms: NDArray[np.float64]) -> NDArray[np.intp]:
        inside = np.flatnonzero(latency_ms * upper <= limit_ms)
        points = [(float(latency_ms[index]), memory_mb[index], worse[index]) for index in inside]
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
