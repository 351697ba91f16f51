"""The journal of a search: ``evaluations.jsonl``, append-only, the single truth a search resumes from.

A line holds one evaluation: its architecture as one line of text, its costs with intervals, and no split of the cost
by block or phase, which the cost table gives again. Lines of earlier versions, with the split and with the choices as
an object, are read as well. The file is decoded as a whole, straight into the dataclasses, for speed
(benchmarks/journal_speed.py); where something is wrong ``nas.core.schema`` reads it line by line and says what.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic_core import to_json

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.evaluation import Evaluation
from nas.core.files import JsonLines, canonical_json
from nas.core.schema import from_data, to_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Journal:
    """Evaluations in the order they were appended; a torn last line counts as never written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = JsonLines(path)

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Append evaluations, without the split of their costs, and force them to the disk.

        Raises:
            UnavailableError: The disk is full or the file cannot be written.
            ValueError: A number is not finite.
        """
        if evaluations:
            self._lines.extend_lines(map(_line, evaluations))

    def read(self) -> list[Evaluation]:
        """Return every evaluation, in order.

        Raises:
            InputError: A line is damaged, is no evaluation, or is out of sequence; file and line are named.
        """
        evaluations = self._read()
        for index, evaluation in enumerate(evaluations):
            if evaluation.number != index:
                raise InputError(
                    f"{self.path}: record {index + 1}: evaluation number is {evaluation.number}, expected {index}",
                    hint="a record is missing or was written twice; restore the file or start a new run directory",
                )
        return evaluations

    def _read(self) -> list[Evaluation]:
        if not self.path.exists():
            return []
        try:
            with _no_collections():
                return _decoder().decode_lines(_without_torn_line(self.path.read_bytes()))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return [
                from_data(Evaluation, data, where=f"{self.path}: record {index}", partial=True)
                for index, data in enumerate(self._lines.read(), start=1)
            ]


def _without_torn_line(data: bytes) -> bytes:
    start = data.rfind(b"\n") + 1
    try:
        if start < len(data):
            msgspec.json.decode(data[start:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return data[:start]
    return data


def _line(evaluation: Evaluation) -> bytes:
    kept = replace(evaluation, cost=evaluation.cost.totals())
    line = to_json(kept, fallback=_plain)
    if b"NaN" in line or b"Infinity" in line:
        canonical_json(to_data(kept))  # raises, unless it is only a word of a text
    return line


def _plain(value: Any) -> Any:
    """Return what JSON has for types that are not JSON's own."""
    if isinstance(value, Architecture):
        return value.to_record()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be kept in a journal: {value!r}")


@cache
def _decoder() -> msgspec.json.Decoder[Evaluation]:
    return msgspec.json.Decoder(Evaluation, dec_hook=lambda _, record: Architecture.from_record(record))


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the garbage collector from going through millions of new objects over and over; none are garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
