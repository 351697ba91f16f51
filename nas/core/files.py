"""Files that survive a crash: canonical JSON, atomic writes, append-only JSON Lines, digests."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from typing import TYPE_CHECKING, Any, NoReturn

from nas.core.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys and no spaces; equal values give equal text.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def sha256_text(text: str) -> str:
    """Return the SHA-256 of ``text`` (UTF-8) as 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's sorted relative names and contents.

    Raises:
        InputError: The path does not exist.
    """
    if not path.exists():
        raise InputError(f"{path}: does not exist")
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary name beside ``path``, then rename; a crash leaves the old file whole.

    Raises:
        UnavailableError: The disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UnavailableError(f"{path}: cannot be written: {error.strerror or error}", hint=_disk_hint()) from error


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8; see ``write_bytes_atomically``."""
    write_bytes_atomically(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, sort_keys=False, allow_nan=False, ensure_ascii=False)
    write_text_atomically(path, text + "\n")


class _NotFiniteError(ValueError):
    """JSON holds NaN or an infinity."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotFiniteError(name)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing or is not JSON; the message names the line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except _NotFiniteError as error:
        raise InputError(
            f"{path}: holds {error}, which is no number and nothing here writes",
            hint="the file is damaged; delete it and run its stage again",
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist", hint="run the stage that writes it first") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}",
            hint="the file is damaged; delete it and run its stage again",
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error.reason}") from error


class JsonLines:
    """Append-only JSON Lines file; one flushed line a record, a torn last line is dropped when it is reopened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, value: Any) -> None:
        """Append one record and force it to the disk.

        Raises:
            UnavailableError: The disk is full or the file cannot be written.
        """
        self.extend([value])

    def extend(self, values: Iterable[Any]) -> None:
        """Append several records with one write and force them to the disk.

        Raises:
            UnavailableError: The disk is full or the file cannot be written.
        """
        self.extend_lines(canonical_json(value).encode() for value in values)

    def extend_lines(self, lines: Iterable[bytes]) -> None:
        """Append records that are JSON already, each one line without its break; see ``extend``."""
        data = b"".join(line + b"\n" for line in lines)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._mend_last_line()
            with self.path.open("ab") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise UnavailableError(
                f"{self.path}: cannot be written: {error.strerror or error}", hint=_disk_hint()
            ) from error

    def read(self) -> list[Any]:
        """Return every whole record; an unfinished last line is ignored.

        Raises:
            InputError: A line before the last is damaged; the message names it.
        """
        return list(self._iterate())

    def _iterate(self) -> Iterator[Any]:
        if not self.path.exists():
            return
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                yield json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                if number == len(lines):
                    return
                raise InputError(
                    f"{self.path}: line {number}: damaged record: {error}",
                    hint="remove that line to go on without it",
                ) from error

    def _mend_last_line(self) -> None:
        """Cut a torn last line; end one that is whole but for its line break, because ``read`` returns it."""
        if not self.path.exists():
            return
        with self.path.open("rb+") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end == 0:
                return
            stream.seek(end - 1)
            if stream.read(1) == b"\n":
                return
            data = self.path.read_bytes()
            start = data.rfind(b"\n") + 1
            try:
                json.loads(data[start:])
            except (json.JSONDecodeError, UnicodeDecodeError):
                stream.truncate(start)
            else:
                stream.seek(end)
                stream.write(b"\n")


def _disk_hint() -> str:
    return "free some space or give another run directory; what was finished is kept and the run can be resumed"
