"""``search/explain.json``: what drove a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.explanation import Explanation
from nas.core.files import read_json, write_json
from nas.core.schema import check_schema, from_data, to_data, with_schema

if TYPE_CHECKING:
    from pathlib import Path


def write_explanation(path: Path, explanation: Explanation) -> None:
    """Write ``explanation`` atomically."""
    write_json(path, with_schema("explanation", 1, to_data(explanation)))


def read_explanation(path: Path) -> Explanation:
    """Read an explanation.

    Raises:
        InputError: The file is missing, damaged or of another version.
    """
    return from_data(Explanation, check_schema(read_json(path), "explanation", 1, where=str(path)), where=str(path))
