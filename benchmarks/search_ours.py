"""Our engines on a search problem, run by the loop of ``nas search``: costs known, candidates over a limit screened."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.architecture import ChoiceSpec
from nas.core.cost import CostEstimate, Infeasibility, Interval
from nas.core.evaluation import Quality
from nas.core.rng import RandomStreams
from nas.search import engines, search
from nas.search.engines.model_based import start_of
from search_spaces.categorical import CategoricalSpace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search_problems import Problem
    from search_recorder import Recorder

    from nas.core.architecture import Architecture

PATIENCE = 20_000
NOT_LISTED = Infeasibility(block="network", compute_unit="cpu", reason="not in the table", source="table")


def make_space(sizes: Sequence[int]) -> CategoricalSpace:
    """Return a space of independent choices whose names sort as the slots do."""
    slots = {f"slot{index:02d}": size for index, size in enumerate(sizes)}
    return CategoricalSpace(
        "synthetic", 1, {name: [ChoiceSpec(name=f"{name}.kind", values=tuple(range(n)))] for name, n in slots.items()}
    )


def space_of(problem: Problem) -> Any:
    """Return the problem's own space, or one of independent choices."""
    return getattr(problem, "space", None) or make_space(problem.sizes)


class Judge:
    """The quality estimator: asks the recorder."""

    name = "table"
    fidelity = "table"

    def __init__(self, recorder: Recorder, space: Any) -> None:
        self._recorder = recorder
        self._space = space

    def estimate(self, architecture: Architecture) -> Quality:
        """Pay for one architecture."""
        return Quality(
            score=self._recorder.judge(self._space.to_options(architecture)),
            estimator=self.name,
            fidelity=self.fidelity,
        )


class Prices:
    """The cost model: exact figures, intervals of no width."""

    def __init__(self, problem: Problem, space: Any) -> None:
        self._problem = problem
        self._space = space

    def estimate(self, architecture: Architecture) -> CostEstimate:
        """Price one architecture; one that is not listed runs nowhere."""
        options = np.array([self._space.to_options(architecture)])
        latency_ms, *memory = self._problem.objectives(options)[0].tolist()
        memory_mb = memory[0] if memory else 0.0
        runs = bool(memory) or self._problem.excess(options)[0, 0] <= 0
        return CostEstimate(
            latency_ms=latency_ms,
            latency_interval_ms=Interval(low=latency_ms, high=latency_ms, coverage=1.0),
            peak_memory_mb=memory_mb,
            memory_interval_mb=Interval(low=memory_mb, high=memory_mb, coverage=1.0),
            parameters=0,
            blocks=(),
            device="synthetic",
            scenario="synthetic",
            predictor="table",
            origin="simulated",
            infeasible=() if runs else (NOT_LISTED,),
        )


class Journal:
    """A journal in memory: the benchmark times the search, not the disk."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def append(self, evaluations: Sequence[Any]) -> None:
        """Keep evaluations."""
        self.records.extend(evaluations)

    def read(self) -> list[Any]:
        """Return them."""
        return list(self.records)


def run(
    recorder: Recorder, seed: int, *, name: str, options: Mapping[str, Any], batch: int, residual_known: bool = True
) -> dict[str, Any]:
    """Run one engine; costs known, but for the latency residual if so wished."""
    problem = recorder.problem
    space = space_of(problem)
    if name == "model_based":
        options = {"start": start_of(recorder.evaluations), **options}
    costs = problem.costs
    if not residual_known:
        costs = replace(costs, latency_ms=replace(costs.latency_ms, pairs=None))
    result = search(
        space,
        engines.build(name, space, dict(options), RandomStreams(seed), costs=costs, budget=problem.budget),
        cost_model=getattr(problem, "cost_model", None) or Prices(problem, space),
        quality_estimator=Judge(recorder, space),
        budget=problem.budget,
        journal=Journal(),
        evaluations=recorder.evaluations,
        batch=batch,
        patience=PATIENCE,
    )
    return {"screened": result.screened, "stopped": result.stopped}
