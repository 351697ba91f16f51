"""Ends a search before it begins when its budget cannot be kept, and says which limits bind and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.errors import BudgetError, Problem
from nas.search.exact.joint import JointCosts
from nas.search.exact.problem import AdditiveCosts
from nas.search.feasibility import Contradiction, smallest_violation
from nas.search.screening import UNITS, end_words, figure, figure_above

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget, Infeasibility
    from nas.search.exact.problem import SearchCosts
    from nas.search.feasibility import BindingLimit


def refuse_impossible(costs: SearchCosts, budget: Budget, *, space: str, faults: Sequence[Infeasibility] = ()) -> None:
    """Raise when no architecture keeps ``budget`` by the tables; other costs than tables are let pass.

    Args:
        costs: The tables; of several scenarios one has to do.
        budget: The limits.
        space: Name of the search space, for the message.
        faults: Why networks do not run, in case none does.

    Raises:
        BudgetError: Nothing keeps it; names the binding limits and the smallest violation.
    """
    parts = costs.parts if isinstance(costs, JointCosts) else (costs,)
    worst: Contradiction | None = None
    for part in parts:
        found = smallest_violation(part, budget) if isinstance(part, AdditiveCosts) else None
        if found is None:
            return
        if worst is None or not worst.limits or (found.limits and found.relaxation < worst.relaxation):
            worst = found
    if worst is not None:
        where = f"{space} in any of {len(parts)} scenarios" if len(parts) > 1 else space
        raise contradiction_error(worst, budget, space=where, faults=faults)


def contradiction_error(
    found: Contradiction, budget: Budget, *, space: str, faults: Sequence[Infeasibility] = ()
) -> BudgetError:
    """Return the error that names the binding limits of a budget that nothing keeps, and the smallest violation."""
    if not found.limits:
        reasons = [f"{fault.block} on {fault.compute_unit}: {fault.reason} ({fault.source})" for fault in faults[:1]]
        why = reasons[0] if reasons else "every option of a slot is refused"
        return BudgetError(
            f"no architecture of {space} runs on the device: {why}",
            hint="choose other compute units in scenario.compute_units or budget.runs_on, or a smaller scenario",
        )
    names = [item.name for item in found.limits]
    if found.alone:
        what = "; ".join(_alone(item, budget) for item in found.limits)
        message = f"no architecture of {space} meets the budget: {what}"
    else:
        which = f"{', '.join(names[:-1])} and {names[-1]}"
        message = (
            f"{which} cannot {'both' if len(names) == 2 else 'all'} hold: some architecture of {space} keeps each, "
            "none keeps them together"
        )
    message += f"; the smallest violation is {_over(found.relaxation)} every limit at once"
    problems = tuple(Problem(path=_path(item.name), message=_needs(item, budget)) for item in found.limits)
    return BudgetError(message, hint=_hint(found, budget), problems=problems)


def _alone(item: BindingLimit, budget: Budget) -> str:
    end = _end(item, budget)
    return (
        f"{item.name} allows {_amount(item, item.allowed)}, the least of any is {_needed(item, item.least)}"
        f"{f' ({end})' if end else ''}, {_over(item.least / item.allowed - 1.0)} it"
    )


def _needs(item: BindingLimit, budget: Budget) -> str:
    end = _end(item, budget)
    least = f"the least of any architecture is {_needed(item, item.least)}{f', {end}' if end else ''}"
    others = "" if item.with_others is None else f"; {_needed(item, item.with_others)} with all other limits kept"
    return f"allows {_amount(item, item.allowed)}; {least}{others}"


def _hint(found: Contradiction, budget: Budget) -> str:
    if found.alone:
        ways = [" and ".join(f"{item.name} {_needed(item, item.least)}" for item in found.limits)]
    else:
        ways = [
            f"{item.name} {_needed(item, item.with_others)} with the others kept"
            for item in found.limits
            if item.with_others is not None
        ]
        ways.append(", ".join(f"{item.name} {_needed(item, item.nearest)}" for item in found.limits))
    binding = "limit is" if len(found.limits) == 1 else "limits are"
    text = f"the binding {binding} {', '.join(item.name for item in found.limits)}: allow at least {', or '.join(ways)}"
    if not any(_end(item, budget) for item in found.limits):
        return text
    lower = "budget.coverage" if budget.probability is None else "budget.probability"
    return f"{text}; or lower {lower}, or calibrate with more measurements"


def _amount(item: BindingLimit, value: float) -> str:
    limit = item.name.partition(" on ")[0]
    return figure(value) if limit == UNITS[limit] else f"{figure(value)} {UNITS[limit]}"


def _needed(item: BindingLimit, value: float) -> str:
    limit = item.name.partition(" on ")[0]
    return figure_above(value) if limit == UNITS[limit] else f"{figure_above(value)} {UNITS[limit]}"


def _end(item: BindingLimit, budget: Budget) -> str:
    limit, _, device = item.name.partition(" on ")
    return end_words(limit, budget, device)


def _path(name: str) -> str:
    limit, _, device = name.partition(" on ")
    return f"devices.{device}.budget.{limit}" if device else f"budget.{limit}"


def _over(share: float) -> str:
    if share >= 9.0:
        return f"{1.0 + share:,.0f} times"
    return f"{share:.0%} over" if share >= 0.1 else f"{100 * share:.2g}% over"
