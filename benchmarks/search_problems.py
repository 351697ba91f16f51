"""Search problems with a known exact front: what is judged, what is known of costs, and how a search is scored.

Synthetic problems have 20 slots with 9 options (1.2e19 architectures). Latency is a table plus a residual between
neighbouring slots (a tenth of its spread), peak memory a maximum over slots, quality a sum over slots, with
interactions between neighbours and noise or without. Limits on latency and memory leave 2 to 3 % of random
architectures. What an option adds to quality is a random share of its latency ("related") or has nothing to do with
it ("unrelated").

Shapes: N architectures, L slots.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nas.core.cost import Budget
from nas.core.pareto import hypervolume
from nas.search.exact import AdditiveCosts, AdditiveProblem, SlotSum, solve

if TYPE_CHECKING:
    from collections.abc import Sequence

    Row = tuple[int, ...]

SLOTS, OPTIONS = 20, 9
RESIDUAL_RATIO = 0.10
LATENCY_QUANTILE, MEMORY_QUANTILE = 0.05, 0.4


class Problem(Protocol):
    """What an engine may ask and what a run is scored by; every objective but quality is to be small."""

    name: str
    seed: int
    sizes: tuple[int, ...]
    budget: Budget
    reference: tuple[float, ...]  # objectives as ``points`` orders them
    corner: tuple[float, ...]  # the same corner for ``objectives``
    quality_corner: float  # and for quality
    volume: float  # hypervolume of the exact front
    costs: Any  # the costs our engines see

    def objectives(self, options: np.ndarray) -> np.ndarray:
        """Return the known objectives (N, C) of architectures (N, L)."""
        ...

    def excess(self, options: np.ndarray) -> np.ndarray:
        """Return by how much each limit is passed, relative to it, (N, limits); nowhere positive when feasible."""
        ...

    def judged(self, row: Row) -> float:
        """Return what a training says of the quality; the same every time."""
        ...

    def points(self, options: np.ndarray) -> np.ndarray:
        """Return the true figures of what is feasible in ``options``, all to be minimised."""
        ...

    def nearest(self, row: Row) -> Row:
        """Return what is judged in place of ``row`` when there is no such architecture."""
        ...


def share(problem: Problem, rows: Sequence[Row]) -> float:
    """Return the hypervolume of the feasible ``rows`` by true figures, as a share of the exact front's."""
    options = np.array(rows, dtype=np.int64).reshape(len(rows), len(problem.sizes))
    return hypervolume(map(tuple, problem.points(options).tolist()), problem.reference) / problem.volume


def fingerprint(problem: Problem) -> str:
    """Return a short digest of what makes runs comparable: sizes, limits, reference and volume to nine digits.

    A problem whose volume grows with what is judged has ``settings`` in place of it.
    """
    figures: list[float | None] = [problem.budget.latency_ms, problem.budget.peak_memory_mb]
    settings = getattr(problem, "settings", None)
    if settings is None:
        figures = [*problem.reference, problem.volume, *figures]
    text = f"{problem.sizes} {[None if value is None else f'{value:.9g}' for value in figures]}{settings or ''}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class SyntheticProblem:
    """Tables of one seed, the budget, and the exact front with its hypervolume.

    Attributes:
        noise: Standard deviation of what a training says.
        share_inside: Share of random architectures that keep the budget.
    """

    name: str
    seed: int
    costs: AdditiveCosts
    quality: SlotSum
    noise: float
    budget: Budget
    share_inside: float
    front: np.ndarray
    volume: float = 1.0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of options of each slot."""
        return self.costs.sizes

    @property
    def reference(self) -> tuple[float, float, float]:
        """Limits, and the quality of the empty architecture; memory last, so that hypervolume has few slabs."""
        return float(self.budget.latency_ms or 0), -self.quality.base, float(self.budget.peak_memory_mb or 0)

    @property
    def corner(self) -> tuple[float, float]:
        """The limits."""
        return self.reference[0], self.reference[2]

    @property
    def quality_corner(self) -> float:
        """Quality of the empty architecture."""
        return self.quality.base

    def objectives(self, options: np.ndarray) -> np.ndarray:
        """Return latency and peak memory."""
        costs = self.costs.score(options)
        return np.stack([costs.latency_ms, costs.peak_memory_mb], axis=1)

    def excess(self, options: np.ndarray) -> np.ndarray:
        """Return the excess over both limits."""
        return self.objectives(options) / np.array(self.corner) - 1.0

    def judged(self, row: Row) -> float:
        """Return the true quality plus the noise of this architecture."""
        key = int.from_bytes(bytes(row), "big")
        generator = np.random.default_rng([self.seed, key & (2**63 - 1), key >> 63])
        return float(self.quality.total(np.array([row]))[0] + self.noise * generator.normal())

    def points(self, options: np.ndarray) -> np.ndarray:
        """Return latency, negated quality and memory of the feasible ones."""
        inside = options[self.costs.feasible(options, self.budget)]
        costs = self.objectives(inside)
        return np.stack([costs[:, 0], -self.quality.total(inside), costs[:, 1]], axis=1)

    def nearest(self, row: Row) -> Row:
        """Return ``row``: every combination exists."""
        return row


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of synthetic problem; ratios are of the standard deviation over random architectures."""

    interaction_ratio: float
    noise_ratio: float
    related: bool


KINDS = {
    "additive, related": Kind(interaction_ratio=0.0, noise_ratio=0.0, related=True),
    "additive, unrelated": Kind(interaction_ratio=0.0, noise_ratio=0.0, related=False),
    "interacting, related": Kind(interaction_ratio=0.35, noise_ratio=0.03, related=True),
    "interacting, unrelated": Kind(interaction_ratio=0.35, noise_ratio=0.03, related=False),
    "noisy, related": Kind(interaction_ratio=0.35, noise_ratio=0.15, related=True),
    "noisy, unrelated": Kind(interaction_ratio=0.35, noise_ratio=0.15, related=False),
}


def make_synthetic(name: str, seed: int, *, num_slots: int = SLOTS, num_options: int = OPTIONS) -> SyntheticProblem:
    """Draw the tables of ``KINDS[name]``, set the limits at quantiles of random architectures, solve exactly."""
    kind = KINDS[name]
    rng = np.random.default_rng([seed, num_slots])
    latency = [np.r_[0.0, rng.uniform(5, 50, num_options - 1)] for _ in range(num_slots)]
    importance = rng.lognormal(0, 0.5, num_slots)
    score = [
        weight * np.r_[0.0, rng.uniform(0, 1, num_options - 1)] * (row / 50 if kind.related else 1.0)
        for weight, row in zip(importance, latency, strict=True)
    ]
    activation = tuple(np.r_[0.0, 10 * np.ceil(12 * rng.uniform(0, 1, num_options - 1) ** 4)] for _ in range(num_slots))
    random = rng.integers(num_options, size=(50_000, num_slots))
    spread_ms, spread = SlotSum.of(latency).total(random).std(), SlotSum.of(score).total(random).std()
    residual = _draw_pairs(rng, num_slots, num_options, RESIDUAL_RATIO * spread_ms) if kind.interaction_ratio else None
    pairs = (
        _draw_pairs(rng, num_slots, num_options, kind.interaction_ratio * spread) if kind.interaction_ratio else None
    )
    costs = AdditiveCosts(
        latency_ms=SlotSum.of(latency, residual, base=200.0), activation_mb=activation, base_activation_mb=50.0
    )
    quality = SlotSum.of(score, pairs)
    scored = costs.score(random)
    budget = Budget(
        latency_ms=float(np.quantile(scored.latency_ms, LATENCY_QUANTILE)),
        peak_memory_mb=float(np.quantile(scored.peak_memory_mb, MEMORY_QUANTILE)) + 1.0,
    )
    problem = SyntheticProblem(
        name=name,
        seed=seed,
        costs=costs,
        quality=quality,
        noise=kind.noise_ratio * float(quality.total(random).std()),
        budget=budget,
        share_inside=float(costs.feasible(random, budget).mean()),
        front=solve(AdditiveProblem(costs=costs, quality=quality), budget).options,
    )
    return replace(problem, volume=share(problem, problem.front.tolist()))


def _draw_pairs(rng: np.random.Generator, num_slots: int, num_options: int, spread: float) -> list[np.ndarray]:
    """Return random pair tables whose sum has standard deviation ``spread``; none with option 0, which is nothing."""
    pairs = rng.normal(size=(num_slots - 1, num_options, num_options))
    pairs[:, 0, :] = pairs[:, :, 0] = 0.0
    random = rng.integers(num_options, size=(20_000, num_slots))
    total = sum(pair[random[:, slot], random[:, slot + 1]] for slot, pair in enumerate(pairs))
    return list(pairs * spread / np.std(total))
