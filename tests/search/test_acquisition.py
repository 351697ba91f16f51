from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.core.pareto import hypervolume
from nas.search.acquisition import MOST_SLABS, expected_gains, gains

REFERENCE = np.array([10.0, 8.0, 5.0])


points = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 9), st.integers(-4, 6)).map(lambda row: tuple(map(float, row))),
    max_size=12,
)


@settings(deadline=None, max_examples=100)
@given(candidates=points, known=points)
def test_gain_is_the_difference_of_two_hypervolumes(
    candidates: list[tuple[float, ...]], known: list[tuple[float, ...]]
) -> None:
    before = hypervolume(known, REFERENCE)
    expected = [hypervolume([*known, candidate], REFERENCE) - before for candidate in candidates]
    found = gains(np.array(candidates).reshape(-1, 3), np.array(known).reshape(-1, 3), REFERENCE)
    assert found == pytest.approx(expected, abs=1e-9)


def test_gains_over_many_memory_values_are_close() -> None:
    rng = np.random.default_rng(0)
    candidates, known = rng.uniform(0, 5, size=(200, 3)), rng.uniform(0, 5, size=(3, 3))
    known[:, 2] += 3  # mostly dominated, so that there is something to gain
    before = hypervolume(known.tolist(), REFERENCE)
    exact = np.array([hypervolume([*known.tolist(), row], REFERENCE) - before for row in candidates.tolist()])
    found = gains(candidates, known, REFERENCE)
    assert len(np.unique(candidates[:, 1])) > MOST_SLABS
    assert np.corrcoef(found, exact)[0, 1] > 0.99


def test_expected_gain_equals_the_mean_gain_of_draws() -> None:
    rng = np.random.default_rng(4)
    known, costs = rng.uniform(0, 10, (6, 3)), rng.uniform(0, 8, (5, 2))
    mean, deviation = rng.uniform(0, 5, 5), rng.uniform(0.2, 2.5, 5)
    draws = mean + deviation * rng.normal(size=(4000, 5))
    simulated = [gains(np.column_stack([costs, draw]), known, REFERENCE) for draw in draws]
    expected = expected_gains(costs, mean, deviation, known, REFERENCE)
    errors = np.std(simulated, axis=0) / np.sqrt(len(draws))
    assert (np.abs(np.mean(simulated, axis=0) - expected) < 5 * errors + 1e-9).all()
