"""Probes of options that were hardly tried."""

from __future__ import annotations

import numpy as np

from nas.core.cost import Budget
from nas.search.exact import AdditiveCosts, SlotSum
from nas.search.probing import probe
from nas.search.quality_model import Observations, QualityModel, Scales

SIZES = (3, 3, 3, 3)
LATENCY = SlotSum.of([[0.0, 1.0, 2.0]] * 4, base=1.0)
COSTS = AdditiveCosts(latency_ms=LATENCY, activation_mb=tuple(np.zeros(3) for _ in SIZES))
NO_LIMIT = Budget()


def model_of(judged: np.ndarray) -> QualityModel:
    observations = Observations(
        options=judged, scores=judged.sum(axis=1).astype(float), errors=np.zeros(len(judged)), sizes=SIZES
    )
    return QualityModel(observations, Scales())


def ask(judged: np.ndarray, budget: Budget = NO_LIMIT, extra: tuple[tuple[int, ...], ...] = ()):
    model = model_of(judged)
    known = {tuple(row) for row in judged.tolist()} | set(extra)
    return probe(judged[:4], judged, model.mean(), known=known, model=model, costs=COSTS, budget=budget)


def judged_without_last_option_of_slot_2() -> np.ndarray:
    every = np.array(np.meshgrid([0, 1, 2], [0, 1, 2], [0, 1], [0, 1, 2], indexing="ij")).reshape(4, -1).T
    return every[::2]


def test_a_probe_holds_the_option_nobody_tried_in_a_design_otherwise_known() -> None:
    judged = judged_without_last_option_of_slot_2()
    row = ask(judged)
    assert row is not None
    assert row[2] == 2
    assert min(int((np.array(row) != parent).sum()) for parent in judged[:4]) == 1


def test_no_probe_when_every_option_was_tried_often() -> None:
    every = np.array(np.meshgrid(*[[0, 1, 2]] * 4, indexing="ij")).reshape(4, -1).T
    assert ask(every[::2]) is None


def test_a_probe_keeps_the_budget_and_is_new() -> None:
    judged = judged_without_last_option_of_slot_2()
    first = ask(judged)
    assert first is not None
    limit = float(COSTS.score(np.array([first])).latency_ms[0]) - 0.5
    second = ask(judged, Budget(latency_ms=limit))
    assert second is None or COSTS.score(np.array([second])).latency_ms[0] <= limit
    assert ask(judged, extra=(first,)) != first
