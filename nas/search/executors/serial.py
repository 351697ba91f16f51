"""Runs items one after the other in this process; the default, and the one to debug with."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from nas.core.resources import Resources

T = TypeVar("T")
R = TypeVar("R")


class SerialExecutor:
    """Calls the function when its result is waited for, in the order of submission; resources do not matter."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Hashable, Callable[[Any], Any], Any]] = deque()

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
        """Run the next item and return its result.

        Raises:
            ValueError: Nothing was submitted.
        """
        if not self._queue:
            raise ValueError("nothing was submitted to wait for")
        key, function, item = self._queue.popleft()
        return [(key, function(item))]

    def room(self, resources: Resources | None = None) -> int:  # noqa: ARG002  # the protocol's
        """Return 1 while nothing is submitted."""
        return 0 if self._queue else 1

    def close(self) -> None:
        """Forget what was submitted."""
        self._queue.clear()
