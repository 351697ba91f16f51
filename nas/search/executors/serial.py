"""Runs items one after the other in this process; the default, and the one to debug with."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")


class SerialExecutor:
    """Calls the function when its result is asked for."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield results in item order."""
        return (function(item) for item in items)
