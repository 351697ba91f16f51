from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem import AdditiveProblem, FlatSpace

from nas.core import pareto
from nas.core.cost import Budget
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.search import posterior as posterior_module
from nas.search.exact import SlotSum
from nas.search.exact.tables import within
from nas.search.exact.volume import hypervolume
from nas.search.explain import Subject, block_values, kind_drives, sampled_shares, slot_drives, variance_shares
from nas.search.optimality import draw_shares, further, optimality_bound
from nas.search.posterior import Posterior, fit_posterior
from nas.search.relaxation import CHANGES, budget_steps

SPACE = FlatSpace(num_slots=4, num_options=4)
PROBLEM = AdditiveProblem(space=SPACE, seed=3, margin=1.1)
BUDGET = Budget(latency_ms=210.0, peak_memory_mb=99.0)
EVERY = np.array(list(product(range(4), repeat=4)), dtype=np.int64)


def random_sum(rng: np.random.Generator, sizes: tuple[int, ...]) -> SlotSum:
    pairs = [rng.normal(0, 0.3, shape) for shape in pairwise(sizes)]
    return SlotSum.of([rng.normal(size=size) for size in sizes], pairs)


@pytest.fixture(scope="module")
def subject() -> Subject:
    rng = np.random.default_rng(0)
    draws = tuple(random_sum(rng, (4, 4, 4, 4)) for _ in range(11))
    posterior = Posterior(judged=EVERY[:20], mean=draws[0], draws=draws)
    return Subject.of(SPACE, PROBLEM.costs, BUDGET, posterior)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_shares_of_a_sum_are_those_of_its_conditional_means(seed: int, sizes: list[int]) -> None:
    table = random_sum(np.random.default_rng(seed), tuple(sizes))
    rows = np.array(list(product(*map(range, sizes))), dtype=np.int64)
    values = table.total(rows)
    expected = [
        np.var([values[rows[:, slot] == option].mean() for option in range(size)]) / (values.var() or 1.0)
        for slot, size in enumerate(sizes)
    ]
    assert variance_shares(table, [np.arange(size) for size in sizes]) == pytest.approx(expected, abs=1e-9)


def test_sampled_shares_come_close_to_all_designs_of_a_maximum() -> None:
    def highest(rows: Any) -> Any:
        return PROBLEM.costs.score(rows).peak_memory_mb

    values = highest(EVERY)
    expected = [np.var([values[EVERY[:, slot] == option].mean() for option in range(4)]) for slot in range(4)]
    rows = np.random.default_rng(0).integers(0, 4, size=(20000, 4))
    assert sampled_shares(highest(rows), rows) == pytest.approx(np.array(expected) / values.var(), abs=0.015)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 7)] * 3), max_size=25))
def test_hypervolume_is_that_of_the_kernel(points: list[tuple[int, int, int]]) -> None:
    found = hypervolume(np.array(points, dtype=float).reshape(-1, 3), np.array([6.0, 7.0, 5.0]))
    assert found == pytest.approx(pareto.hypervolume(points, (6.0, 7.0, 5.0)))


def best(quality: SlotSum, budget: Budget) -> float:
    """Best quality inside a budget, by looking at every architecture."""
    return float(quality.total(EVERY)[within(PROBLEM.costs.score(EVERY), budget)].max())


def test_a_moved_limit_buys_the_difference_of_best_qualities(subject: Subject) -> None:
    steps = budget_steps(subject, PROBLEM.costs)
    assert [(step.limit, step.change_ratio) for step in steps] == [
        (limit, change) for limit in ("latency_ms", "peak_memory_mb") for change in CHANGES
    ]
    for step in steps:
        moved = Budget(**{"latency_ms": 210.0, "peak_memory_mb": 99.0, step.limit: step.allowed})
        gains = [best(draw, moved) - best(draw, BUDGET) for draw in subject.posterior.draws]
        assert step.quality is not None
        assert step.quality.mean == pytest.approx(np.mean(gains))
        assert (step.quality.low, step.quality.high) == pytest.approx(tuple(np.quantile(gains, [0.05, 0.95])))
        assert bool(step.changes) == (best(subject.posterior.mean, moved) != best(subject.posterior.mean, BUDGET))


def test_a_limit_that_nothing_keeps_is_said_to_be_impossible() -> None:
    tight = Budget(latency_ms=115.0)  # the cheapest architecture takes 100 ms, 110 at its upper end
    posterior = Posterior(judged=EVERY[:2], mean=PROBLEM_QUALITY, draws=(PROBLEM_QUALITY,))
    steps = budget_steps(Subject.of(SPACE, PROBLEM.costs, tight, posterior), PROBLEM.costs)
    assert {step.change_ratio: step.possible for step in steps} == {
        -0.2: False, -0.1: False, -0.05: False, 0.05: True, 0.1: True, 0.2: True,
    }  # fmt: skip
    assert budget_steps(Subject.of(SPACE, PROBLEM.costs, Budget(), posterior), PROBLEM.costs) == ()


PROBLEM_QUALITY = SlotSum.of(PROBLEM.score)


def test_a_block_is_worth_what_the_network_without_it_lacks(subject: Subject) -> None:
    row = (1, 0, 3, 2)
    values = block_values(subject, [("digest", row)])
    assert [value.slot for value in values] == ["slot00", "slot02", "slot03"]
    for value, slot in zip(values, (0, 2, 3), strict=True):
        without = np.array([[*row[:slot], 0, *row[slot + 1 :]]])
        both = PROBLEM.costs.score(np.array([row])), PROBLEM.costs.score(without)
        gains = [float(draw.total(np.array([row]))[0] - draw.total(without)[0]) for draw in subject.posterior.draws]
        assert value.latency_ms == pytest.approx(PROBLEM.latency[slot][row[slot]])
        assert value.peak_memory_mb == pytest.approx(float(both[0].peak_memory_mb[0] - both[1].peak_memory_mb[0]))
        assert value.quality.mean == pytest.approx(np.mean(gains))


def drawn(subject: Subject, factor: float) -> Subject:
    """Return ``subject`` with draws that are all ``factor`` times its mean."""
    mean = subject.posterior.mean
    draw = SlotSum.of([factor * row for row in mean.slots], [factor * pair for pair in mean.pairs or ()])
    return replace(subject, posterior=Posterior(judged=EVERY[:20], mean=mean, draws=(draw,) * 3))


def test_no_option_is_called_better_that_the_draws_expect_to_be_worse(subject: Subject) -> None:
    networks = [(str(index), tuple(row)) for index, row in enumerate(EVERY[::17].tolist())]
    assert any(value.better is not None for value in block_values(drawn(subject, 1.0), networks))
    assert all(value.better is None for value in block_values(drawn(subject, -1.0), networks))


def test_a_better_option_costs_no_more_and_is_the_best_of_those(subject: Subject) -> None:
    subject = drawn(subject, 1.0)
    networks = {str(index): tuple(row) for index, row in enumerate(EVERY[::17].tolist())}
    for value in block_values(subject, list(networks.items())):
        row = networks[value.digest]
        slot = SPACE.slots().index(value.slot)
        rows = np.repeat([row], 4, axis=0)
        rows[:, slot] = range(4)
        costs, quality = PROBLEM.costs.score(rows), subject.posterior.mean.total(rows)
        own = row[slot]
        allowed = within(costs, BUDGET) & (costs.latency_ms <= costs.latency_ms[own])
        allowed &= costs.peak_memory_mb <= costs.peak_memory_mb[own]
        better = np.flatnonzero(allowed & (quality > quality[own]))
        if len(better) == 0:
            assert value.better is None
        else:
            assert value.better is not None
            assert value.better.option == str(better[np.argmax(quality[better])])


def test_slots_and_kinds_tell_their_ranges(subject: Subject) -> None:
    chosen = (1, 0, 3, 2)
    slots = slot_drives(subject, chosen, np.random.default_rng(0))
    inside = [subject.fitting[slot] for slot in range(4)]
    latencies = [np.ptp(np.array(PROBLEM.latency[slot])[inside[slot]]) for slot in range(4)]
    assert [slot.latency_ms for slot in slots] == pytest.approx(latencies)
    assert sum(slot.latency_share for slot in slots) == pytest.approx(1.0, abs=0.02)
    assert all(0 <= slot.quality_share.low <= slot.quality_share.high <= 1 for slot in slots)
    kinds = kind_drives(subject, chosen)
    assert {kind.kind for kind in kinds} == {"1", "2", "3"}
    first = [PROBLEM.latency[slot][1] for slot in range(4) if 1 in inside[slot]]
    assert next(kind for kind in kinds if kind.kind == "1").latency_ms == pytest.approx(np.mean(first))


def evaluations(rows: Any, quality: SlotSum, noise: float, rng: np.random.Generator) -> list[Evaluation]:
    scores = quality.total(rows) + noise * rng.normal(size=len(rows))
    return [
        Evaluation(
            number=number,
            proposal=Proposal(architecture=SPACE.from_options(row)),
            cost=PROBLEM.cost(SPACE.from_options(row)),
            quality=Quality(score=float(score), estimator="table", fidelity="exact"),
            violations=(),
            state="complete",
        )
        for number, (row, score) in enumerate(zip(rows.tolist(), scores, strict=True))
    ]


def test_nothing_better_is_left_when_everything_was_judged() -> None:
    posterior = Posterior(judged=EVERY, mean=PROBLEM_QUALITY, draws=(PROBLEM_QUALITY,) * 3)
    bound = optimality_bound(posterior, PROBLEM.costs, BUDGET, (210.0, 99.0, 1.0))
    assert bound is not None
    assert (bound.median, bound.lower) == pytest.approx((1.0, 1.0))


def test_nothing_is_claimed_from_a_handful_of_candidates() -> None:
    posterior = Posterior(judged=EVERY[:9], mean=PROBLEM_QUALITY, draws=(PROBLEM_QUALITY,) * 3)
    assert optimality_bound(posterior, PROBLEM.costs, BUDGET, (210.0, 99.0, 1.0)) is None


def test_a_bound_says_when_the_evaluations_deny_its_assumption() -> None:
    posterior = Posterior(judged=EVERY, mean=PROBLEM_QUALITY, draws=(PROBLEM_QUALITY,) * 3, residual=True)
    bound = optimality_bound(posterior, PROBLEM.costs, BUDGET, (210.0, 99.0, 1.0))
    assert bound is not None
    assert "more than such a sum" in bound.assumption


def test_a_draw_further_from_the_mean_is_that_much_further() -> None:
    rng = np.random.default_rng(0)
    one, mean = random_sum(rng, (4,) * 4), random_sum(rng, (4,) * 4)
    moved = further(one, mean, 1.5)
    assert moved.total(EVERY) == pytest.approx(mean.total(EVERY) + 1.5 * (one.total(EVERY) - mean.total(EVERY)))


def test_lower_bound_holds_where_the_truth_is_known() -> None:
    budget, corner = Budget(latency_ms=240.0), np.array([240.0, 130.0, 2.0])
    inside = EVERY[within(PROBLEM.costs.score(EVERY), budget)]
    held = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        truth = random_sum(rng, (4,) * 4)
        rows = inside[rng.choice(len(inside), size=24, replace=False)]
        posterior = fit_posterior(SPACE, evaluations(rows, truth, 0.05, rng), PROBLEM.costs, rng, draws=20)
        assert posterior is not None
        lower = np.quantile(draw_shares(posterior, PROBLEM.costs, budget, corner), 0.1)
        costs = PROBLEM.costs.score(inside)
        points = np.stack([costs.latency_ms, costs.peak_memory_mb, -truth.total(inside)], axis=1)
        own = np.isin(inside @ [64, 16, 4, 1], rows @ [64, 16, 4, 1])
        held.append(hypervolume(points[own], corner) / hypervolume(points, corner) >= lower)
    assert sum(held) >= 5


def test_a_model_of_many_candidates_is_given_the_latest_and_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    # The covariances of 20,000 judged candidates would not fit into memory.
    given: list[int] = []

    class Counted(posterior_module.QualityModel):
        def __init__(self, observations: Any, scales: Any) -> None:
            given.append(len(observations.options))
            super().__init__(observations, scales)

    monkeypatch.setattr(posterior_module, "_MOST_OBSERVATIONS", 20)
    monkeypatch.setattr(posterior_module, "QualityModel", Counted)
    rng = np.random.default_rng(0)
    posterior = fit_posterior(SPACE, evaluations(EVERY[:60], PROBLEM_QUALITY, 0.0, rng), PROBLEM.costs, rng, draws=1)
    assert posterior is not None
    assert len(posterior.judged) == 60
    scored = PROBLEM.costs.score(EVERY[:60])
    points = np.stack([scored.latency_ms, scored.peak_memory_mb, -PROBLEM_QUALITY.total(EVERY[:60])], axis=1)
    front = {
        index
        for index, point in enumerate(points)
        if not ((points <= point).all(axis=1) & (points < point).any(axis=1)).any()
    }
    assert given == [len(front | set(range(40, 60)))]


def test_fewer_than_two_qualities_explain_nothing() -> None:
    rng = np.random.default_rng(0)
    one = evaluations(EVERY[:1], PROBLEM_QUALITY, 0.0, rng)
    assert fit_posterior(SPACE, one, PROBLEM.costs, rng, draws=2) is None
