"""How far a network lies from the ones a calibration measured, and what that does to its interval.

Distances are Mahalanobis with a shrunk covariance, in figures that add up over blocks: time and number of the blocks
of each kind, and weights. scikit-learn is imported where a domain is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from latency_models.pricing import BlockPrice, WorkloadPrice

    FloatArray = NDArray[np.float64]

UNSEEN = "unseen blocks"
WEIGHTS = "weights_mb"
# One block of a kind that no calibration network held lies this many standard deviations out.
_UNSEEN_SCALE = 0.1
# A figure that is the same in all calibration networks counts as spread by this share of itself.
_LEAST_SPREAD = 0.05
# Beyond the limit an interval's logarithm grows with the distance, up to this factor.
_MOST_STRETCH = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The calibration networks as a cloud of points.

    Attributes:
        names: Figures: ``attention ms``, ``attention count``, ``weights_mb``, ``unseen blocks``.
        centre: Their mean.
        whitening: Square matrix; the distance is the length of ``whitening @ (figures - centre)``.
        largest: Largest of each figure among the calibration networks.
        largest_ms: Largest predicted time of a call among them.
        limit: Largest distance of a calibration network from a cloud without it. A further network drawn like them
            lies beyond it once in ``num_networks + 1`` times: the finest that so many can tell.
        num_networks: Calibration networks.
    """

    names: tuple[str, ...]
    centre: tuple[float, ...]
    whitening: tuple[tuple[float, ...], ...]
    largest: tuple[float, ...]
    largest_ms: float
    limit: float
    num_networks: int

    def figures(self, blocks: Sequence[BlockPrice], weights_mb: float) -> FloatArray:
        """Return the figures of blocks and weights; they add up over parts of a network."""
        found = dict.fromkeys(self.names, 0.0)
        found[WEIGHTS] = weights_mb
        for block in blocks:
            if f"{block.kind} ms" in found:
                found[f"{block.kind} ms"] += block.latency_ms
                found[f"{block.kind} count"] += 1.0
            else:
                found[UNSEEN] += 1.0
        return np.array([found[name] for name in self.names])

    def whitened(self, figures: FloatArray) -> FloatArray:
        """Return figures (without the centre) in whitened directions, in which lengths are distances."""
        directions: FloatArray = np.array(self.whitening) @ figures
        return directions

    def distance(self, price: WorkloadPrice) -> float:
        """Return the distance of a priced network from the calibration networks."""
        figures = self.figures(price.blocks, price.weights_mb) - np.array(self.centre)
        return float(np.linalg.norm(self.whitened(figures)))

    def stretch(self, distance: FloatArray | float) -> FloatArray:
        """Return the factor on the half-width (of the logarithm) at each distance: 1 up to the limit, then growing."""
        return np.clip(np.asarray(distance) / self.limit, 1.0, _MOST_STRETCH)

    def reason(self, price: WorkloadPrice) -> str:
        """Say why a network lies outside, empty where it does not."""
        distance = self.distance(price)
        if distance <= self.limit:
            return ""
        figures = self.figures(price.blocks, price.weights_mb)
        time_ms = price.latency_ms
        parts = [_unseen_kinds(price, self.names)] if figures[self.names.index(UNSEEN)] else []
        beyond = [
            (figure / largest, name)
            for name, figure, largest in zip(self.names, figures, self.largest, strict=True)
            if largest > 0 and figure > 1.001 * largest
        ]
        if time_ms > 1.001 * self.largest_ms > 0:
            beyond.append((time_ms / self.largest_ms, "predicted time"))
        parts += [
            f"{_words(name)} {ratio:.2g}x the largest calibration network's" for ratio, name in sorted(beyond)[-2:]
        ]
        if not parts:
            parts = ["a mix of layers unlike the calibration networks'"]
        return f"{'; '.join(parts)} (distance {distance:.2g}, limit {self.limit:.2g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SummedDistances:
    """Distances of networks that are a base and one option in each slot, from tables of pairs of options.

    A squared length of a sum is the sum of all scalar products of its parts: looked up, not worked out, for each of
    millions of networks.
    """

    constant: float
    single: tuple[FloatArray, ...]
    pairs: tuple[tuple[int, int, FloatArray], ...]

    @classmethod
    def of_parts(cls, domain: Domain, base: FloatArray, slots: Sequence[FloatArray]) -> SummedDistances:
        """Compile from the figures of the base, shape (F,), and of the options of each slot, shape (options, F)."""
        start = domain.whitened(base - np.array(domain.centre))
        parts = [domain.whitened(figures.T).T for figures in slots]
        return cls(
            constant=float(start @ start),
            single=tuple((part * part).sum(axis=1) + 2.0 * part @ start for part in parts),
            pairs=tuple(
                (first, second, 2.0 * parts[first] @ parts[second].T)
                for first in range(len(parts))
                for second in range(first + 1, len(parts))
            ),
        )

    def of(self, options: NDArray[np.integer]) -> FloatArray:
        """Return the distances of networks given as option indices, shape (N, slots)."""
        columns = [np.ascontiguousarray(column, dtype=np.int64) for column in options.T]
        squares = np.full(len(options), self.constant)
        for column, table in zip(columns, self.single, strict=True):
            squares += table.take(column)
        for first, second, table in self.pairs:
            squares += table.take(columns[first] * table.shape[1] + columns[second])
        distances: FloatArray = np.sqrt(np.maximum(squares, 0.0))
        return distances


def fit_domain(prices: Sequence[WorkloadPrice]) -> Domain | None:
    """Fit the cloud of the calibration networks; None for fewer than three.

    The covariance of the standardised figures is shrunk as Ledoit and Wolf do, since there are about as many figures
    as networks.
    """
    if len(prices) < 3:
        return None
    kinds = sorted({block.kind for price in prices for block in price.blocks})
    names = (*(f"{kind} {part}" for kind in kinds for part in ("ms", "count")), WEIGHTS, UNSEEN)
    empty = Domain(
        names=names, centre=(), whitening=(), largest=(), largest_ms=0.0, limit=1.0, num_networks=len(prices)
    )
    table = np.array([empty.figures(price.blocks, price.weights_mb) for price in prices])
    # What one network alone varies would otherwise have no spread without it, and an infinite distance.
    least = np.maximum(0.5 * table.std(axis=0), _LEAST_SPREAD * np.abs(table.mean(axis=0)))
    least[names.index(UNSEEN)] = _UNSEEN_SCALE
    left_out = []
    for index in range(len(table)):
        centre, whitening = _cloud(np.delete(table, index, axis=0), least)
        left_out.append(float(np.linalg.norm(whitening @ (table[index] - centre))))
    centre, whitening = _cloud(table, least)
    return Domain(
        names=names,
        centre=tuple(float(value) for value in centre),
        whitening=tuple(tuple(float(value) for value in row) for row in whitening),
        largest=tuple(float(value) for value in table.max(axis=0)),
        largest_ms=max(price.latency_ms for price in prices),
        limit=max(max(left_out), 1e-9),
        num_networks=len(prices),
    )


def _cloud(table: FloatArray, least: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean and the whitening of rows of figures, each figure spread by at least ``least``."""
    from sklearn.covariance import ledoit_wolf

    centre, spread = table.mean(axis=0), np.maximum(table.std(axis=0), np.maximum(least, 1e-9))
    covariance, _ = ledoit_wolf((table - centre) / spread, assume_centered=True)
    # Directions in which the networks hardly differ (a figure that none varies) keep unit spread, not none.
    covariance = covariance + np.diag(np.where(table.std(axis=0) < spread, 1.0, 0.0))
    whitening: FloatArray = np.linalg.inv(np.linalg.cholesky(covariance)) / spread
    return centre, whitening


def _unseen_kinds(price: WorkloadPrice, names: Sequence[str]) -> str:
    kinds: Mapping[str, None] = dict.fromkeys(
        block.kind for block in price.blocks if f"{block.kind} ms" not in set(names)
    )
    return f"no calibration network holds a block of kind {', '.join(map(repr, kinds))}"


def _words(name: str) -> str:
    if name == WEIGHTS:
        return "weights"
    kind, _, part = name.rpartition(" ")
    return {"ms": f"time in {kind} blocks", "count": f"number of {kind} blocks"}.get(part, name)
