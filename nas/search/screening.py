"""Budget tests on candidates, and what to tell a user when nothing passes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.errors import BudgetError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.core.cost import Budget, Violation
    from nas.core.evaluation import Evaluation

_UNITS = {"latency_ms": "ms", "peak_memory_mb": "MB", "parameters": "parameters", "placement": "blocks"}


def total_excess(violations: Iterable[Violation]) -> float:
    """Return the sum of the relative excesses over all broken limits; 0 means feasible."""
    return sum(_excess(violation) for violation in violations)


def nearest_miss(evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """Return the evaluation whose worst broken limit is exceeded least; ``None`` when there is none.

    Of equals, the smaller total excess, then the earlier one.
    """
    missed = [evaluation for evaluation in evaluations if evaluation.violations]
    return min(
        missed,
        key=lambda missed: (max(map(_excess, missed.violations)), total_excess(missed.violations), missed.number),
        default=None,
    )


def budget_error(evaluations: Iterable[Evaluation], budget: Budget) -> BudgetError:
    """Return the error that says which candidate came nearest and which limit binds."""
    drawn = list(evaluations)
    nearest = nearest_miss(drawn)
    if nearest is None:
        return BudgetError("nothing was drawn from the search space", hint="the engine proposed no candidate")
    problems = tuple(
        Problem(path=f"budget.{violation.limit}", message=_describe(violation, budget))
        for violation in sorted(nearest.violations, key=_excess, reverse=True)
    )
    binding = max(nearest.violations, key=_excess)
    if binding.limit == "placement":
        remedy = "choose other compute units in scenario.compute_units, or a smaller scenario"
    else:
        remedy = (
            f"allow at least {_figure(binding.value)} {_UNITS[binding.limit]}, or lower budget.coverage, or calibrate "
            "with more measurements to narrow the intervals"
        )
    return BudgetError(
        f"none of {len(drawn)} candidates meets the budget; the nearest miss, {nearest.architecture.digest}, "
        f"breaks {'; '.join(problem.message for problem in problems)}",
        hint=f"the binding limit is {binding.limit}: {remedy}",
        problems=problems,
    )


def _describe(violation: Violation, budget: Budget) -> str:
    if violation.limit == "placement":
        return f"placement: {violation.value:.0f} blocks run on no allowed compute unit, first {violation.reason}"
    unit = _UNITS[violation.limit]
    of_what = "" if violation.limit == "parameters" else f", the upper end of its {budget.coverage:.0%} interval"
    over = f", {_excess(violation):.0%} over" if violation.allowed > 0 else ""
    return (
        f"{violation.limit}: {_figure(violation.value)} {unit}{of_what}, "
        f"against {_figure(violation.allowed)} {unit} allowed{over}"
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _excess(violation: Violation) -> float:
    return violation.excess_ratio if violation.allowed > 0 else violation.value
