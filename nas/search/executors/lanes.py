"""Items waiting for a task: how many of them belong in the next one.

A task costs about a millisecond of its own, so cheap items share one; an item of ``TASK_S`` or more has its own. How
long items take is learned from the tasks that came back. A task ends after ``LONGEST_TASK_S`` at the next end of an
item and gives the rest back, so that one slow item never keeps others waiting behind it for longer than it takes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from nas.core.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


TASK_S = 0.1
LONGEST_TASK_S = 2 * TASK_S
# Larger arguments and results than 100 kB leave the task for Ray's object store; an architecture has some 300 bytes.
MOST_ITEMS = 256
_GROWTH = 8

Item = tuple["Hashable", Any]  # key, what the function is called with


@dataclass(slots=True)
class Lane:
    """Items for one function with one reservation.

    Attributes:
        alone: Items whose task was lost with its worker; each gets a task of its own now.
        under_way: Items in tasks.
        seconds_per_item: How long an item takes, None before the first came back.
    """

    function: Callable[[Any], Any]
    resources: Resources
    most_items: int | None = None
    queue: deque[Item] = field(default_factory=deque)
    alone: deque[Item] = field(default_factory=deque)
    under_way: int = 0
    tasks: int = 0
    seconds_per_item: float | None = None
    _largest: int = 1

    def __len__(self) -> int:
        return len(self.queue) + len(self.alone)

    @property
    def items_per_task(self) -> int:
        """Items that belong in one task, were there enough of them."""
        if self.most_items is not None:
            return self.most_items
        if self.seconds_per_item is None:
            return 1
        fitting = int(TASK_S / max(self.seconds_per_item, 1e-9))
        return max(1, min(fitting, _GROWTH * self._largest, MOST_ITEMS))

    def take(self, slots: int) -> list[Item]:
        """Take the items of the next task, and leave some for the other slots."""
        if self.alone:
            taken = [self.alone.popleft()]
        else:
            share = self.most_items or ceil(len(self.queue) / slots)
            count = min(self.items_per_task, share, len(self.queue))
            taken = [self.queue.popleft() for _ in range(count)]
        self._largest = max(self._largest, len(taken))
        self.under_way += len(taken)
        self.tasks += 1
        return taken

    def came_back(self, items: Sequence[Item], finished: int, seconds: float) -> None:
        """Note the end of a task that finished its first items; the rest is queued again, in front."""
        self.end(items)
        self.queue.extendleft(reversed(items[finished:]))
        per_item = seconds / max(1, finished)
        before = per_item if self.seconds_per_item is None else self.seconds_per_item
        self.seconds_per_item = 0.5 * (before + per_item)

    def was_lost(self, items: Sequence[Item]) -> bool:
        """Note the loss of a task; return whether its items are queued again, because one alone may be to blame."""
        self.end(items)
        if len(items) == 1:
            return False
        self.alone.extend(items)
        return True

    def end(self, items: Sequence[Item]) -> None:
        """Note the end of a task, whatever became of it."""
        self.under_way -= len(items)
        self.tasks -= 1


def run_items(function: Callable[[Any], Any], items: Sequence[Any]) -> tuple[list[Any], float]:
    """Run on a worker: the results of the first items, and the seconds they took together."""
    start = time.perf_counter()
    results = []
    for item in items:
        results.append(function(item))
        if time.perf_counter() - start > LONGEST_TASK_S:
            break
    return results, time.perf_counter() - start
