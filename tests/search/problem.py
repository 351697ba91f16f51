"""A small space that can be enumerated, with additive costs and qualities: every truth is known exactly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.architecture import Architecture, ChoiceSpec
from nas.core.cost import CostEstimate, Infeasibility, Interval
from nas.core.errors import ArchitectureError, TrainingError
from nas.core.evaluation import Evaluation, Quality
from nas.search.exact import AdditiveCosts, SlotSum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nas.core.scenario import Scenario
    from nas.core.workload import Workload


@dataclass(frozen=True)
class FlatSpace:
    """``num_slots`` slots with ``num_options`` options each."""

    num_slots: int = 4
    num_options: int = 5
    name: str = "flat"
    version: int = 1

    @property
    def identifier(self) -> str:
        return f"{self.name}/{self.version}"

    def choices(self) -> tuple[ChoiceSpec, ...]:
        return tuple(ChoiceSpec(name=f"{slot}.kind", values=tuple(range(self.num_options))) for slot in self.slots())

    def slots(self) -> tuple[str, ...]:
        return tuple(f"slot{index:02d}" for index in range(self.num_slots))

    def options(self, slot: str) -> tuple[Mapping[str, Any], ...]:
        return tuple({f"{slot}.kind": value} for value in range(self.num_options))

    def count(self) -> int:
        return self.num_options**self.num_slots

    def encode(self, architecture: Architecture) -> tuple[int, ...]:
        return self.to_options(architecture)

    def decode(self, indices: Sequence[int]) -> Architecture:
        return self.from_options(indices)

    def from_options(self, options: Sequence[int]) -> Architecture:
        names = (f"{slot}.kind" for slot in self.slots())
        return Architecture(self.identifier, dict(zip(names, options, strict=True)))

    def to_options(self, architecture: Architecture) -> tuple[int, ...]:
        return tuple(int(architecture[f"{slot}.kind"]) for slot in self.slots())

    def validate(self, architecture: Architecture) -> None:
        if architecture.space != self.identifier or len(architecture) != self.num_slots:
            raise ArchitectureError(f"{architecture} is not of {self.identifier}")

    def workload(self, architecture: Architecture, scenario: Scenario) -> Workload:
        raise NotImplementedError

    def all(self) -> list[Architecture]:
        return [self.from_options(options) for options in product(range(self.num_options), repeat=self.num_slots)]


def make_cost(latency_ms: float, peak_memory_mb: float, *, margin: float = 1.0) -> CostEstimate:
    return CostEstimate(
        latency_ms=latency_ms,
        latency_interval_ms=Interval(low=latency_ms / margin, high=latency_ms * margin, coverage=0.9),
        peak_memory_mb=peak_memory_mb,
        memory_interval_mb=Interval(low=peak_memory_mb / margin, high=peak_memory_mb * margin, coverage=0.9),
        parameters=1000,
        blocks=(),
        device="test",
        scenario="test",
        predictor="test",
        origin="simulated",
    )


@dataclass
class AdditiveProblem:
    """Latency adds over slots, memory is their maximum, quality adds; option 0 is free and worthless."""

    space: FlatSpace = field(default_factory=FlatSpace)
    seed: int = 0
    margin: float = 1.1
    name: str = "table"
    fidelity: str = "exact"
    judged: list[str] = field(default_factory=list)
    failing: frozenset[str] = frozenset()
    stuck: frozenset[tuple[int, int]] = frozenset()  # (slot, option) that no compute unit runs

    def __post_init__(self) -> None:
        rng = Random(self.seed)
        shape = range(self.space.num_slots), range(1, self.space.num_options)
        self.latency = [[0.0, *(rng.uniform(5, 50) for _ in shape[1])] for _ in shape[0]]
        self.memory = [[0.0, *(float(rng.randrange(1, 6) * 10) for _ in shape[1])] for _ in shape[0]]
        self.score = [[0.0, *(row[option] * rng.uniform(0.005, 0.02) for option in shape[1])] for row in self.latency]

    def cost(self, architecture: Architecture) -> CostEstimate:
        options = self.space.to_options(architecture)
        latency_ms = 100.0 + sum(row[option] for row, option in zip(self.latency, options, strict=True))
        memory_mb = 50.0 + max(row[option] for row, option in zip(self.memory, options, strict=True))
        faults = tuple(
            Infeasibility(block=f"slot{slot}", compute_unit="cpu", reason=f"option {option} is stuck", source="test")
            for slot, option in enumerate(options)
            if (slot, option) in self.stuck
        )
        return replace(make_cost(latency_ms, memory_mb, margin=self.margin), infeasible=faults)

    def estimate(self, architecture: Architecture) -> Quality:
        """A quality; this object is the quality estimator, ``Prices`` the cost model."""
        self.judged.append(architecture.digest)
        if architecture.digest in self.failing:
            raise TrainingError(f"loss is not a number for {architecture.digest}")
        options = self.space.to_options(architecture)
        score = sum(row[option] for row, option in zip(self.score, options, strict=True))
        return Quality(score=score, estimator=self.name, fidelity=self.fidelity)

    @property
    def costs(self) -> AdditiveCosts:
        """The same costs as tables, for engines that know them."""
        latency = SlotSum.of(self.latency, base=100.0)
        return AdditiveCosts(
            latency_ms=latency,
            latency_high_ms=latency.scaled(self.margin),
            activation_mb=tuple(50.0 + np.array(row) for row in self.memory),
            activation_high_ratio=self.margin,
            runs=tuple(
                np.array([(slot, option) not in self.stuck for option in range(self.space.num_options)])
                for slot in range(self.space.num_slots)
            ),
        )

    @property
    def prices(self) -> Prices:
        return Prices(self)


@dataclass(frozen=True)
class Prices:
    problem: AdditiveProblem

    def estimate(self, architecture: Architecture) -> CostEstimate:
        return self.problem.cost(architecture)


class MemoryJournal:
    """A journal that dies when it should hold more than ``capacity`` records."""

    def __init__(self, records: Sequence[Evaluation] = (), capacity: int | None = None) -> None:
        self.records = list(records)
        self.capacity = capacity

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        for evaluation in evaluations:
            if self.capacity is not None and len(self.records) >= self.capacity:
                raise KeyboardInterrupt
            self.records.append(evaluation)

    def read(self) -> list[Evaluation]:
        return list(self.records)


def without_times(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    return [replace(evaluation, seconds=0.0) for evaluation in evaluations]
