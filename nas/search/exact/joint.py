"""Costs of architectures in several scenarios: one table for each scenario, and the last slot says which one holds."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.search.exact import dominance
from nas.search.exact.front import ExactFront, merged
from nas.search.exact.problem import AdditiveCosts
from nas.search.exact.tables import CostArrays, SlotSum, within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nas.core.cost import Budget
    from nas.search.exact.tables import BoolArray, IntArray


# On `tiny` with 24 scenarios, fronts of 250 labels each take a third of the time of 2000 and lose 0.4 % of the
# hypervolume; those of 60 lose 5 %.
_LEAST_LABELS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class JointCosts:
    """Cost of every architecture of a joint space; meets ``SearchCosts``.

    Options are (N, L + 1): those of the architecture, and the scenario's last.

    Attributes:
        parts: Costs of the architectures in each scenario, all over the same L slots.
    """

    parts: tuple[AdditiveCosts, ...]

    def __post_init__(self) -> None:
        sizes = {part.sizes for part in self.parts}
        if len(sizes) != 1:
            raise ValueError(f"joint costs need parts over the same options, got {len(sizes)} different ones")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of options of each slot, the number of scenarios last."""
        return (*self.parts[0].sizes, len(self.parts))

    @cached_property
    def hint_ms(self) -> SlotSum:
        """What each option typically adds to latency: means over the scenarios, and each scenario's own mean."""
        hints = [part.hint_ms for part in self.parts]
        rows = [np.mean([hint.slots[slot] for hint in hints], axis=0) for slot in range(len(hints[0].slots))]
        own = np.array([hint.base + sum(float(row.mean()) for row in hint.slots) for hint in hints])
        return SlotSum(slots=(*rows, own - sum(float(row.mean()) for row in rows)))

    def score(self, options: IntArray) -> CostArrays:
        """Return the costs of architectures given as option indices (N, L + 1)."""
        scenario = options[:, -1]
        chosen = [np.flatnonzero(scenario == index) for index in range(len(self.parts))]
        scored = [part.score(options[rows, :-1]) for part, rows in zip(self.parts, chosen, strict=True)]
        order = np.argsort(np.concatenate(chosen), kind="stable")
        return _map_arrays(scored, lambda arrays: np.concatenate(arrays)[order])

    def feasible(self, options: IntArray, budget: Budget) -> BoolArray:
        """Return which architectures (N, L + 1) keep ``budget`` with their upper ends, (N,)."""
        return within(self.score(options), budget)

    def at_upper_ends(self) -> JointCosts:
        """Return the same costs with predictions at their upper ends."""
        return JointCosts(parts=tuple(part.at_upper_ends() for part in self.parts))

    def front(self, quality: SlotSum, budget: Budget, *, max_labels: int | None = None) -> ExactFront:
        """Return the front of highest ``quality`` and lowest latency and peak memory over all scenarios.

        Each scenario is solved on its own, but for those that another beats in every figure of every option; the
        fronts together, filtered once more, are the front. Its certificate states the largest loss of any scenario.
        The scenarios share ``max_labels``, but none gets fewer than 200 of them.
        """
        own = [_in_scenario(quality, index) for index in range(len(self.parts))]
        kept = _not_beaten(self.parts, own)
        labels = None if max_labels is None else min(max_labels, max(_LEAST_LABELS, max_labels // len(kept)))
        fronts = [self.parts[index].front(own[index], budget, max_labels=labels) for index in kept]
        options = np.concatenate([_with_last(front.options, index) for front, index in zip(fronts, kept, strict=True)])
        costs = _map_arrays([front.costs for front in fronts], np.concatenate)
        scores = np.concatenate([front.quality for front in fronts])
        best = dominance.keep([costs.latency_ms, costs.peak_memory_mb, -scores])
        return ExactFront(
            options=options[best],
            costs=_map_arrays([costs], lambda arrays: arrays[0][best]),
            quality=scores[best],
            certificate=merged([front.certificate for front in fronts]),
        )


def _in_scenario(quality: SlotSum, scenario: int) -> SlotSum:
    """Return what ``quality`` is with the last slot at ``scenario``: its own term and its pairs become constants."""
    *rows, own = quality.slots
    pairs = quality.pairs
    if pairs is not None:
        rows[-1] = rows[-1] + pairs[-1][:, scenario]
    return SlotSum(
        slots=tuple(rows), pairs=None if pairs is None else pairs[:-1], base=quality.base + float(own[scenario])
    )


def _not_beaten(parts: Sequence[AdditiveCosts], quality: Sequence[SlotSum]) -> list[int]:
    """Return the scenarios that no other one beats or equals in every option; of equals the first."""
    kept: list[int] = []
    for index, part in enumerate(parts):
        others = (other for other in range(len(parts)) if other != index)
        beaten = any(
            _no_more(parts[other], part)
            and _no_more(quality[index], quality[other])
            and not (other > index and _no_more(part, parts[other]) and _no_more(quality[other], quality[index]))
            for other in others
        )
        if not beaten:
            kept.append(index)
    return kept


def _no_more(one: Any, other: Any) -> bool:
    """Return whether every number of ``one`` is at most its counterpart of ``other``; what has none must be equal."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.dtype == np.bool_:  # which options run: ``one`` must run them all
            return bool((one >= other).all())
        return bool((one <= other).all())
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_no_more, one, other))
    if is_dataclass(one) and type(one) is type(other):
        return all(
            getattr(one, field.name) == getattr(other, field.name)
            if field.name == "limit"
            else _no_more(getattr(one, field.name), getattr(other, field.name))
            for field in fields(one)
        )
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one <= other
    return bool(one == other)


def _with_last(options: IntArray, scenario: int) -> IntArray:
    return np.concatenate([options, np.full((len(options), 1), scenario, dtype=np.int64)], axis=1)


def _map_arrays(costs: Sequence[CostArrays], function: Callable[[list[Any]], Any]) -> CostArrays:
    """Return the costs whose every array is ``function`` of the same array of all ``costs``; absent ones stay so."""
    mapped: dict[str, Any] = {}
    for field in fields(CostArrays):
        arrays = [getattr(item, field.name) for item in costs]
        mapped[field.name] = None if arrays[0] is None else function(arrays)
    return CostArrays(**mapped)
