from __future__ import annotations

import numpy as np
import pytest

from nas.core.cost import Budget, DeviceBudget
from nas.search import acquisition
from nas.search.candidates import Candidates
from nas.search.exact import SlotSum, TabulatedCosts
from nas.search.quality_model import Observations, QualityModel, Scales

SIZES = (4, 4)
TRUTH = SlotSum.of([[0.0, 1.0, 2.0, 3.0], [0.0, 0.5, 1.0, 1.5]])


def costs() -> TabulatedCosts:
    options = np.stack(np.unravel_index(np.arange(16), SIZES), axis=1)
    return TabulatedCosts.measured(SIZES, options, 10.0 + 5.0 * options.sum(axis=1))


def model(rows: np.ndarray) -> QualityModel:
    data = Observations(options=rows, scores=TRUTH.total(rows), errors=np.zeros(len(rows)), sizes=SIZES)
    return QualityModel(data, Scales(single=0.5, pair=0.0, noise=0.01))


def test_each_candidate_is_taken_at_most_once_while_any_is_expected_to_gain() -> None:
    table = costs()
    known, unknown = table.options[::3], np.delete(table.options, np.s_[::3], axis=0)
    candidates = Candidates(unknown, model=model(known), costs=table, budget=Budget(), pending=())
    taken = [candidates.take() for _ in range(len(unknown) + 1)]
    found = [row for row in taken if row is not None]
    assert taken[-1] is None
    assert taken[: len(found)] == found
    assert len(set(found)) == len(found) >= 1
    assert set(found) <= set(map(tuple, unknown.tolist()))


def test_what_is_pending_is_not_looked_for_again() -> None:
    table = costs()
    known = table.options[[0, 1, 4]]
    rest = np.array([row for row in table.options.tolist() if row not in known.tolist()])
    arguments = {"model": model(known), "costs": table, "budget": Budget()}
    first = Candidates(rest, pending=(), **arguments)
    both = first.take(), first.take()
    left = rest[(rest != both[0]).any(axis=1)]
    assert Candidates(left, pending=(both[0],), **arguments).take() == both[1]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, 22.0), (30.0, 30.0)],
    ids=["no limit", "a limit"],
)
def test_corner_is_the_limit_or_beyond_every_candidate(limit: float | None, expected: float) -> None:
    costs, quality = np.array([[20.0, 5.0], [0.0, 5.0]]), np.array([-1.0])
    corner = acquisition.corner(costs, quality, Budget(latency_ms=limit, peak_memory_mb=8.0))
    assert corner == pytest.approx([expected, 8.0, -0.9])


def test_limit_of_the_first_of_several_devices_is_no_corner_of_the_slowest_ones_latency() -> None:
    costs, quality = np.array([[20.0, 5.0], [10.0, 5.0]]), np.array([-1.0])
    budget = Budget(latency_ms=15.0, peak_memory_mb=8.0, devices=(DeviceBudget(device="other", latency_ms=30.0),))
    assert acquisition.corner(costs, quality, budget) == pytest.approx([21.0, 8.0, -0.9])
