"""Dominance, Pareto fronts and hypervolume; every objective is minimised here, quality enters negated."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING, Any

from nas.core.errors import ConfigError, InputError
from nas.core.evaluation import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nas.core.cost import Budget

Point = tuple[float, ...]

REFERENCE_MARGIN_RATIO = 0.1


def objectives(evaluation: Evaluation) -> Point:
    """Return ``(latency_ms, peak_memory_mb, -quality.score)``: the one place where quality changes its sign.

    Raises:
        ValueError: The evaluation has no quality.
    """
    if evaluation.quality is None:
        raise ValueError(f"evaluation {evaluation.number} ({evaluation.state}) has no quality and so no objectives")
    return evaluation.cost.objective_ms, evaluation.cost.peak_memory_mb, -evaluation.quality.score


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether ``first`` is nowhere larger than ``second`` and somewhere smaller."""
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def non_dominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other dominates, ascending; equal points are all kept.

    Points have two or three coordinates. A sweep in lexicographic order with a staircase over the last two
    coordinates takes ``n log n`` comparisons.
    """
    kept: list[int] = []
    stairs_y: list[float] = []  # ascending, with stairs_z descending: the non-dominated (y, z) seen so far
    stairs_z: list[float] = []
    order = sorted(range(len(points)), key=lambda index: tuple(points[index]))
    previous: tuple[float, ...] | None = None
    previous_kept = False
    for index in order:
        point = tuple(points[index])
        if point == previous:
            if previous_kept:
                kept.append(index)
            continue
        y, z = _last_two(point)
        step = bisect_right(stairs_y, y) - 1
        previous, previous_kept = point, step < 0 or stairs_z[step] > z
        if previous_kept:
            kept.append(index)
            _add_stair(stairs_y, stairs_z, y, z)
    return sorted(kept)


def _last_two(point: Point) -> tuple[float, float]:
    if len(point) == 3:
        return point[1], point[2]
    if len(point) == 2:
        return 0.0, point[1]
    raise ValueError(f"points need 2 or 3 coordinates, got {len(point)}")


def _add_stair(stairs_y: list[float], stairs_z: list[float], y: float, z: float) -> None:
    start = bisect_left(stairs_y, y)
    end = start
    while end < len(stairs_y) and stairs_z[end] >= z:
        end += 1
    stairs_y[start:end] = [y]
    stairs_z[start:end] = [z]


def hypervolume(points: Iterable[Sequence[float]], reference: Sequence[float]) -> float:
    """Return the exact area or volume that ``points`` dominate up to ``reference``, all coordinates minimised.

    Points that do not lie strictly below the reference in every coordinate add nothing. In three dimensions the
    points are swept along the third coordinate and the area of the first two is multiplied by the step.

    Args:
        points: Two or three coordinates each, any order, dominated ones allowed.
        reference: The worst corner, as many coordinates.

    Raises:
        ValueError: Another number of coordinates than 2 or 3, or points and reference differ in it.
    """
    corner = tuple(float(value) for value in reference)
    if len(corner) not in (2, 3):
        raise ValueError(f"hypervolume is exact for 2 or 3 objectives, got {len(corner)}")
    inside = {tuple(point) for point in points}
    if any(len(point) != len(corner) for point in inside):
        raise ValueError(f"every point needs {len(corner)} coordinates, as the reference has")
    inside = {point for point in inside if all(a < b for a, b in zip(point, corner, strict=True))}
    if len(corner) == 2:
        return _area(sorted(inside), corner)
    levels = sorted({point[2] for point in inside})
    volume = 0.0
    for level, upper in pairwise([*levels, corner[2]]):
        slab = sorted((x, y) for x, y, z in inside if z <= level)
        volume += _area(slab, corner) * (upper - level)
    return volume


def _area(ascending: Sequence[Point], corner: Point) -> float:
    area = 0.0
    lowest = corner[1]
    for x, y in ascending:
        if y < lowest:
            area += (corner[0] - x) * (lowest - y)
            lowest = y
    return area


def reference_point(evaluations: Iterable[Evaluation], budget: Budget) -> Point:
    """Return the corner that hypervolumes of one search are measured from, as ``objectives`` orders it.

    Latency and memory: the budget's limit, or 1.1 times the worst complete evaluation where there is no limit.
    Quality: the worst complete score, lowered by a tenth of the range of scores (by 0.1 where there is no range).

    Raises:
        ValueError: No evaluation is complete at the highest level of quality.
    """
    points = [
        objectives(evaluation)
        for evaluation in evaluations
        if evaluation.state == "complete" and evaluation.at_highest_level
    ]
    if not points:
        raise ValueError("a reference point needs at least one complete evaluation")
    worst = [max(column) for column in zip(*points, strict=True)]
    spread = worst[2] - min(point[2] for point in points)
    margin = REFERENCE_MARGIN_RATIO * (spread or 1.0)
    limit_ms, limit_mb = budget.objective_limits
    latency_ms = worst[0] * (1 + REFERENCE_MARGIN_RATIO) if limit_ms is None else limit_ms
    memory_mb = worst[1] * (1 + REFERENCE_MARGIN_RATIO) if limit_mb is None else limit_mb
    return latency_ms, memory_mb, worst[2] + margin


@dataclass(frozen=True, slots=True)
class ParetoFront:
    """Complete, feasible evaluations that no other dominates, sorted by latency; build it with ``of``."""

    members: tuple[Evaluation, ...]

    @classmethod
    def of(cls, evaluations: Iterable[Evaluation]) -> ParetoFront:
        """Return the front; screened, failed, infeasible ones and those of lower levels of quality are left out."""
        candidates = [evaluation for evaluation in evaluations if evaluation.feasible and evaluation.at_highest_level]
        kept = non_dominated([objectives(evaluation) for evaluation in candidates])
        return cls(tuple(sorted((candidates[index] for index in kept), key=_by_latency)))

    def __len__(self) -> int:
        return len(self.members)

    def points(self) -> list[Point]:
        """Return the members' objectives, in their order."""
        return [objectives(member) for member in self.members]

    def hypervolume(self, reference: Sequence[float]) -> float:
        """Return the volume dominated up to ``reference`` (latency ms, peak memory MB, negated quality)."""
        return hypervolume(self.points(), reference)

    def knee(self) -> Evaluation:
        """Return the member that gains most over a straight trade between the extremes.

        Objectives are scaled to 0-1 over the front. The extremes are the fastest member, the best, and, when neither
        has the lowest memory, the member that has. The hyperplane through them (a line when they are two) is what
        trading one for the other in proportion would reach; the knee is the member furthest from it towards the
        ideal corner, of equals the fastest. This is the maximum-distance form of normal boundary intersection (Das
        1999, Structural Optimization 18, 107-115), with the affine hull where extremes coincide.

        Raises:
            InputError: The front is empty.
        """
        self._require_members()
        scaled = _scaled(self.points())
        extremes: list[Point] = []
        for axis in (0, 2, 1):  # latency, quality, memory
            if not any(point[axis] == 0.0 for point in extremes):
                extremes.append(min(scaled, key=_best_in(axis)))
        origin, basis = extremes[0], _orthonormal([_minus(point, extremes[0]) for point in extremes[1:]])
        gains = [-sum(_residual(_minus(point, origin), basis)) for point in scaled]
        best = max(range(len(gains)), key=lambda index: (round(gains[index], 12), -index))
        return self.members[best]

    def fastest(self) -> Evaluation:
        """Return the member of lowest latency; of equals, the one with the better quality."""
        self._require_members()
        return min(self.members, key=lambda member: (objectives(member)[0], objectives(member)[2]))

    def best(self) -> Evaluation:
        """Return the member of highest quality; of equals, the fastest."""
        self._require_members()
        return min(self.members, key=lambda member: (objectives(member)[2], objectives(member)[0]))

    def select(self, rule: str) -> Evaluation:
        """Return the member that ``rule`` names: ``knee``, ``fastest``, ``best``, or a digest (its start is enough).

        Raises:
            ConfigError: The rule is neither, or the digest fits no member or several.
            InputError: The front is empty.
        """
        self._require_members()
        rules = {"knee": self.knee, "fastest": self.fastest, "best": self.best}
        if rule in rules:
            return rules[rule]()
        fitting = [member for member in self.members if rule and member.architecture.digest.startswith(rule)]
        if len(fitting) == 1:
            return fitting[0]
        digests = ", ".join(member.architecture.digest for member in self.members[:8])
        found = "fits several members" if fitting else "is no rule and no member's digest"
        raise ConfigError(
            f"selection {rule!r} {found}; allowed: knee, fastest, best or a digest of the {len(self)} members",
            hint=f"digests by rising latency: {digests}{', …' if len(self) > 8 else ''}",
        )

    def within(self, budget: Budget) -> ParetoFront:
        """Return the members whose intervals' upper ends keep ``budget``."""
        return ParetoFront(tuple(member for member in self.members if not budget.violations(member.cost)))

    def nearest(
        self, *, latency_ms: float | None = None, peak_memory_mb: float | None = None, score: float | None = None
    ) -> Evaluation:
        """Return the member closest to the given figures, each scaled by its range over the front.

        Raises:
            InputError: The front is empty.
            ValueError: No figure is given.
        """
        self._require_members()
        wanted = (latency_ms, peak_memory_mb, None if score is None else -score)
        if all(value is None for value in wanted):
            raise ValueError("nearest needs at least one of latency_ms, peak_memory_mb and score")
        points = self.points()
        spans = [(max(column) - min(column)) or 1.0 for column in zip(*points, strict=True)]

        def distance(point: Point) -> float:
            return sum(
                ((value - goal) / span) ** 2
                for value, goal, span in zip(point, wanted, spans, strict=True)
                if goal is not None
            )

        return self.members[min(range(len(points)), key=lambda index: distance(points[index]))]

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: digest, objectives with their intervals' ends, parameters, choices."""
        import pandas as pd

        return pd.DataFrame([_row(member) for member in self.members])

    def _require_members(self) -> None:
        if not self.members:
            raise InputError("the Pareto front is empty", hint="no evaluation is complete and inside the budget")


def _by_latency(evaluation: Evaluation) -> tuple[Point, int]:
    return objectives(evaluation), evaluation.number


def _best_in(axis: int) -> Callable[[Point], tuple[float, float]]:
    return lambda point: (point[axis], sum(point))


def _row(member: Evaluation) -> dict[str, Any]:
    assert member.quality is not None  # members are complete
    cost = member.cost
    return {
        "number": member.number,
        "digest": member.architecture.digest,
        "latency_ms": cost.latency_ms,
        "latency_low_ms": cost.latency_interval_ms.low,
        "latency_high_ms": cost.latency_interval_ms.high,
        "peak_memory_mb": cost.peak_memory_mb,
        "memory_high_mb": cost.memory_interval_mb.high,
        "parameters": cost.parameters,
        "quality": member.quality.score,
        "origin": cost.origin,
        **dict(member.architecture.choices),
    }


def _scaled(points: Sequence[Point]) -> list[Point]:
    lows = [min(column) for column in zip(*points, strict=True)]
    spans = [(max(column) - min(column)) or 1.0 for column in zip(*points, strict=True)]
    return [
        tuple((value - low) / span for value, low, span in zip(point, lows, spans, strict=True)) for point in points
    ]


def _minus(first: Point, second: Point) -> Point:
    return tuple(a - b for a, b in zip(first, second, strict=True))


def _residual(vector: Point, basis: Sequence[Point]) -> Point:
    for direction in basis:
        length = sum(a * b for a, b in zip(vector, direction, strict=True))
        vector = tuple(a - length * b for a, b in zip(vector, direction, strict=True))
    return vector


def _orthonormal(vectors: Sequence[Point]) -> list[Point]:
    basis: list[Point] = []
    for vector in vectors:
        rest = _residual(vector, basis)
        length = sqrt(sum(value * value for value in rest))
        if length > 1e-9:  # coordinates are scaled to 0-1, so this is rounding, not a direction
            basis.append(tuple(value / length for value in rest))
    return basis
