"""``outcomes.jsonl``: what finished behind an unfinished candidate and cannot be in the ordered journal yet.

The journal of a synchronous search keeps ask order, so that it does not depend on the number of workers. An outcome
that comes out of turn is kept here at once; a search that goes on finds it and does not pay for it again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nas.core.errors import UnavailableError
from nas.core.evaluation import FinishedOutcome
from nas.core.files import JsonLines
from nas.core.schema import from_data, to_data

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Outcomes:
    """One JSON line each; a torn last line counts as never written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = JsonLines(path)
        self._empty = not path.exists() or path.stat().st_size == 0

    def append(self, outcomes: Sequence[FinishedOutcome]) -> None:
        """Append outcomes and force them to the disk.

        Raises:
            UnavailableError: The disk is full or the file cannot be written.
        """
        if outcomes:
            self._empty = False
            self._lines.extend(to_data(outcome) for outcome in outcomes)

    def read(self) -> list[FinishedOutcome]:
        """Return every outcome, in the order they finished.

        Raises:
            InputError: A line is damaged or is no outcome; file and line are named.
        """
        return [
            from_data(FinishedOutcome, data, where=f"{self.path}: record {index}")
            for index, data in enumerate(self._lines.read(), start=1)
        ]

    def clear(self) -> None:
        """Forget every outcome, once the journal holds them.

        Raises:
            UnavailableError: The file cannot be written.
        """
        if self._empty:
            return
        try:
            os.truncate(self.path, 0)
        except OSError as error:
            raise UnavailableError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        self._empty = True
