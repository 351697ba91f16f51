from __future__ import annotations

from typing import Any

import optuna
import pytest
from problem import AdditiveProblem, FlatSpace, MemoryJournal, without_times

from nas.core.cost import Budget
from nas.core.errors import ConfigError, InputError
from nas.core.evaluation import Evaluation, Proposal
from nas.core.pareto import hypervolume
from nas.core.rng import RandomStreams
from nas.search import engines, search
from nas.search.engines.optuna_samplers import OptunaOptions, OptunaSearch
from nas.search.engines.random_search import RandomOptions, RandomSearch


def evaluate(problem: AdditiveProblem, number: int, proposal: Proposal) -> Evaluation:
    return Evaluation(
        number=number,
        proposal=proposal,
        cost=problem.cost(proposal.architecture),
        quality=problem.estimate(proposal.architecture),
        violations=(),
        state="complete",
    )


def drive(problem: AdditiveProblem, engine: Any, batches: int, size: int, start: int = 0) -> list[list[Evaluation]]:
    told = []
    for batch in range(batches):
        first = (start + batch) * size
        proposals = engine.ask(size)
        told.append([evaluate(problem, first + index, proposal) for index, proposal in enumerate(proposals)])
        engine.tell(told[-1])
    return told


def restarted(problem: AdditiveProblem, build: Any, batches: int, size: int) -> list[list[Evaluation]]:
    told: list[list[Evaluation]] = []
    for batch in range(batches):
        engine = build()
        for evaluations in told:
            engine.tell(evaluations)
        told += drive(problem, engine, 1, size, start=batch)
    return told


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "nsga2", "population": 8},
        {"sampler": "nsga3", "population": 8},
        {"sampler": "tpe", "settings": {"n_startup_trials": 5}},
        {"sampler": "tpe", "settings": {"multivariate": False, "n_startup_trials": 5}},
        {"sampler": "qmc"},
        {"sampler": "qmc", "settings": {"scramble": True}},
        {"sampler": "gp", "settings": {"n_startup_trials": 5}},
    ],
    ids=lambda options: "-".join([options["sampler"], *options.get("settings", {})]),
)
def test_engine_restarted_at_every_batch_equals_the_uninterrupted_one(options: dict[str, Any]) -> None:
    problem = AdditiveProblem(FlatSpace(4, 4))
    batches, size = (3, 3) if options["sampler"] == "gp" else (5, 5)

    def build() -> Any:
        return engines.build("optuna", problem.space, options, RandomStreams(5))

    assert restarted(problem, build, batches, size) == drive(problem, build(), batches, size)


def test_restart_forgetting_system_attributes_would_be_noticed() -> None:
    problem = AdditiveProblem(FlatSpace(6, 4))

    class Forgetful(OptunaSearch):
        def tell(self, evaluations: Any) -> None:
            for one in evaluations:
                one.proposal.note["system"].clear()
            super().tell(evaluations)

    def build(kind: type[OptunaSearch]) -> OptunaSearch:
        return kind(problem.space, OptunaOptions(population=8), RandomStreams(5))

    forgetful = restarted(problem, lambda: build(Forgetful), 8, 8)
    exact = restarted(problem, lambda: build(OptunaSearch), 8, 8)
    digests = [[one.architecture.digest for batch in run for one in batch] for run in (forgetful, exact)]
    assert digests[0] != digests[1]


def test_restarted_nsga2_stays_far_ahead_of_random_search() -> None:
    # The trap this guards against: a study rebuilt without system attributes makes NSGA-II random search, silently.
    problem = AdditiveProblem(FlatSpace(12, 6))
    volumes: dict[str, list[float]] = {"nsga2": [], "random": []}
    for seed in range(3):
        streams = RandomStreams(seed)
        runs = {
            "nsga2": restarted(
                problem, lambda s=streams: OptunaSearch(problem.space, OptunaOptions(population=20), s), 16, 20
            ),
            "random": drive(problem, RandomSearch(problem.space, RandomOptions(), streams), 16, 20),
        }
        for name, told in runs.items():
            assert sum(map(len, told)) == 320
            points = [(one.cost.latency_ms, -one.quality.score) for batch in told for one in batch if one.quality]
            volumes[name].append(hypervolume(points, (400.0, 0.0)))
    assert min(volumes["nsga2"]) > 1.05 * max(volumes["random"])


@pytest.mark.parametrize(
    "options",
    [{"sampler": "nsga2", "population": 10}, {"sampler": "tpe", "settings": {"n_startup_trials": 5}}],
    ids=["nsga2", "tpe"],
)
def test_search_with_screening_restarted_at_every_batch_equals_the_uninterrupted_one(options: dict[str, Any]) -> None:
    problem = AdditiveProblem(FlatSpace(3, 5))
    whole, pieces = MemoryJournal(), MemoryJournal()

    def go(journal: MemoryJournal, evaluations: int) -> None:
        search(
            problem.space,
            engines.build("optuna", problem.space, options, RandomStreams(1)),
            cost_model=problem.prices,
            quality_estimator=problem,
            budget=Budget(latency_ms=190.0, peak_memory_mb=105.0),
            journal=journal,
            evaluations=evaluations,
            batch=6,
        )

    go(whole, 24)
    for evaluations in range(6, 25, 6):
        go(pieces, evaluations)
    assert any(one.state == "screened" for one in whole.records)
    assert without_times(pieces.records) == without_times(whole.records)


def test_screening_teaches_nsga2_to_propose_what_fits() -> None:
    problem = AdditiveProblem(FlatSpace(12, 6))
    engine = engines.build("optuna", problem.space, {"population": 20}, RandomStreams(0))
    result = search(
        problem.space,
        engine,
        cost_model=problem.prices,
        quality_estimator=problem,
        budget=Budget(latency_ms=330.0),
        journal=MemoryJournal(),
        evaluations=150,
        batch=10,
    )
    first, last = result.evaluations[:100], result.evaluations[-100:]
    assert sum(one.feasible for one in last) > 2 * sum(one.feasible for one in first)


def test_optuna_engine_never_repeats_itself_and_ends_when_the_space_does() -> None:
    problem = AdditiveProblem(FlatSpace(2, 4))
    engine = engines.build("optuna", problem.space, {"population": 4}, RandomStreams(0))
    told = drive(problem, engine, 5, 4)
    digests = [one.architecture.digest for batch in told for one in batch]
    assert len(digests) == len(set(digests)) == problem.space.count()
    assert told[-1] == []


@pytest.mark.parametrize("name", engines.names())
def test_first_proposal_is_the_smallest_architecture(name: str) -> None:
    problem = AdditiveProblem()
    engine = engines.build(name, problem.space, {}, RandomStreams(0), costs=problem.costs)
    assert problem.space.to_options(engine.ask(3)[0].architecture) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", engines.names())
def test_asking_in_parts_equals_asking_at_once(name: str) -> None:
    problem = AdditiveProblem()
    parts, whole = (engines.build(name, problem.space, {}, RandomStreams(0), costs=problem.costs) for _ in range(2))
    assert [one.architecture for count in (1, 4, 2) for one in parts.ask(count)] == [
        one.architecture for one in whole.ask(7)
    ]


def test_random_search_is_uniform_over_options() -> None:
    space = FlatSpace(2, 4)
    engine = RandomSearch(space, RandomOptions(), RandomStreams(0))
    engine.tell([])  # past the first batch, which begins with the smallest architecture
    counts = dict.fromkeys(range(16), 0)
    for proposal in engine.ask(16_000):
        first, second = space.to_options(proposal.architecture)
        counts[4 * first + second] += 1
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi_square < 37.7  # the 0.999 quantile at 15 degrees of freedom


def test_exhaustive_search_proposes_everything_once() -> None:
    space = FlatSpace(3, 3)
    engine = engines.build("exhaustive", space, {}, RandomStreams(0))
    proposals = [*engine.ask(10), *engine.ask(10), *engine.ask(10)]
    assert [one.architecture for one in proposals] == space.all()
    assert engine.ask(1) == []


def test_exhaustive_search_refuses_a_large_space_with_its_count() -> None:
    with pytest.raises(ConfigError, match="has 1,048,576 architectures, exhaustive search takes up to 20,000"):
        engines.build("exhaustive", FlatSpace(10, 4), {}, RandomStreams(0))


def test_unknown_engine_lists_what_there_is() -> None:
    with pytest.raises(
        ConfigError,
        match="'optima' is unknown; allowed: evolving, exhaustive, model_based, optuna, random, regularised",
    ) as caught:
        engines.get("optima")
    assert caught.value.hint == "did you mean 'optuna'?"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("random", {"seed": 3}, "'random' has no option 'seed'; allowed: none"),
        ("optuna", {"sampller": "tpe"}, "'optuna' has no option 'sampller'; allowed: sampler, population, settings"),
        ("optuna", {"population": "many"}, "population: Input should be a valid integer"),
        ("optuna", {"sampler": "nsga4"}, "Optuna sampler 'nsga4' is unknown .* allowed: gp, nsga2, nsga3, qmc"),
        ("optuna", {"sampler": "cmaes"}, "'cmaes' is unknown or cannot search several objectives"),
        ("optuna", {"population": 1}, "NSGAIISampler refuses: `population_size` must be greater"),
        ("optuna", {"sampler": "tpe", "population": 5}, "TPESampler has no argument 'population_size'"),
        ("optuna", {"settings": {"seed": 5}}, "NSGAIISampler has no argument 'seed'; allowed: .*mutation_prob"),
        ("exhaustive", {"limit": 10}, "has 625 architectures"),
    ],
)
def test_wrong_options_are_config_errors(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engines.build(name, FlatSpace(), options, RandomStreams(0))


def test_optuna_engine_refuses_the_journal_of_another_engine() -> None:
    problem = AdditiveProblem()
    engine = engines.build("optuna", problem.space, {}, RandomStreams(0))
    foreign = evaluate(problem, 0, Proposal(architecture=problem.space.from_options([0] * 4)))
    with pytest.raises(InputError, match="evaluation 0 of the journal was not proposed by an Optuna sampler"):
        engine.tell([foreign])


def test_optuna_keeps_its_own_log_level() -> None:
    before = optuna.logging.get_verbosity()
    problem = AdditiveProblem()
    drive(problem, engines.build("optuna", problem.space, {"sampler": "qmc"}, RandomStreams(0)), 2, 2)
    assert optuna.logging.get_verbosity() == before
