from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from problem import AdditiveProblem, FlatSpace, MemoryJournal, without_times

from nas.core.cost import Budget
from nas.core.evaluation import Quality
from nas.core.rng import RandomStreams
from nas.search import SearchResult, engines, search
from nas.search.engines.halving import SuccessiveHalving
from nas.search.exact import SlotSum
from nas.search.judging import QualityLevel
from nas.search.levels import LevelModels

if TYPE_CHECKING:
    from nas.core.architecture import Architecture

LIMIT = Budget(latency_ms=260.0)
SPACE = FlatSpace(num_slots=6, num_options=5)


@dataclass
class Related:
    """A cheap estimator: minus thrice the truth plus 50 (informative), or a score drawn by digest (useless)."""

    problem: AdditiveProblem
    informative: bool = True
    name: str = "cheap"
    fidelity: str = "biased"

    def estimate(self, architecture: Architecture) -> Quality:
        truth = self.problem.estimate(architecture).score
        drawn = Random(architecture.digest).gauss(0.0, 1.0)
        return Quality(score=50.0 - 3.0 * truth if self.informative else drawn, estimator=self.name, fidelity="")


def run(
    problem: AdditiveProblem, *, engine: str = "model_based", prices: tuple[float, ...] = (0.1, 1.0), **changes: Any
) -> SearchResult:
    informative, ratio = changes.pop("informative", True), changes.pop("ratio", None)
    streams, costs = RandomStreams(2), problem.costs
    models = LevelModels(sizes=costs.sizes, num_levels=len(prices), latency=costs.hint_ms)
    hints = lambda: models.hints(len(prices) - 1)  # noqa: E731  # one line says it
    inner = engines.build(
        engine, problem.space, {}, streams, costs=costs, budget=changes.get("budget", LIMIT), hints=hints
    )
    cheap = Related(problem, informative=informative)
    levels = [QualityLevel(estimator=cheap, price=price) for price in prices[:-1]]
    arguments: dict[str, Any] = {
        "cost_model": problem.prices,
        "quality_estimator": [*levels, QualityLevel(estimator=problem)],
        "budget": LIMIT,
        "journal": MemoryJournal(),
        "evaluations": 12,
        "batch": 6,
    }
    halving = SuccessiveHalving(
        inner, problem.space, models, streams, prices=prices, costs=costs, budget=LIMIT, ratio=ratio
    )
    return search(problem.space, halving, **{**arguments, **changes})


@pytest.mark.parametrize("engine", ["exhaustive", "model_based", "random", "regularised"])
def test_every_candidate_of_the_front_was_judged_cheaply_first(engine: str) -> None:
    result = run(AdditiveProblem(space=SPACE), engine=engine, ratio=3.0)
    cheap = {one.architecture.digest: one.number for one in result.evaluations if not one.at_highest_level}
    dear = [one for one in result.evaluations if one.at_highest_level and one.state == "complete"]

    assert dear
    assert all(cheap[one.architecture.digest] < one.number for one in dear)


def test_fixed_ratio_is_kept() -> None:
    result = run(AdditiveProblem(space=SPACE), engine="regularised", ratio=4.0, evaluations=20)

    assert result.judged_below / result.complete == pytest.approx(4.0, abs=0.6)


def test_three_levels_thin_out() -> None:
    result = run(AdditiveProblem(space=SPACE), prices=(0.02, 0.2, 1.0), engine="regularised", ratio=3.0, evaluations=20)
    counts = [sum(one.proposal.level == level for one in result.evaluations) for level in (0, 1, None)]

    assert counts[0] / counts[1] == pytest.approx(3.0, abs=0.6)
    assert counts[1] / counts[2] == pytest.approx(3.0, abs=0.8)


def test_best_by_the_models_is_promoted_and_not_the_best_raw_score() -> None:
    # The cheap score is highest for the worst candidates: successive halving on raw scores would promote those.
    problem = AdditiveProblem(space=SPACE)
    result = run(problem, engine="regularised", evaluations=20, ratio=4.0)
    scores = {one.architecture.digest: one.quality.score for one in result.evaluations if one.proposal.level == 0}  # type: ignore[union-attr]
    later = [one for one in result.evaluations if one.at_highest_level][6:]

    assert np.mean([scores[one.architecture.digest] for one in later]) < np.mean(list(scores.values()))


def test_useless_source_is_left() -> None:
    useful = run(AdditiveProblem(space=SPACE), engine="regularised", evaluations=40)
    useless = run(AdditiveProblem(space=SPACE), engine="regularised", evaluations=40, informative=False)

    assert useless.judged_below < useful.judged_below / 2
    assert useless.complete >= 34  # 40 were paid for


def test_infeasible_candidates_cost_nothing_and_are_not_promoted() -> None:
    problem = AdditiveProblem(space=SPACE)
    result = run(problem, engine="random", ratio=2.0, evaluations=6)
    screened = {one.architecture.digest for one in result.evaluations if one.state == "screened"}

    assert screened
    assert not screened & set(problem.judged)


def test_failures_below_are_not_promoted() -> None:
    problem = AdditiveProblem(space=SPACE)
    first = run(problem, ratio=2.0, evaluations=6)
    failing = next(one.architecture.digest for one in first.evaluations if one.at_highest_level)
    again = run(AdditiveProblem(space=SPACE, failing=frozenset({failing})), ratio=2.0, evaluations=6)

    assert [one.proposal.level for one in again.evaluations if one.architecture.digest == failing] == [0]


def test_killed_anywhere_it_resumes_though_the_source_has_become_useless() -> None:
    settings: dict[str, Any] = {"engine": "regularised", "informative": False, "evaluations": 36}
    whole = run(AdditiveProblem(space=SPACE), **settings).evaluations
    for kept in (len(whole) // 2, len(whole) - 3):
        journal = MemoryJournal(capacity=kept)
        with pytest.raises(KeyboardInterrupt):
            run(AdditiveProblem(space=SPACE), **settings, journal=journal)
        result = run(AdditiveProblem(space=SPACE), **settings, journal=MemoryJournal(journal.records))

        assert without_times(result.evaluations) == without_times(whole)


@pytest.mark.parametrize("engine", ["model_based", "random", "regularised"])
def test_killed_anywhere_it_resumes_to_the_same_journal(engine: str) -> None:
    whole = run(AdditiveProblem(space=SPACE), engine=engine, evaluations=8).evaluations
    for kept in range(2, len(whole), 13):
        journal = MemoryJournal(capacity=kept)
        with pytest.raises(KeyboardInterrupt):
            run(AdditiveProblem(space=SPACE), engine=engine, evaluations=8, journal=journal)
        result = run(AdditiveProblem(space=SPACE), engine=engine, evaluations=8, journal=MemoryJournal(journal.records))

        assert without_times(result.evaluations) == without_times(whole)


def test_asynchronous_search_needs_no_rounds() -> None:
    result = run(AdditiveProblem(space=SPACE), mode="asynchronous", evaluations=10)

    assert result.complete >= 3
    assert result.judged_below >= 10


def test_model_of_a_level_learns_that_the_one_below_runs_backwards() -> None:
    problem = AdditiveProblem(space=SPACE)
    costs, rng = problem.costs, np.random.default_rng(0)
    models = LevelModels(sizes=costs.sizes, num_levels=2, latency=costs.hint_ms)
    rows = [tuple(row) for row in rng.integers(5, size=(60, 6)).tolist()]
    cheap = Related(problem)
    for index, row in enumerate(rows):
        architecture = SPACE.from_options(row)
        models.add(0, row, cheap.estimate(architecture).score, 0.0)
        if index < 8:
            models.add(1, row, problem.estimate(architecture).score, 0.0)
    model = models.model(1)
    assert model is not None
    others = rng.integers(5, size=(200, 6))
    truth = [problem.estimate(SPACE.from_options(row)).score for row in others.tolist()]

    assert np.corrcoef(model.mean().total(others), truth)[0, 1] > 0.95
    assert models.agreement(1) > 0.7


def test_agreement_with_noise_is_low() -> None:
    problem = AdditiveProblem(space=SPACE)
    models = LevelModels(sizes=problem.costs.sizes, num_levels=2, latency=problem.costs.hint_ms)
    rng = np.random.default_rng(1)
    for row in rng.integers(5, size=(60, 6)).tolist():
        models.add(0, tuple(row), float(rng.normal()), 0.0)
        models.add(1, tuple(row), problem.estimate(SPACE.from_options(row)).score, 0.0)

    assert models.agreement(1) < 0.15


def test_new_hints_are_learned_with_though_nothing_else_is_new() -> None:
    # Else a resumed search, which first asks at the newer hints, would go on from other scales.
    problem = AdditiveProblem(space=SPACE)
    costs, known = problem.costs, [problem.costs.hint_ms]
    told = run(problem, engine="random", ratio=2.0, evaluations=8).evaluations
    told = tuple(one for one in told if one.at_highest_level)

    def build() -> Any:
        engine = engines.build(
            "model_based", SPACE, {"start": 2}, RandomStreams(0), costs=costs, budget=LIMIT, hints=lambda: tuple(known)
        )
        engine.tell(told)
        return engine

    early = build()
    failed = [replace(told[0], proposal=one, quality=None, state="failed", error="x") for one in early.ask(2)]
    early.tell(failed)
    known[:] = [SlotSum.of(problem.score)]
    late = build()
    late.tell(failed)

    options = np.random.default_rng(0).integers(5, size=(20, 6))
    assert np.array_equal(early.predict(options), late.predict(options))
