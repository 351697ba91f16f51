from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.core.resources import Resources
from nas.search.executors import lanes
from nas.search.executors.lanes import LONGEST_TASK_S, MOST_ITEMS, TASK_S, Lane, run_items


def filled(count: int, most_items: int | None = None) -> Lane:
    lane = Lane(abs, Resources(), most_items)
    lane.queue.extend((number, number) for number in range(count))
    return lane


def drain(lane: Lane, seconds_per_item: float, slots: int = 2) -> list[int]:
    """Sizes of the tasks when each comes back before the next is sent."""
    sizes = []
    while lane:
        items = lane.take(slots)
        sizes.append(len(items))
        lane.came_back(items, len(items), seconds_per_item * len(items))
    return sizes


def test_cheap_items_share_tasks_soon() -> None:
    sizes = drain(filled(20_000), 1e-5)
    assert sizes[:4] == [1, 8, 64, MOST_ITEMS]
    assert len(sizes) < 100
    assert sizes[-1] == 1  # the last ones are shared among the workers


def test_dear_items_have_a_task_each() -> None:
    assert drain(filled(30), 2 * TASK_S) == [1] * 30


def test_items_of_some_milliseconds_fill_a_task_and_no_more() -> None:
    sizes = drain(filled(500), 0.02)
    assert max(sizes) == int(TASK_S / 0.02)


def test_stated_number_of_items_is_kept() -> None:
    assert drain(filled(10, most_items=4), 5.0) == [4, 4, 2]


def test_slow_start_of_a_worker_is_forgotten() -> None:
    lane = filled(10_000)
    first = lane.take(2)
    lane.came_back(first, 1, 3.0)
    assert lane.items_per_task == 1
    assert max(drain(lane, 1e-5)) == MOST_ITEMS


@given(st.lists(st.tuples(st.sampled_from(["whole", "part", "lost"]), st.integers(0, 3)), max_size=60))
def test_every_item_comes_back_once_whatever_is_lost(ends: list[tuple[str, int]]) -> None:
    lane, under_way, back = filled(40), [], []

    def end(how: str, which: int) -> None:
        items: list[Any] = under_way.pop(which % len(under_way))
        if how == "lost" and lane.was_lost(items):
            return
        finished = 1 if how == "part" else len(items)
        if how != "lost":
            lane.came_back(items, finished, 1e-4)
        back.extend(key for key, _ in items[:finished])

    for how, which in ends:
        while lane and lane.tasks < 4:
            under_way.append(lane.take(2))
        if under_way:
            end(how, which)
    while lane or under_way:
        if lane:
            under_way.append(lane.take(2))
        end("whole", 0)
    assert sorted(back) == list(range(40))
    assert (lane.tasks, lane.under_way) == (0, 0)


def test_lost_items_are_tried_alone() -> None:
    lane = filled(3, most_items=3)
    assert lane.was_lost(lane.take(1))
    assert [lane.take(1) for _ in range(3)] == [[(0, 0)], [(1, 1)], [(2, 2)]]
    assert not lane.was_lost([(1, 1)])


def test_task_gives_the_rest_back_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(lanes.time, "perf_counter", lambda: clock[0])

    def slow(item: int) -> int:
        clock[0] += 0.6 * LONGEST_TASK_S
        return item

    results, seconds = run_items(slow, [5, 6, 7, 8])
    assert results == [5, 6]
    assert seconds == pytest.approx(1.2 * LONGEST_TASK_S)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpus": -1.0}, "cpus must be finite and not negative"),
        ({"cpus": 0.0}, "got none of both"),
        ({"gpus": 1.5}, "whole number above 1, got 1.5"),
        ({"memory_mb": float("nan")}, "memory_mb must be finite"),
    ],
)
def test_resources_of_nothing_or_parts_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resources(**changes)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (Resources(), "1 processors"),
        (Resources(gpus=2), "1 processors and 2 GPUs"),
        (Resources(cpus=0.5, gpus=0.25, memory_mb=4000), "0.5 processors, 0.25 GPUs and 4000 MB"),
    ],
)
def test_resources_in_words(resources: Resources, words: str) -> None:
    assert str(resources) == words
