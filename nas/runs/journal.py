"""The journal of a search: ``evaluations.jsonl``, append-only, the single truth a search resumes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.errors import InputError
from nas.core.evaluation import Evaluation
from nas.core.files import JsonLines
from nas.core.schema import from_data, to_data

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Journal:
    """Evaluations in ask order, one JSON line each; a torn last line counts as never written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = JsonLines(path)

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Append evaluations and force them to the disk.

        Raises:
            UnavailableError: The disk is full or the file cannot be written.
        """
        if evaluations:
            self._lines.extend(to_data(evaluation) for evaluation in evaluations)

    def read(self) -> list[Evaluation]:
        """Return every evaluation, in order.

        Raises:
            InputError: A line is damaged, is no evaluation, or is out of sequence; file and line are named.
        """
        evaluations = []
        for index, data in enumerate(self._lines.read()):
            where = f"{self.path}: record {index + 1}"
            evaluation = from_data(Evaluation, data, where=where)
            if evaluation.number != index:
                raise InputError(
                    f"{where}: evaluation number is {evaluation.number}, expected {index}",
                    hint="a record is missing or was written twice; restore the file or start a new run directory",
                )
            evaluations.append(evaluation)
        return evaluations
