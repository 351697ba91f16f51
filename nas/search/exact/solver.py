"""The complete Pareto front of an additive problem by label-setting dynamic programming.

For every distinct activation level the options above it are set aside, and a sweep over the slots extends partial
architectures (labels) by all options: labels that cannot keep a limit even with the cheapest rest are dropped, then
those that another label with the same last option dominates (any last option will do where no pairs follow). What a
label is compared in: latency, quality, and, where they vary, weights, parameters, the latency's upper end and further
figures with limits. A limit-only figure counts no further than it can still matter: labels whose limit cannot be broken
any more are equal in it. The fronts of all levels together, filtered once more, are the front.

When labels explode they are coarsened (``nas.search.exact.coarsening``), to a number of labels or to a loss allowed
beforehand; what is lost is summed over the slots as it happens and stated in the certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact import dominance
from nas.search.exact.coarsening import Coarsening
from nas.search.exact.columns import LATENCY_OF, cases, extremes
from nas.search.exact.front import Certificate, ExactFront
from nas.search.exact.sweep import Sweep
from nas.search.exact.tables import within

if TYPE_CHECKING:
    from nas.core.cost import Budget
    from nas.search.exact.columns import Case
    from nas.search.exact.problem import AdditiveProblem


# Ranges of the objectives are taken from a front of so many labels before the tolerances are set.
_SKETCH_LABELS = 500
_MOST_ATTEMPTS = 6


def solve(
    problem: AdditiveProblem,
    budget: Budget,
    *,
    max_labels: int | None = None,
    epsilon_ratio: float | None = None,
    parameters_objective: bool = False,
) -> ExactFront:
    """Return the Pareto front of highest quality, lowest latency and lowest peak memory inside ``budget``.

    Limits hold against the upper ends of latency and memory, against parameters and against the costs' own
    requirements; the front is empty when nothing keeps them.

    Args:
        problem: The tables.
        budget: Limits; those left out do not bind.
        max_labels: Labels kept after a slot at one activation level; more are coarsened. No limit when left out.
        epsilon_ratio: Most that is to be lost in any objective, as a share of the front's range in it, and of the room
            under any limit in a sweep; a few attempts are made, and the certificate says what was lost. Nothing is
            when left out. With ``max_labels`` too, that comes first.
        parameters_objective: Whether fewer parameters are a fourth objective.

    Raises:
        ValueError: ``max_labels`` is below 1, ``epsilon_ratio`` not above 0, or a limit of the budget is not a number.
    """
    if max_labels is not None and max_labels < 1:
        raise ValueError(f"max_labels must be at least 1, got {max_labels}")
    if epsilon_ratio is not None and not 0 < epsilon_ratio < 1:
        raise ValueError(f"epsilon_ratio must lie above 0 and below 1, got {epsilon_ratio}")
    for name in ("latency_ms", "peak_memory_mb", "parameters"):
        limit = getattr(budget, name)
        if limit is not None and not isfinite(limit):
            raise ValueError(f"budget.{name} must be finite, got {limit}")
    if epsilon_ratio is None:
        return _solve(problem, budget, _Effort(max_labels=max_labels), parameters_objective=parameters_objective)
    front = _solve(problem, budget, _Effort(max_labels=_SKETCH_LABELS), parameters_objective=parameters_objective)
    ratio = epsilon_ratio
    for _ in range(_MOST_ATTEMPTS):
        if front.loss_ratio() <= epsilon_ratio or not len(front):
            return front
        effort = _Effort(max_labels=max_labels, losses=_ranges(front, ratio), limits_ratio=ratio)
        front = _solve(problem, budget, effort, parameters_objective=parameters_objective)
        ratio *= 0.7
    return front


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effort:
    """What a solution may lose: labels beyond a number, columns by name, and a share of the room under each limit."""

    max_labels: int | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    limits_ratio: float = 0.0

    def coarsening(self, case: Case) -> Coarsening:
        """Return the coarsening of one case."""
        if not self.losses:
            return Coarsening(max_labels=self.max_labels)
        tolerances = {}
        for column in case.columns:
            if column.objective:
                tolerances[column.name] = self.losses.get("latency" if column.is_latency else column.name, 0.0)
            elif column.limit is not None:
                room = column.limit - extremes(column.table, case.allowed)[0]
                tolerances[column.name] = max(0.0, self.limits_ratio * room)
        for column in case.columns:
            if column.follows is not None:
                name, factor = column.follows
                tolerances[name] = min(tolerances[name], tolerances[column.name] / factor)
        return Coarsening(max_labels=self.max_labels, tolerances=tolerances)


def _ranges(front: ExactFront, ratio: float) -> dict[str, float]:
    """Return shares of the front's ranges by column; that of memory goes to weights and activations in equal parts."""
    latency, memory, quality, *parameters = (ratio * np.ptp(front.points(), axis=0)).tolist()
    shares = {"latency": latency, "weights": memory / 2, "activation": memory / 2, "quality": quality}
    return shares | dict(zip(["parameters"], parameters, strict=False))


def _solve(problem: AdditiveProblem, budget: Budget, effort: _Effort, *, parameters_objective: bool) -> ExactFront:
    costs = problem.costs
    losses: dict[str, float] = {}
    most_labels, num_cases = 0, 0
    found = [np.zeros((0, len(costs.sizes)), dtype=np.int64)]
    tolerance_mb = effort.losses.get("activation", 0.0)
    for case in cases(problem, budget, parameters_objective=parameters_objective, memory_tolerance_mb=tolerance_mb):
        coarsening = effort.coarsening(case)
        sweep = Sweep(case, coarsening)
        found.append(sweep.run())
        num_cases += 1
        most_labels = max(most_labels, sweep.most_labels)
        own = coarsening.losses
        for name, followed, factor in [(column.name, *column.follows) for column in case.columns if column.follows]:
            own[name] = factor * own.get(followed, 0.0)
        own["weights"] = own.get("weights", 0.0) + case.activation_loss_mb
        for name, loss in own.items():
            losses[name] = max(losses.get(name, 0.0), loss)
    options = np.concatenate(found)
    options = options[within(costs.score(options), budget)]
    front = ExactFront(
        options=options,
        costs=costs.score(options),
        quality=problem.quality.total(options),
        certificate=_certificate(losses, most_labels, num_cases),
        parameters_objective=parameters_objective,
    )
    kept = dominance.keep(list(front.points().T))
    return replace(front, options=options[kept], costs=costs.score(options[kept]), quality=front.quality[kept])


def _certificate(losses: Mapping[str, float], labels: int, levels: int) -> Certificate:
    own = {"quality", "weights", "latency_high", "parameters"}
    latencies = {name: loss for name, loss in losses.items() if name.startswith(LATENCY_OF)}
    others = [(name, loss) for name, loss in losses.items() if name not in own and name not in latencies and loss]
    return Certificate(
        quality_loss=losses.get("quality", 0.0),
        latency_loss_ms=max(latencies.values(), default=0.0),
        memory_loss_mb=losses.get("weights", 0.0),
        latency_high_loss_ms=losses.get("latency_high", 0.0),
        parameters_loss=losses.get("parameters", 0.0),
        requirement_losses=tuple(sorted(others)),
        labels=labels,
        levels=levels,
    )
