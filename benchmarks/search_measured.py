"""Search problems from public tables: NAS-Bench-201 cells and Accel-NASBench networks with measured latencies.

Objectives are the latency measured on one device and the accuracy of the table; both are exact once judged, so the
true front is known by enumeration. There is no budget. Every latency is known to whoever can use it, since the table
holds it; accuracy has to be paid for.

NAS-Bench-201: 6 edges x 5 operations, the cells with a path from input to output, 12-epoch CIFAR-10 validation
accuracy. Accel-NASBench: 7 blocks with 4 choices each, only the 5,138 networks of the table; a proposal that the table
does not have is replaced by the listed network that differs in fewest choices.

Shapes: M listed networks, N asked about, L slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from devbench import load_space

from nas.core.cost import Budget
from nas.core.errors import InputError
from nas.core.pareto import hypervolume, non_dominated

if TYPE_CHECKING:
    from pathlib import Path

    from search_problems import Row

NB201_SLOTS = ("e01", "e02", "e12", "e03", "e13", "e23")
CHANCE_PERCENT = {"nb201": 10.0, "anb": 0.1}  # CIFAR-10 has ten classes, ImageNet a thousand
# Columns of 1,999 measured cells are left out: their fronts are those of another, smaller space.
LEAST_COVERAGE = 0.99
MARGIN_RATIO = 0.1


@dataclass(frozen=True, kw_only=True)
class TabulatedProblem:
    """Listed networks with latency and accuracy on one device.

    Attributes:
        options: Listed networks (M, L).
        latency_ms: Their latencies (M,).
        accuracy: Their accuracies in percent (M,).
        quality_corner: Accuracy of guessing, where hypervolume is measured from.
    """

    name: str
    seed: int
    options: np.ndarray
    latency_ms: np.ndarray
    accuracy: np.ndarray
    quality_corner: float
    sizes: tuple[int, ...]

    @property
    def budget(self) -> Budget:
        """No limits."""
        return Budget()

    @property
    def corner(self) -> tuple[float]:
        """The largest latency."""
        return (float(self.latency_ms.max()),)

    @property
    def reference(self) -> tuple[float, float]:
        """The largest latency and the accuracy of guessing."""
        return *self.corner, -self.quality_corner

    @cached_property
    def volume(self) -> float:
        """Hypervolume of everything that is listed."""
        return hypervolume(map(tuple, self._figures.tolist()), self.reference)

    @cached_property
    def front(self) -> np.ndarray:
        """The listed networks that no other dominates."""
        return self.options[non_dominated(self._figures.tolist())]

    @cached_property
    def tight_reference(self) -> tuple[float, ...]:
        """The worst of the true front in each objective, and a tenth of its range: a corner that forgives less."""
        figures = self.points(self.front)
        worst, best = figures.max(axis=0), figures.min(axis=0)
        return tuple((worst + MARGIN_RATIO * (worst - best)).tolist())

    @cached_property
    def costs(self) -> Any:
        """What our model-based engine sees: the latency of every listed network, and that no other runs."""
        from nas.search.exact.tabulated import TabulatedCosts

        return TabulatedCosts.measured(self.sizes, self.options, self.latency_ms)

    def objectives(self, options: np.ndarray) -> np.ndarray:
        """Return latency; the largest for what is not listed."""
        found = self._indices(options)
        return np.where(found >= 0, self.latency_ms[found], self.corner[0])[:, None]

    def excess(self, options: np.ndarray) -> np.ndarray:
        """Return 1 for what is not listed, -1 for what is."""
        return np.where(self._indices(options) >= 0, -1.0, 1.0)[:, None]

    def judged(self, row: Row) -> float:
        """Return the accuracy; that of guessing for what is not listed."""
        found = int(self._indices(np.array([row]))[0])
        return float(self.accuracy[found]) if found >= 0 else self.quality_corner

    def points(self, options: np.ndarray) -> np.ndarray:
        """Return latency and negated accuracy of the listed ones."""
        found = self._indices(options)
        return self._figures[found[found >= 0]]

    def nearest(self, row: Row) -> Row:
        """Return ``row`` itself where any combination exists, else the listed network with fewest other choices."""
        if self.name.startswith("nb201") or self._indices(np.array([row]))[0] >= 0:
            return row
        return tuple(self.options[np.argmin((self.options != np.array(row)).sum(axis=1))].tolist())

    @cached_property
    def _figures(self) -> np.ndarray:
        return np.stack([self.latency_ms, -self.accuracy], axis=1)

    @cached_property
    def _keys(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sorted keys of listed networks and their indices."""
        keys = np.ravel_multi_index(tuple(self.options.T), self.sizes)
        order = np.argsort(keys)
        return keys[order], order

    def _indices(self, options: np.ndarray) -> np.ndarray:
        """Return where each is listed (N,), -1 where it is not."""
        keys, order = self._keys
        wanted = np.ravel_multi_index(tuple(options.T), self.sizes)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[place] == wanted, order[place], -1)


@cache
def _load(benchmark: str, folder: Path) -> Any:
    import pandas as pd

    space = load_space(benchmark, [folder])
    if space is None:
        raise InputError(f"{folder}: no latencies of {benchmark}")
    table = pd.read_parquet(folder / f"{benchmark}_archs.parquet").drop_duplicates("arch_idx")
    slots = NB201_SLOTS if benchmark == "nb201" else [name for name in table.columns if name.startswith("block")]
    columns = [np.unique(table[slot], return_inverse=True) for slot in slots]
    return space, np.stack([codes for _, codes in columns], axis=1), tuple(len(values) for values, _ in columns)


def devices(benchmark: str, folder: Path) -> list[str]:
    """Return the devices that nearly every usable network was measured on."""
    space, _, _ = _load(benchmark, folder)
    enough = LEAST_COVERAGE * space.features.usable.sum()
    return [device for device in space.device_names if len(space.measured(device)) >= enough]


def make_measured(name: str, seed: int, folder: Path) -> TabulatedProblem:
    """Return the problem ``BENCHMARK/DEVICE``; the seed changes only the searches.

    Raises:
        InputError: The folder does not have it.
    """
    benchmark, _, device = name.partition("/")
    space, options, sizes = _load(benchmark, folder)
    if device not in space.device_names:
        raise InputError(f"{folder}: {benchmark} has no device {device!r}; it has {', '.join(space.device_names)}")
    rows = space.measured(device)
    options = options[rows]
    first = np.unique(options, axis=0, return_index=True)[1]  # a network may be listed twice
    first.sort()
    return TabulatedProblem(
        name=name,
        seed=seed,
        options=options[first],
        latency_ms=space.latency_ms[rows, space.device_names.index(device)][first].astype(float),
        accuracy=space.accuracy[rows][first].astype(float),
        quality_corner=CHANCE_PERCENT[benchmark],
        sizes=sizes,
    )
