"""What every importer takes and returns, and how it names a faulty row without losing the others."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latency_models.importers.kits import KitManifest
from latency_models.record_checks import Located
from nas.core.errors import InputError, Problem
from nas.core.scenario import ComputeUnits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nas.core.profile import ProfileRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the user says of a file where the file itself does not.

    Attributes:
        scenario: ``call_label`` of records that state none.
        device: Device name, or the maker's product identifier, of records that state none.
        unit: Time unit of figures that state none.
        subject: Block signature, architecture text or model name that a compute plan is of.
        compute_units: Requested units of records that state none.
        kits: Profiling kits of the run that the records are for, by name. Lines of the runner on the phone are then
            held against them, and refused where they were taken in a way that says nothing of the phone; None reads
            them as they are.
    """

    scenario: str = ""
    device: str | None = None
    unit: str | None = None
    subject: str | None = None
    compute_units: ComputeUnits | None = None
    kits: Mapping[str, KitManifest] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceFigure:
    """A published constant of a device that is no time of a network: a bandwidth, a rate, a limit."""

    device: str
    quantity: str
    value: float
    unit: str
    source: str
    licence: str
    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """Records with their lines, faults of rows that were left out, and remarks on what was not read."""

    located: tuple[Located, ...]
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()
    figures: tuple[ReferenceFigure, ...] = ()

    @property
    def records(self) -> tuple[ProfileRecord, ...]:
        """The records alone."""
        return tuple(item.record for item in self.located)


@dataclass(slots=True)
class Rows:
    """Collects what the rows of one file give."""

    file: str
    located: list[Located] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    figures: list[ReferenceFigure] = field(default_factory=list)

    @contextmanager
    def row(self, line: int | None) -> Iterator[None]:
        """Turn what a row raises into a fault with its line."""
        try:
            yield
        except InputError as error:
            self.fault(line, error.message)
        except KeyError as error:
            self.fault(line, f"{error.args[0]!r} is missing")
        except (ValueError, TypeError) as error:
            self.fault(line, str(error))
        except (AttributeError, IndexError) as error:  # a list or a number where the format has an object
            self.fault(line, f"is not built as its format says: {error}")

    def fault(self, line: int | None, message: str) -> None:
        """Note one fault."""
        self.problems.append(Problem(message=message, file=self.file, line=line))

    def keep(self, record: ProfileRecord, line: int | None) -> None:
        """Note one record."""
        self.located.append(Located(record=record, file=self.file, line=line))

    def result(self) -> ImportResult:
        """Return everything collected."""
        return ImportResult(
            located=tuple(self.located),
            problems=tuple(sorted(self.problems, key=lambda problem: problem.line or 0)),
            remarks=tuple(self.remarks),
            figures=tuple(self.figures),
        )


def read_bytes(path: Path) -> bytes:
    """Return the file's content.

    Raises:
        InputError: It does not exist or is a folder.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, not a file") from error


def unpacked(path: Path, data: bytes) -> bytes:
    """Return what the gzip file ``path`` of content ``data`` holds.

    Raises:
        InputError: It is damaged.
    """
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file: {error}") from error


def read_document(path: Path) -> Any:
    """Return a JSON document.

    Raises:
        InputError: The file is missing, or is not JSON; the message names the line.
    """
    try:
        return json.loads(read_bytes(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error.reason}") from error


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the header and, with their lines, the rows of a CSV file, cells stripped; ``.gz`` is unpacked.

    Raises:
        InputError: The file is missing, damaged or not UTF-8.
    """
    data = read_bytes(path)
    try:
        text = (unpacked(path, data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error.reason}") from error
    reader = csv.DictReader(io.StringIO(text), restval="")
    header = [name.strip() for name in reader.fieldnames or ()]
    rows = []
    for values in reader:
        surplus = values.pop(None, [])  # type: ignore[call-overload]  # DictReader's key for surplus cells
        row = {name: (values[key] or "").strip() for name, key in zip(header, reader.fieldnames or (), strict=True)}
        if surplus:
            row[""] = ",".join(surplus)
        rows.append((reader.line_num, row))
    return header, rows
