"""Parts of an explanation in words, for the terminal and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.units import latency, memory, significant

if TYPE_CHECKING:
    from nas.core.explanation import BudgetStep, Estimate

_MOST_CHANGES = 3


def words(estimate: Estimate) -> str:
    """Return ``+0.012 (+0.004 to +0.02)``."""
    return f"{_signed(estimate.mean)} ({_signed(estimate.low)} to {_signed(estimate.high)})"


def step_words(step: BudgetStep) -> str:
    """Return a step as a sentence: ``+200 ms (+5%) buys +0.012 (+0.004 to +0.02) quality, by changing ...``."""
    start = f"{move_words(step)} "
    if not step.possible:
        return f"{start}leaves no network"
    if step.quality is None:
        return f"{start}cannot be compared: nothing keeps the present budget"
    by = f", by changing {change_words(step)}" if step.changes else f", {_unchanged(step)}"
    return f"{start}{'buys' if step.difference > 0 else 'takes'} {words(step.quality)} quality{by}"


def _unchanged(step: BudgetStep) -> str:
    moved = step.quality is not None and (step.quality.low != 0.0 or step.quality.high != 0.0)
    return "though the network expected to be best stays the same" if moved else "with the same network"


def move_words(step: BudgetStep) -> str:
    """Return how a step moves its limit: ``+200 ms (+5%)``."""
    amount = latency(step.difference) if step.limit == "latency_ms" else f"{memory(step.difference)} of memory"
    return f"{'+' if step.difference > 0 else ''}{amount} ({step.change_ratio:+.0%})"


def change_words(step: BudgetStep) -> str:
    """Return the first slots that a step changes, before and after, and how many more there are."""
    first = [f"{change.slot} from {change.before} to {change.after}" for change in step.changes[:_MOST_CHANGES]]
    left = len(step.changes) - len(first)
    return "; ".join([*first, *([f"{left} more slot{'s' if left > 1 else ''}"] if left else [])])


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{significant(value, 2)}"
