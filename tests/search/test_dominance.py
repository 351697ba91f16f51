from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.search.exact import dominance


def front_by_definition(rows: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    return {row for row in rows if not any(all(map(int.__le__, other, row)) and other != row for other in rows)}


@settings(deadline=None)
@given(data=st.data(), num_columns=st.integers(1, 5), size=st.integers(0, 60), largest=st.integers(0, 8))
def test_front_is_the_set_of_points_that_no_other_dominates(
    data: st.DataObject, num_columns: int, size: int, largest: int
) -> None:
    rows = [tuple(data.draw(st.integers(0, largest)) for _ in range(num_columns)) for _ in range(size)]
    columns = [np.array([row[index] for row in rows], dtype=float) for index in range(num_columns)]
    kept = [rows[index] for index in dominance.keep(columns)]
    assert set(kept) == front_by_definition(rows)
    assert kept == sorted(set(kept))


@pytest.mark.parametrize("num_columns", [3, 4])
def test_front_of_many_points_is_that_of_a_comparison_of_all_pairs(num_columns: int) -> None:
    points = np.random.default_rng(0).normal(size=(1500, num_columns))
    below = (points[:, None, :] <= points[None, :, :]).all(axis=2)
    expected = np.flatnonzero(below.sum(axis=0) == 1)  # only itself
    assert sorted(dominance.keep(list(points.T)).tolist()) == expected.tolist()
