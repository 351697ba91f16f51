from __future__ import annotations

from operator import le

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.search.exact import dominance


def front_by_definition(rows: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    return {row for row in rows if not any(other != row and all(map(le, other, row)) for other in rows)}


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


@settings(deadline=None)
@given(data=st.data(), num_columns=st.integers(1, 4), size=st.integers(0, 60), num_groups=st.integers(1, 5))
def test_groups_keep_their_own_fronts_in_order(
    data: st.DataObject, num_columns: int, size: int, num_groups: int
) -> None:
    rows = [tuple(data.draw(st.integers(0, 6)) for _ in range(num_columns)) for _ in range(size)]
    groups = [data.draw(st.integers(0, num_groups - 1)) for _ in range(size)]
    columns = [np.array([row[index] for row in rows], dtype=float) for index in range(num_columns)]
    kept = dominance.keep(columns, np.array(groups, dtype=np.int64))
    expected = [
        (group, *row)
        for group in range(num_groups)
        for row in sorted(front_by_definition([row for row, own in zip(rows, groups, strict=True) if own == group]))
    ]
    assert [(groups[index], *rows[index]) for index in kept] == expected


@pytest.mark.parametrize("num_columns", [4, 5])
def test_many_points_with_ties_in_more_than_three_columns(num_columns: int) -> None:
    points = np.random.default_rng(0).integers(0, 12, size=(3000, num_columns)).astype(float)
    rows = sorted(set(map(tuple, points.tolist())))
    expected = sorted(front_by_definition(rows))
    assert [tuple(points[index]) for index in dominance.keep(list(points.T))] == expected


@pytest.mark.parametrize("num_columns", [3, 4])
def test_front_of_many_points_is_that_of_a_comparison_of_all_pairs(num_columns: int) -> None:
    points = np.random.default_rng(0).normal(size=(1500, num_columns))
    below = (points[:, None, :] <= points[None, :, :]).all(axis=2)
    expected = np.flatnonzero(below.sum(axis=0) == 1)  # only itself
    assert sorted(dominance.keep(list(points.T)).tolist()) == expected.tolist()
