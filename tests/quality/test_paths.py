"""Which paths a supernet's step trains under each rule."""

from __future__ import annotations

from collections import Counter

import pytest

import search_spaces
from nas.core.rng import RandomStreams
from nas.quality.options import SupernetOptions
from nas.quality.paths import step_paths

SPACE = search_spaces.get("tiny")
STREAMS = RandomStreams(1)
KIND = [f"{slot}.kind" for slot in SPACE.slots()]
EMPTY = SPACE.to_options(SPACE.smallest())
LARGEST = SPACE.to_options(SPACE.largest())


def paths(step: int, **options: object) -> list[tuple[int, ...]]:
    return step_paths(SPACE, step, options=SupernetOptions(**options), streams=STREAMS)  # type: ignore[arg-type]


def test_a_fair_step_trains_one_path() -> None:
    assert [len(paths(step)) for step in range(5)] == [1] * 5


@pytest.mark.parametrize("num", [0, 1, 3])
def test_every_step_of_a_sandwich_trains_the_largest_the_empty_and_random_networks(num: int) -> None:
    for step in range(30):
        first, *others, last = paths(step, rule="sandwich", random_paths=num)
        assert (first, len(others), last) == (LARGEST, num, EMPTY)


def test_a_filled_sandwich_has_a_layer_in_every_slot_of_its_first_path_and_is_fair_to_kinds() -> None:
    first = [paths(step, rule="filled_sandwich")[0] for step in range(6 * 4)]
    for position in range(len(EMPTY)):
        kinds = Counter(SPACE.options(SPACE.slots()[position])[path[position]][KIND[position]] for path in first)
        assert kinds == dict.fromkeys(kinds, 4)
        assert len(kinds) == 6


def test_random_paths_leave_slots_empty_as_often_as_told() -> None:
    drawn = [paths(step, rule="sandwich", random_paths=2, drop_ratio=0.4)[1:-1] for step in range(230)]
    empty = [option == 0 for step in drawn for path in step for option in path]
    wanted = 0.4 + 0.6 / 7  # dropped, or drawn empty
    assert sum(empty) / len(empty) == pytest.approx(wanted, abs=0.03)  # 2,300 draws: standard deviation 0.01


def test_random_paths_of_one_step_differ() -> None:
    assert all(len(set(paths(step, rule="sandwich", random_paths=3)[1:-1])) == 3 for step in range(10))


def test_dropping_nothing_is_the_plain_fair_path() -> None:
    assert [paths(step, drop_ratio=0.0) for step in range(9)] == [paths(step) for step in range(9)]
