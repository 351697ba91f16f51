"""Budget tests on candidates, and what to tell a user when nothing passes them."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from nas.core.errors import BudgetError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.core.cost import Budget, Violation
    from nas.core.evaluation import Evaluation

UNITS = {
    "latency_ms": "ms",
    "peak_memory_mb": "MB",
    "parameters": "parameters",
    "package_mb": "MB",
    "placement": "blocks",
}


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
        Problem(path=limit_path(violation), message=_describe(violation, budget))
        for violation in sorted(nearest.violations, key=_excess, reverse=True)
    )
    binding = max(nearest.violations, key=_excess)
    return BudgetError(
        f"none of {len(drawn)} candidates meets the budget; the nearest miss, {nearest.architecture.digest}, "
        f"breaks {'; '.join(problem.message for problem in problems)}",
        hint=f"the binding limit is {limit_name(binding)}: {_remedy(binding, budget)}",
        problems=problems,
    )


def limit_name(violation: Violation) -> str:
    """Return the limit in words, with the device where it is a further one."""
    return f"{violation.limit} on {violation.device}" if violation.device else violation.limit


def limit_path(violation: Violation) -> str:
    """Return the key of the YAML that a violation is of."""
    return f"devices.{violation.device}.budget.{violation.limit}" if violation.device else f"budget.{violation.limit}"


def end_words(limit: str, budget: Budget, device: str = "") -> str:
    """Say which end of what is known is held against a limit; empty where the figure is exact."""
    if limit not in ("latency_ms", "peak_memory_mb"):
        return ""
    probabilities = {item.device: item.probability for item in budget.devices}
    probability = probabilities[device] if device else budget.probability
    if probability is not None:
        return f"the end that all limits keep with a probability of {probability:g}"
    return f"the upper end of its {budget.coverage:.0%} interval"


def _remedy(violation: Violation, budget: Budget) -> str:
    if violation.limit == "placement":
        return "choose other compute units in scenario.compute_units or budget.runs_on, or a smaller scenario"
    text = f"allow at least {figure_above(violation.value)} {UNITS[violation.limit]}"
    if not end_words(violation.limit, budget, violation.device):
        return text
    lower = "budget.coverage" if budget.probability is None else "budget.probability"
    return f"{text}, or lower {lower}, or calibrate with more measurements to narrow the intervals"


def _describe(violation: Violation, budget: Budget) -> str:
    if violation.limit == "placement":
        name = limit_name(violation)
        return f"{name}: {violation.value:.0f} blocks run on no allowed compute unit, first {violation.reason}"
    unit, end = UNITS[violation.limit], end_words(violation.limit, budget, violation.device)
    of_what = f", {end}" if end else ""
    over = f", {_excess(violation):.0%} over" if violation.allowed > 0 else ""
    return (
        f"{limit_name(violation)}: {figure(violation.value)} {unit}{of_what}, "
        f"against {figure(violation.allowed)} {unit} allowed{over}"
    )


def figure(value: float) -> str:
    """Return a number of at least three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def figure_above(value: float) -> str:
    """Return a number of at least three digits, rounded up: as a limit it lets ``value`` pass."""
    if value <= 0.0:
        return figure(value)
    exact = Decimal(f"{value:.10g}")  # what is beyond is rounding of sums
    step = Decimal(1) if value >= 1000 else Decimal(1).scaleb(exact.adjusted() - 2)
    return figure(float(exact.quantize(step, rounding=ROUND_CEILING)))


def _excess(violation: Violation) -> float:
    return violation.excess_ratio if violation.allowed > 0 else violation.value
