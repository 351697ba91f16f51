"""Look-up tables against the exact optimum of coremltools' own clustering, and against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nas.core.errors import InputError, UnavailableError
from nas.export.compression.tables import fit_table, fit_tables, looked_up, nearest_entries, value_counts
from nas.export.shims import load_coremltools

RANDOM = np.random.default_rng(5)
NORMAL = (0.02 * RANDOM.standard_normal((24, 500))).astype(np.float16)
FLAT = RANDOM.uniform(-0.05, 0.05, (20, 500)).astype(np.float16)
TAILS = (0.02 * RANDOM.standard_t(3, (24, 500))).astype(np.float16)


def squared_error(weight: np.ndarray[Any, Any], table: np.ndarray[Any, Any]) -> float:
    values, counts = np.unique(weight.astype(np.float64), return_counts=True)
    return float(np.sum(counts * np.abs(values[:, None] - table.astype(np.float64)).min(axis=1) ** 2))


@pytest.mark.parametrize("weight", [NORMAL, TAILS, FLAT], ids=["normal", "heavy tails", "uniform"])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_table_has_the_error_of_the_exact_optimum(weight: np.ndarray[Any, Any], bits: int) -> None:
    load_coremltools()
    from coremltools._deps import _kmeans1d

    values, counts = np.unique(weight.astype(np.float64), return_counts=True)
    exact = np.array(_kmeans1d.cluster(values, 1 << bits, weights=counts).centroids).astype(np.float16)
    assert squared_error(weight, fit_table(weight, bits)) == pytest.approx(squared_error(weight, exact), rel=0.01)


def test_table_without_the_clustering_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    load_coremltools()
    monkeypatch.setattr("coremltools._deps._kmeans1d", None)
    with pytest.raises(UnavailableError, match="no one-dimensional clustering"):
        fit_table(NORMAL, 4)


def test_table_keeps_every_value_of_a_weight_with_few() -> None:
    weight = np.array([[0.5, -1.0, 0.5], [0.0, -0.0, 2.0]], dtype=np.float16)
    table = fit_table(weight, 3)
    assert table.dtype == np.float16
    assert len(table) == 8
    np.testing.assert_array_equal(table[nearest_entries(weight, table)], weight)


def test_indices_are_those_of_the_nearest_entry() -> None:
    table = np.array([-1.0, -0.25, 0.5, 3.0], dtype=np.float16)
    weight = RANDOM.standard_normal((7, 9)).astype(np.float16)
    by_hand = np.abs(weight[..., None].astype(np.float64) - table.astype(np.float64)).argmin(axis=-1)
    np.testing.assert_array_equal(nearest_entries(weight, table), by_hand)


def test_counts_are_those_of_numpy() -> None:
    values, counts = np.unique(NORMAL.reshape(-1).view(np.uint16), return_counts=True)
    found = value_counts(NORMAL)
    np.testing.assert_array_equal(found[values], counts)
    assert found.sum() == NORMAL.size


def test_weight_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="infinite or no number"):
        fit_table(np.array([1.0, np.inf, 2.0], dtype=np.float16), 1)


def test_every_group_of_channels_has_its_own_table() -> None:
    weight = np.concatenate([NORMAL[:, :8], 100 * NORMAL[:, :8]], axis=1)  # groups along the second axis
    tables = fit_tables(weight, 2, axis=1, group_size=8)
    assert tables.shape == (2, 4)
    np.testing.assert_array_equal(tables[0], fit_table(weight[:, :8], 2))
    dense = looked_up(weight, tables, axis=1, group_size=8)
    np.testing.assert_array_equal(dense[:, 8:], tables[1][nearest_entries(weight[:, 8:], tables[1])])
