"""Runs items one after the other in this process; the default, and the one to debug with."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from nas.core.resources import Resources

T = TypeVar("T")
R = TypeVar("R")


# Each answer is written to the disk, which takes milliseconds; work of less than this is not worth that by itself.
TOGETHER_S = 0.05


class SerialExecutor:
    """Calls the function when its result is waited for, in the order of submission; resources do not matter."""

    def __init__(self, *, together_s: float = TOGETHER_S) -> None:
        """Note the settings.

        Args:
            together_s: Items are run together until this time has passed; 0 for one at a time.
        """
        self._together_s = together_s
        self._queue: deque[tuple[Hashable, Callable[[Any], Any], Any]] = deque()
        self._failure: BaseException | None = None

    def prepare(self, requests: Sequence[Resources]) -> None:
        """Do nothing: this process runs anything."""

    def submit(
        self,
        key: Hashable,
        function: Callable[[T], R],
        item: T,
        resources: Resources | None = None,  # noqa: ARG002  # the protocol's
    ) -> None:
        """Take an item to run."""
        self._queue.append((key, function, item))

    def wait(self) -> list[tuple[Hashable, Any]]:
        """Run the next item, and cheap ones after it, and return their results.

        Raises:
            ValueError: Nothing was submitted.
        """
        if not self._queue and self._failure is None:
            raise ValueError("nothing was submitted to wait for")
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        results: list[tuple[Hashable, Any]] = []
        end = time.perf_counter() + self._together_s
        while self._queue and (not results or time.perf_counter() < end):
            key, function, item = self._queue.popleft()
            try:
                results.append((key, function(item)))
            except BaseException as error:
                if not results:
                    raise
                self._failure = error  # what has finished is not lost; the next call raises it
                break
        return results

    def room(self, resources: Resources | None = None) -> int:  # noqa: ARG002  # the protocol's
        """Return 1 while nothing is submitted, and one less for every item."""
        return 1 - len(self._queue)

    def close(self) -> None:
        """Forget what was submitted."""
        self._queue.clear()
        self._failure = None
