"""Sensitivities from a file: how much quality changes when one slot holds something instead of nothing.

CSV, with a header and one change a line; ``option`` counts from 0 in the order of ``space.options(slot)``, ``kind``
stands for every option of that kind, and a line with both or neither is a fault. An option's own line goes before its
kind's::

    slot,kind,option,change
    down0.0,conv1d,,0.012
    mid.0,,7,0.03

JSON, the same as objects, and the space they hold for::

    {"schema": "nas/sensitivities/1", "space": "tiny/1",
     "changes": [{"slot": "down0.0", "kind": "conv1d", "change": 0.012},
                 {"slot": "mid.0", "option": 7, "change": 0.03}]}

``change`` is against option 0 of the slot, in any unit: a search learns what one is worth. Options that no line speaks
of count as the mean of those of their slot.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import InputError
from nas.search.exact import SlotSum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from nas.core.protocols import SearchSpace

SCHEMA = "nas/sensitivities/1"
_COLUMNS = ("slot", "kind", "option", "change")
_MOST_FAULTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    place: str
    slot: str
    kind: str | None
    option: str | None
    change: str


def read_sensitivities(path: Path, space: SearchSpace) -> SlotSum:
    """Return a file's changes by slot and option.

    Raises:
        InputError: The file is missing, of another space or version, or has lines that the space does not know; all
            faults are named with their line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist", hint="name a sensitivities file or a run directory") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from error
    rows = list(_json_rows(path, text, space) if path.suffix == ".json" else _csv_rows(path, text))
    if not rows:
        raise InputError(f"{path}: holds no change", hint=f"give lines of {','.join(_COLUMNS)}")
    return _table(path, rows, space)


def _csv_rows(path: Path, text: str) -> Iterator[_Row]:
    reader = csv.DictReader(text.splitlines())
    names = tuple(reader.fieldnames or ())
    unknown = [name for name in names if name not in _COLUMNS]
    missing = [name for name in ("slot", "change") if name not in names]
    if unknown or missing or not {"kind", "option"} & set(names):
        raise InputError(
            f"{path}: line 1: columns must be {', '.join(_COLUMNS)}, of which kind or option may be missing, "
            f"got {', '.join(names) or 'none'}"
        )
    for row in reader:
        if None in row or None in row.values():
            raise InputError(f"{path}: line {reader.line_num}: needs {len(names)} fields, as the header has")
        yield _Row(
            place=f"line {reader.line_num}",
            slot=row["slot"].strip(),
            kind=(row.get("kind") or "").strip() or None,
            option=(row.get("option") or "").strip() or None,
            change=row["change"].strip(),
        )


def _json_rows(path: Path, text: str, space: SearchSpace) -> Iterator[_Row]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}: is not JSON: {error.msg}") from error
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA:
        raise InputError(f"{path}: schema is {found!r}, this version reads {SCHEMA!r}")
    if data.get("space") != space.identifier:
        raise InputError(f"{path}: holds for space {data.get('space')!r}, the run searches {space.identifier!r}")
    changes = data.get("changes")
    if not isinstance(changes, list) or not all(isinstance(change, dict) for change in changes):
        raise InputError(f"{path}: 'changes' must be a list of objects with {', '.join(_COLUMNS)}")
    for number, change in enumerate(changes, start=1):
        unknown = sorted(set(change) - set(_COLUMNS))
        if unknown:
            raise InputError(f"{path}: change {number}: unknown key {unknown[0]!r}; known are {', '.join(_COLUMNS)}")
        yield _Row(
            place=f"change {number}",
            slot=str(change.get("slot", "")),
            kind=_text(change.get("kind")),
            option=_text(change.get("option")),
            change=_text(change.get("change")) or "",
        )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _table(path: Path, rows: Sequence[_Row], space: SearchSpace) -> SlotSum:
    slots = space.slots()
    faults: list[str] = []
    given: dict[tuple[str, int], float] = {}
    seen: dict[tuple[str, str | None, str | None], str] = {}
    for row in sorted(rows, key=lambda row: row.option is not None):  # kinds first: an option's own line wins
        try:
            key = (row.slot, row.kind, row.option)
            if key in seen:
                raise ValueError(f"speaks of the same as {seen[key]}")
            seen[key] = row.place
            change = _number(row.change)
            given |= dict.fromkeys(((row.slot, option) for option in _options(row, space)), change)
        except ValueError as error:
            faults.append(f"{row.place}: {error}")
    if faults:
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError(f"{path}: {'; '.join(faults[:_MOST_FAULTS])}{more}")
    table = []
    for slot in slots:
        size = len(space.options(slot))
        known = {option: change for (name, option), change in given.items() if name == slot}
        others = float(np.mean(list(known.values()))) if known else 0.0
        table.append([known.get(option, others if option else 0.0) for option in range(size)])
    return SlotSum.of(table)


def _options(row: _Row, space: SearchSpace) -> list[int]:
    """Return the options that a row speaks of.

    Raises:
        ValueError: There are none.
    """
    if row.slot not in space.slots():
        raise ValueError(_unknown("slot", row.slot, space.slots()))
    if (row.kind is None) == (row.option is None):
        raise ValueError("needs a kind or an option, and not both")
    options = space.options(row.slot)
    if row.kind is not None:
        kinds = [str(option.get(f"{row.slot}.kind")) for option in options]
        if row.kind not in kinds:
            raise ValueError(_unknown(f"kind of slot {row.slot!r}", row.kind, dict.fromkeys(kinds)))
        return [index for index, kind in enumerate(kinds) if kind == row.kind]
    if not str(row.option).isdigit() or int(str(row.option)) >= len(options):
        raise ValueError(f"option of slot {row.slot!r} must be 0 to {len(options) - 1}, got {row.option!r}")
    return [int(str(row.option))]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise ValueError(f"change must be a finite number, got {text!r}")
    return value


def _unknown(what: str, given: str, known: Iterable[str]) -> str:
    names = list(known)
    close = get_close_matches(given, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {given!r}, known are {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}{hint}"
