"""Sensitivities recover planted effects of single slots and of pairs."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest

import search_spaces
from nas.quality.sensitivity import SensitivityQuality, measure_sensitivities

if TYPE_CHECKING:
    from collections.abc import Sequence

SPACE = search_spaces.get("tiny")
SLOTS = SPACE.slots()
SIZE = len(SPACE.options("mid.0"))
KINDS = [str(option["mid.0.kind"]) for option in SPACE.options("mid.0")]
NAMES = list(dict.fromkeys(KINDS))
EMPTY, LARGEST = SPACE.to_options(SPACE.smallest()), SPACE.to_options(SPACE.largest())
RANDOM = np.random.default_rng(0).integers(SIZE, size=(40, len(SLOTS)))


class Planted:
    """A loss made of effects of options, and of pairs of kinds where asked; empty slots have no part in any."""

    def __init__(self, *, pairs: bool) -> None:
        rng = np.random.default_rng(3)
        self.single = rng.normal(size=(len(SLOTS), SIZE))
        self.single[:, 0] = 0.0
        self.pair = rng.normal(size=(len(SLOTS), len(SLOTS), len(NAMES), len(NAMES))) * pairs
        self.pair[:, :, 0, :] = self.pair[:, :, :, 0] = 0.0
        self.calls = 0

    def __call__(self, options: Sequence[int]) -> float:
        self.calls += 1
        kinds = [NAMES.index(KINDS[option]) for option in options]
        alone = sum(self.single[place, option] for place, option in enumerate(options))
        together = sum(self.pair[a, b, kinds[a], kinds[b]] for a, b in combinations(range(len(SLOTS)), 2))
        return float(2.0 + alone + together)


@pytest.mark.parametrize("reference", [EMPTY, LARGEST])
def test_single_effects_are_recovered(reference: tuple[int, ...]) -> None:
    loss = Planted(pairs=False)
    found = measure_sensitivities(SPACE, loss, reference=reference)
    assert [found.score(row) for row in RANDOM] == pytest.approx([-loss(row) for row in RANDOM])


def test_effects_of_pairs_of_kinds_are_recovered_and_needed() -> None:
    loss = Planted(pairs=True)
    found = measure_sensitivities(SPACE, loss, reference=EMPTY, pairs=True)
    alone = measure_sensitivities(SPACE, loss, reference=EMPTY)
    truth = [-loss(row) for row in RANDOM]
    assert [found.score(row) for row in RANDOM] == pytest.approx(truth)
    assert [alone.score(row) for row in RANDOM] != pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize(("pairs", "wanted"), [(False, 1 + 5 * 22), (True, 1 + 5 * 22 + 10 * 36)])
def test_number_of_losses_is_stated(pairs: bool, wanted: int) -> None:
    loss = Planted(pairs=pairs)
    found = measure_sensitivities(SPACE, loss, reference=EMPTY, pairs=pairs)
    assert (found.evaluations, loss.calls) == (wanted, wanted)


def test_estimate_is_the_score_of_the_options() -> None:
    found = measure_sensitivities(SPACE, Planted(pairs=False), reference=LARGEST)
    quality = SensitivityQuality(SPACE, found, fidelity="a test")
    architecture = SPACE.from_options(RANDOM[0])
    assert quality.estimate(architecture).score == pytest.approx(found.score(RANDOM[0]))
    assert quality.estimate(architecture).fidelity == "single changes, 111 losses of a test"
