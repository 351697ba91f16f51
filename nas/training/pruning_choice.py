"""Which units of an image network to prune under limits: greedily as SnapFusion does, or exactly under additive scores.

The *loss rise* of a set of removed units is the rise of the distillation loss against the unpruned network
(``nas.training.importance``). The greedy choice removes, round by round, what raises the loss least for what it saves,
and measures every unit anew each round (METHODS 3b). The exact choice measures every unit once, takes rises as
additive, and solves the knapsack by integer programming; because rises are not additive, its loss is measured, and
exchanges of a removed for a kept unit are tried and measured (``exchange``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.errors import BudgetError
from nas.core.protocols import SilentProgress
from search_spaces.pruning import (
    CostTable,
    SourceUNet,
    Unit,
    full_layout,
    kept_depth,
    layout_cost,
    layout_without,
    may_remove,
    possible_depths,
    removable_units,
)

if TYPE_CHECKING:
    from nas.core.protocols import Progress

# Sums in another order differ by rounding: a limit that is met exactly is met.
_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit on the sum of a table: ``latency_ms`` or ``parameters``."""

    name: str
    table: CostTable
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRise:
    """Rise of the distillation loss over the unpruned network, with its standard error over held-out batches."""

    mean: float
    standard_error: float


Measure = Callable[[frozenset[str]], LossRise]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningProblem:
    """A source network and what the pruned one may cost.

    Raises:
        ValueError: There is no limit.
    """

    source: SourceUNet
    limits: tuple[Limit, ...]

    def __post_init__(self) -> None:
        if not self.limits:
            raise ValueError("pruning needs a limit on latency or on parameters")

    def excess(self, removed: Collection[str]) -> dict[str, float]:
        """By how much each broken limit is exceeded."""
        layout = layout_without(self.source, removed)
        over = {limit.name: layout_cost(self.source, layout, limit.table) - limit.most for limit in self.limits}
        most = {limit.name: limit.most for limit in self.limits}
        return {name: value for name, value in over.items() if value > _SLACK * abs(most[name])}

    def costs(self, removed: Collection[str]) -> dict[str, float]:
        """What is left, by the limits' names."""
        layout = layout_without(self.source, removed)
        return {limit.name: layout_cost(self.source, layout, limit.table) for limit in self.limits}

    def require_possible(self) -> None:
        """Check that some pruning is within the limits.

        Raises:
            BudgetError: None is; the nearest miss is named.
        """
        smallest = [self.smallest(depth) for depth in possible_depths(self.source)]
        if any(not self.excess(removed) for removed in smallest):
            return
        most = {limit.name: limit.most for limit in self.limits}
        costs = self.costs(min(smallest, key=lambda removed: sum(self.excess(removed).values())))
        parts = [f"{name} {value:.4g} (limit {most[name]:.4g})" for name, value in costs.items()]
        raise BudgetError(
            f"no pruning of {self.source.name} meets the limits; the smallest network has {', '.join(parts)}",
            hint="raise the limit, or prune a narrower network: one block a stage and all widths are kept",
        )

    def smallest(self, depth: int) -> frozenset[str]:
        """Everything gone that can go with ``depth`` levels kept."""
        removed = {f"level.{number}" for number in range(depth, len(self.source.channels))}
        while free := [unit for unit in may_remove(self.source, removed) if unit.kind != "level"]:
            removed.add(free[0].name)
        return frozenset(removed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Removed units, their measured rise, and the sum of the single rises (None where it was not asked for)."""

    method: str
    removed: frozenset[str]
    rise: LossRise
    added_rises: float | None = None
    rounds: int = 0


def score_units(source: SourceUNet, measure: Measure, *, progress: Progress | None = None) -> dict[str, LossRise]:
    """Measure every unit alone, in order of execution."""
    progress = progress or SilentProgress()
    units = removable_units(source)
    scores = {}
    for number, unit in enumerate(units):
        progress.update(number, len(units), f"importance of {unit.name}")
        scores[unit.name] = measure(frozenset({unit.name}))
    progress.update(len(units), len(units), "importance of every unit")
    return scores


def choose_greedily(
    problem: PruningProblem, measure: Measure, *, per_round: int = 1, progress: Progress | None = None
) -> Choice:
    """Remove what raises the loss least per what it saves until the limits hold.

    What a unit saves counts as a share of the excess, at most the whole of it, summed over the broken limits; with one
    limit this is the rise per millisecond of SnapFusion, but for the last removal, where more than enough is no gain.

    Args:
        problem: Network and limits.
        measure: Loss rise of a set of removed units.
        per_round: Units removed between two measurements; SnapFusion removes groups.
        progress: Told of every round.

    Raises:
        BudgetError: No pruning meets the limits, or none that removing one by one reaches.
    """
    problem.require_possible()
    progress = progress or SilentProgress()
    removed: frozenset[str] = frozenset()
    rise, rounds = measure(removed), 0
    first = sum(problem.excess(removed).values())
    while excess := problem.excess(removed):
        progress.update(round(100 * (1 - sum(excess.values()) / first)), 100, f"greedy choice, round {rounds + 1}")
        scored = []
        for unit in may_remove(problem.source, removed):
            saved = _saved_share(problem, removed, unit, excess)
            if saved > 0.0:
                after = measure(removed | {unit.name})
                scored.append((_price(after.mean - rise.mean, saved), unit.name))
        if not scored:
            left = ", ".join(f"{name} by {over:.4g}" for name, over in excess.items())
            raise BudgetError(f"greedy pruning ends with {left} over the limits", hint="use method exact")
        for _, name in sorted(scored)[:per_round]:
            if problem.excess(removed) and name in {unit.name for unit in may_remove(problem.source, removed)}:
                removed = removed | {name}
        rise, rounds = measure(removed), rounds + 1
    progress.update(100, 100, "greedy choice")
    return Choice(method="greedy", removed=removed, rise=rise, rounds=rounds)


def choose_exactly(problem: PruningProblem, scores: Mapping[str, LossRise], measure: Measure) -> Choice:
    """The set with the smallest sum of single rises within the limits, for each possible number of levels, measured.

    Solved by HiGHS through SciPy. A ResNet block removed takes its transformer with it, whose own rise then counts
    within the block's; a stage keeps a block.

    Raises:
        BudgetError: No pruning meets the limits.
    """
    problem.require_possible()
    found = [solved for depth in possible_depths(problem.source) if (solved := _solve(problem, scores, depth))]
    total, removed = min(found, key=lambda pair: (pair[0], sorted(pair[1])))
    return Choice(method="exact", removed=removed, rise=measure(removed), added_rises=total, rounds=1)


def exchange(
    problem: PruningProblem,
    choice: Choice,
    scores: Mapping[str, LossRise],
    measure: Measure,
    *,
    tries: int,
    progress: Progress | None = None,
) -> Choice:
    """Try pairs: put a removed unit back and remove a kept one, where the limits still hold; keep what measures better.

    Pairs are tried in the order of their additive promise, ``tries`` measurements in all. Levels stay as they are.
    """
    progress = progress or SilentProgress()
    removed, rise = choice.removed, choice.rise
    tried: set[frozenset[str]] = {removed}
    for number in range(tries):
        progress.update(number, tries, "exchanges")
        candidates = [other for other in _exchanged(problem, removed) if other not in tried]
        if not candidates:
            break
        best = min(candidates, key=lambda other: (added_rise(problem.source, scores, other), sorted(other)))
        tried.add(best)
        found = measure(best)
        if found.mean < rise.mean:
            removed, rise = best, found
    progress.update(tries, tries, "exchanges")
    return Choice(
        method=choice.method,
        removed=removed,
        rise=rise,
        added_rises=added_rise(problem.source, scores, removed),
        rounds=len(tried),
    )


def added_rise(source: SourceUNet, scores: Mapping[str, LossRise], removed: Collection[str]) -> float:
    """Sum of the single rises, a removed block's transformer and a dropped level's blocks counted once."""
    return sum(scores[name].mean for name in removed if not _covered(source, name, removed))


def write_choice(problem: PruningProblem, choice: Choice) -> str:
    """One line: method, number of units, what is left, and the rise."""
    left = ", ".join(f"{name} {value:.4g}" for name, value in problem.costs(choice.removed).items())
    rise = f"{choice.rise.mean:.4f} ± {choice.rise.standard_error:.4f}"
    added = "" if choice.added_rises is None else f", {choice.added_rises:.4f} by adding"
    return f"{choice.method}: {len(choice.removed)} units removed, {left}, loss rise {rise}{added}"


def _price(rise: float, saved: float) -> float:
    # A removal that lowers the loss is taken first, whatever it saves; dividing would prefer small ones among them.
    return rise / saved if rise > 0.0 else rise * saved


def _saved_share(problem: PruningProblem, removed: frozenset[str], unit: Unit, excess: Mapping[str, float]) -> float:
    before, after = problem.costs(removed), problem.costs(removed | {unit.name})
    return sum(min((before[name] - after[name]) / over, 1.0) for name, over in excess.items())


def _exchanged(problem: PruningProblem, removed: frozenset[str]) -> list[frozenset[str]]:
    """Sets one exchange away that hold the limits."""
    found = []
    for back in sorted(removed):
        if back.startswith("level."):
            continue
        rest = removed - {back}
        for unit in may_remove(problem.source, rest):
            other = rest | {unit.name}
            if unit.name != back and unit.kind != "level" and not problem.excess(other):
                found.append(other)
    return found


def _covered(source: SourceUNet, name: str, removed: Collection[str]) -> bool:
    """Whether a removed unit is part of another removed one."""
    if name.replace(".attentions.", ".resnets.") != name and name.replace(".attentions.", ".resnets.") in removed:
        return True
    depth = kept_depth(source, removed)
    stage = name.split(".")
    if stage[0] == "down_blocks":
        return int(stage[1]) >= depth
    return stage[0] == "up_blocks" and len(source.channels) - 1 - int(stage[1]) >= depth


def _solve(problem: PruningProblem, scores: Mapping[str, LossRise], depth: int) -> tuple[float, frozenset[str]] | None:
    """The best removal with ``depth`` levels kept and its added rise; None where no removal holds the limits."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    source = problem.source
    levels = frozenset(f"level.{number}" for number in range(depth, len(source.channels)))
    units = [
        unit for unit in removable_units(source) if unit.kind != "level" and not _covered(source, unit.name, levels)
    ]
    place = {unit.name: index for index, unit in enumerate(units)}
    gains = np.zeros(len(units))
    rows: list[np.ndarray] = []
    lows: list[float] = []
    highs: list[float] = []
    for unit in units:
        gains[place[unit.name]] = scores[unit.name].mean
        own = unit.name.replace(".resnets.", ".attentions.")
        if unit.kind == "block" and own in place:
            gains[place[unit.name]] -= scores[own].mean  # the transformer's variable is set too and adds its own
            row = np.zeros(len(units))
            row[place[own]], row[place[unit.name]] = 1.0, -1.0
            rows, lows, highs = [*rows, row], [*lows, 0.0], [*highs, np.inf]
    layout = full_layout(source, depth=depth)
    for limit in problem.limits:
        row = np.array([limit.table[depth][unit.name] for unit in units])
        least = layout_cost(source, layout, limit.table) - limit.most * (1.0 + _SLACK)
        rows, lows, highs = [*rows, row], [*lows, least], [*highs, np.inf]
    for stage, count in _stage_sizes(source, depth).items():
        row = np.array([float(unit.kind == "block" and unit.stage == stage) for unit in units])
        rows, lows, highs = [*rows, row], [*lows, 0.0], [*highs, count - 1.0]
    result = milp(
        gains,
        constraints=LinearConstraint(np.array(rows), np.array(lows), np.array(highs)),
        integrality=np.ones(len(units)),
        bounds=Bounds(0.0, 1.0),
        options={"mip_rel_gap": 0.0},
    )
    if result.x is None:
        return None
    removed = levels | {unit.name for unit in units if result.x[place[unit.name]] > 0.5}
    return added_rise(source, scores, removed), frozenset(removed)


def _stage_sizes(source: SourceUNet, depth: int) -> dict[str, int]:
    """Number of ResNet blocks of every stage of the source's ``VideoUNet`` that is left with ``depth`` levels."""
    last = len(source.channels) - 1
    sizes = {f"down{number}": source.blocks for number in range(depth)}
    sizes |= {f"up{last - number}": source.blocks + 1 for number in range(depth)}
    return {**sizes, "mid": 2}
