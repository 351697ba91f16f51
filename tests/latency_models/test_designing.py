"""Which measurement next: against brute force, refits, and random choice on planted problems."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from latency_models.designing import Candidate, Design, choose, front_sd_ratio, next_measurements
from latency_models.effects import NetworkShape
from latency_models.gaussian import condition
from latency_models.posterior import BlockTime, NetworkTime, Posterior, fit_posterior
from tests.latency_models.test_posterior import OLD, PRIOR, Planted


def measured_before(planted: Planted) -> tuple[list[BlockTime], list[NetworkTime]]:
    """The same measurements whenever it is asked, whatever was drawn since."""
    planted.random = np.random.default_rng(planted.seed + 1000)
    return planted.blocks(sorted(planted.known)[:6]), planted.networks(4)


def problem(seed: int = 0) -> tuple[Planted, Posterior, list[Candidate], list[tuple[NetworkShape, object]]]:
    """A device of which six blocks and four networks are measured; the front holds few of its blocks."""
    planted = Planted(seed=seed)
    posterior = fit_posterior(planted.effects, *measured_before(planted), PRIOR)
    rest = sorted(planted.known)[6:]
    candidates = [Candidate(subject=name, level="block", group=OLD, cost_s=0.5) for name in rest]
    candidates += [
        Candidate(subject=f"net{index}", level="network", group=OLD, shape=shape, cost_s=2.0)
        for index, shape in enumerate(planted.shapes(10))
    ]
    few = rest[:12]
    front = [
        (NetworkShape(blocks=tuple(planted.random.choice(few, 8, replace=False)), weights_mb=2.0), OLD)
        for _ in range(6)
    ]
    return planted, posterior, candidates, front


def after(posterior: Posterior, candidate: Candidate, front: list) -> float:  # type: ignore[type-arg]  # see problem
    """Mean variance of the front with one candidate measured, by conditioning the whole distribution."""
    if candidate.shape is None:
        row, noise = posterior.alone_rows([(candidate.subject, OLD)]), 0.01**2
    else:
        row, noise = posterior.network_ms([(candidate.shape, OLD)])[1], posterior.noise_ratio**2
    found = condition(posterior.unknowns, row, row @ posterior.unknowns.mean, np.array([noise]))
    return float(found.variance_of(posterior.network_ms(front)[1]).mean())


def test_one_measurement_is_the_best_of_brute_force() -> None:
    _, posterior, candidates, front = problem()
    brute = [after(posterior, candidate, front) for candidate in candidates]
    (step,) = next_measurements(posterior, candidates, front, 1)
    assert step.subject == candidates[int(np.argmin(brute))].subject
    assert step.front_sd_ratio**2 == pytest.approx(min(brute), rel=1e-6)


def test_per_cost_is_the_best_of_brute_force_a_second() -> None:
    _, posterior, candidates, front = problem()
    before = front_sd_ratio(posterior, front) ** 2
    brute = [(before - after(posterior, candidate, front)) / candidate.cost_s for candidate in candidates]
    (step,) = next_measurements(posterior, candidates, front, 1, per_cost=True)
    assert step.subject == candidates[int(np.argmax(brute))].subject


def test_expected_uncertainty_after_several_steps_is_that_of_conditioning_on_them() -> None:
    _, posterior, candidates, front = problem()
    blocks = [candidate for candidate in candidates if candidate.level == "block"]
    steps = next_measurements(posterior, blocks, front, 5)
    rows = posterior.alone_rows([(step.subject, OLD) for step in steps])
    found = condition(posterior.unknowns, rows, rows @ posterior.unknowns.mean, np.full(5, 0.01**2))
    expected = float(found.variance_of(posterior.network_ms(front)[1]).mean())
    assert steps[-1].front_sd_ratio ** 2 == pytest.approx(expected, rel=1e-6)


def test_each_step_lowers_the_uncertainty_and_none_is_chosen_twice() -> None:
    _, posterior, candidates, front = problem()
    steps = next_measurements(posterior, candidates, front, 100)
    assert len(steps) == len(candidates) == len({step.subject for step in steps})
    ratios = [front_sd_ratio(posterior, front), *(step.front_sd_ratio for step in steps)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(ratios))


def test_blocks_outside_the_front_are_left_to_the_end() -> None:
    planted, _, candidates, front = problem()
    # No networks: a block outside the front would tell of one inside that shares a measured network with it.
    posterior = fit_posterior(planted.effects, planted.blocks(sorted(planted.known)[:6]), [], PRIOR)
    blocks = [candidate for candidate in candidates if candidate.level == "block"]
    inside = {name for shape, _ in front for name in shape.blocks}
    first = next_measurements(posterior, blocks, front, len(inside) // 2)
    assert {step.subject for step in first} <= inside


def test_planned_measurements_predict_the_front_better_than_random_ones() -> None:
    squares = np.zeros(2)
    for seed in range(12):
        planted, posterior, candidates, front = problem(seed)
        blocks = [candidate for candidate in candidates if candidate.level == "block"]
        planned = [step.subject for step in next_measurements(posterior, blocks, front, 6)]
        drawn = list(np.random.default_rng(seed).choice([block.subject for block in blocks], 6, replace=False))
        truth = np.array([planted.true_ms(shape) for shape, _ in front])
        blocks_before, networks = measured_before(planted)
        for place, names in enumerate((planned, drawn)):
            more = [BlockTime(signature=name, group=OLD, time_ms=planted.alone[name], sd_ratio=0.01) for name in names]
            refitted = fit_posterior(planted.effects, [*blocks_before, *more], networks, PRIOR)
            squares[place] += float((np.log(refitted.network_ms(front)[0] / truth) ** 2).mean())
    assert squares[0] < 0.4 * squares[1]


def test_information_is_the_gain_in_log_determinant() -> None:
    _, posterior, candidates, front = problem()
    blocks = [candidate for candidate in candidates if candidate.level == "block"]
    items = [(block.subject, OLD) for block in blocks]
    steps = choose(posterior, blocks, front, 3, score=Design.information)
    chosen = [items.index((step.subject, OLD)) for step in steps]
    rows = posterior.alone_rows(items)
    among = rows @ posterior.unknowns.covariance @ rows.T

    def log_det(indices: list[int]) -> float:
        picked = among[np.ix_(indices, indices)] / 0.01**2
        return float(np.linalg.slogdet(np.eye(len(indices)) + picked)[1])

    for place in range(3):
        best = max(range(len(items)), key=lambda index: log_det([*chosen[:place], index]))
        assert log_det(chosen[: place + 1]) == pytest.approx(log_det([*chosen[:place], best]))


def test_an_empty_front_is_refused() -> None:
    _, posterior, candidates, _ = problem()
    with pytest.raises(ValueError, match="at least one network"):
        next_measurements(posterior, candidates, [], 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": "network"}, "needs its shape"),
        ({"shape": NetworkShape(blocks=(), weights_mb=0.0)}, "a block has none"),
        ({"cost_s": 0.0}, "cost_s must be above 0"),
    ],
)
def test_senseless_candidates_are_refused(changes: dict, message: str) -> None:  # type: ignore[type-arg]  # fields
    with pytest.raises(ValueError, match=message):
        Candidate(**{"subject": "a", "level": "block", "group": OLD, **changes})
