"""A search problem that costs nothing to set up: made-up costs and qualities, tabulated by slot and option.

For benchmarks of the search loop and its executors, where the numbers do not matter and their speed does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nas.core.architecture import Architecture, ChoiceSpec
from nas.core.cost import Budget, CostEstimate, Interval
from nas.core.evaluation import Quality
from nas.search.exact import AdditiveCosts, SlotSum
from search_spaces.categorical import CategoricalSpace

MARGIN = 1.1


@dataclass(frozen=True)
class TableProblem:
    """Latency adds up, memory is a maximum, quality adds up; this object is the cost model."""

    num_slots: int = 6
    num_options: int = 10
    space: CategoricalSpace = field(init=False)
    latency_ms: np.ndarray = field(init=False)
    memory_mb: np.ndarray = field(init=False)
    score: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(0)
        shape = (self.num_slots, self.num_options)
        rank = np.arange(self.num_options)
        slots = {
            f"slot{slot:02d}": [ChoiceSpec(name=f"slot{slot:02d}.kind", values=tuple(range(self.num_options)))]
            for slot in range(self.num_slots)
        }
        object.__setattr__(self, "space", CategoricalSpace("table", 1, slots))
        object.__setattr__(self, "latency_ms", rank * generator.uniform(2.0, 8.0, shape))
        object.__setattr__(self, "memory_mb", rank * generator.integers(1, 6, shape).astype(float))
        object.__setattr__(self, "score", rank * generator.uniform(0.1, 1.0, shape))

    @property
    def budget(self) -> Budget:
        """About half of the architectures keep it."""
        return Budget(latency_ms=MARGIN * (100.0 + float(self.latency_ms.mean(axis=1).sum())))

    @property
    def costs(self) -> AdditiveCosts:
        """The costs as engines take them."""
        latency = SlotSum.of(list(self.latency_ms), base=100.0)
        return AdditiveCosts(
            latency_ms=latency,
            latency_high_ms=latency.scaled(MARGIN),
            activation_mb=tuple(50.0 + self.memory_mb),
            activation_high_ratio=MARGIN,
        )

    def estimate(self, architecture: Architecture) -> CostEstimate:
        """Price an architecture."""
        options = self.space.to_options(architecture)
        latency_ms = 100.0 + sum(row[option] for row, option in zip(self.latency_ms, options, strict=True))
        memory_mb = 50.0 + max(row[option] for row, option in zip(self.memory_mb, options, strict=True))
        return CostEstimate(
            latency_ms=float(latency_ms),
            latency_interval_ms=Interval(low=float(latency_ms), high=float(MARGIN * latency_ms), coverage=0.9),
            peak_memory_mb=float(memory_mb),
            memory_interval_mb=Interval(low=float(memory_mb), high=float(MARGIN * memory_mb), coverage=0.9),
            parameters=1000,
            blocks=(),
            device="made up",
            scenario="made up",
            predictor="table",
            origin="simulated",
        )


@dataclass(frozen=True)
class TableQuality:
    """Looks qualities up."""

    scores: tuple[tuple[float, ...], ...]
    name: str = "table"
    fidelity: str = "made up"

    @classmethod
    def of(cls, problem: TableProblem) -> TableQuality:
        """Return the qualities of a problem."""
        return cls(tuple(map(tuple, problem.score.tolist())))

    def estimate(self, architecture: Architecture) -> Quality:
        """Return the tabulated quality."""
        return Quality(score=self.score(architecture), estimator=self.name, fidelity=self.fidelity)

    def score(self, architecture: Architecture) -> float:
        """Return its score."""
        return sum(row[int(option)] for row, (_, option) in zip(self.scores, architecture.choices, strict=True))
