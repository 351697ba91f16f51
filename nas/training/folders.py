"""Folders of video and image files with captions: found, matched and checked before anything is decoded.

Captions come from one table in the folder, ``captions.csv`` (columns ``file`` and ``caption``), ``captions.json``
(an object of file to caption, or a list of objects with both) or ``captions.jsonl``, and from a text file beside a clip
(``cat.txt`` for ``cat.mp4``) where the table has none.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas.core.errors import InputError, Problem
from nas.training.video_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, read_image, read_video, suffixes_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from nas.training.video_files import ClipFormat

TABLES: tuple[str, ...] = ("captions.csv", "captions.json", "captions.jsonl")
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFile:
    """One file of a folder: its name in the folder, what it is, and its caption if there is one."""

    name: str
    kind: Literal["video", "image"]
    caption: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFolder:
    """What a folder holds.

    Attributes:
        path: The folder.
        files: Videos in order of their names, then images.
        table: Name of the captions' table, none if there is only text beside the files.
        unmatched: Files that the table names and the folder does not have.
    """

    path: Path
    files: tuple[ClipFile, ...]
    table: str | None
    unmatched: tuple[str, ...]

    @property
    def without_caption(self) -> tuple[str, ...]:
        """Names of files that have no caption."""
        return tuple(file.name for file in self.files if file.caption is None)

    def read(self, file: ClipFile, wanted: ClipFormat) -> NDArray[np.uint8]:
        """Decode a video to (T, 3, H, W), an image to (1, 3, H, W).

        Raises:
            UnreadableClipError: The file is damaged, too short or something else.
        """
        path = self.path / file.name
        return read_video(path, wanted) if file.kind == "video" else read_image(path, size=wanted.size)


def scan_folder(path: Path) -> ClipFolder:
    """Find the clips of a folder and its sub-folders, and their captions.

    Raises:
        InputError: The folder is missing, holds no clip or no caption at all, or its table is faulty; all faults of a
            table are named with their lines.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder of clips")
    names = sorted(_clip_names(path))
    if not names:
        known = suffixes_text((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))
        raise InputError(f"{path}: holds no video or image file; known endings are {known}")
    table, captions = _read_table(path)
    files = tuple(_clip_file(path, name, captions) for name in names)
    if all(file.caption is None for file in files):
        raise InputError(
            f"{path}: none of its {len(files)} clips has a caption",
            hint=f"add {TABLES[0]} with the columns file and caption, or a text file beside each clip",
        )
    videos_first = sorted(files, key=lambda file: file.kind == "image")
    return ClipFolder(
        path=path, files=tuple(videos_first), table=table, unmatched=tuple(sorted(set(captions) - set(names)))
    )


def _clip_names(path: Path) -> Iterator[str]:
    for entry in path.rglob("*"):
        name = entry.relative_to(path)
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and entry.suffix.lower() in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES) and entry.is_file():
            yield name.as_posix()


def _clip_file(path: Path, name: str, captions: dict[str, str]) -> ClipFile:
    caption = captions.get(name)
    beside = (path / name).with_suffix(".txt")
    if caption is None and beside.is_file():
        caption = _text(beside).strip() or None
    suffix = "." + name.rsplit(".", 1)[-1].lower()
    return ClipFile(name=name, kind="video" if suffix in VIDEO_SUFFIXES else "image", caption=caption)


def _read_table(path: Path) -> tuple[str | None, dict[str, str]]:
    found = [name for name in TABLES if (path / name).is_file()]
    if not found:
        return None, {}
    if len(found) > 1:
        raise InputError(f"{path}: has {' and '.join(found)}; captions must come from one of them")
    table = path / found[0]
    rows = {".csv": _csv_rows, ".json": _json_rows, ".jsonl": _json_lines_rows}[table.suffix](table)
    captions: dict[str, str] = {}
    problems = []
    for place, row in rows:
        fault = _fault(row, captions)
        if fault:
            problems.append(Problem(message=fault, file=str(table), path=place))
        elif row["caption"].strip():
            captions[row["file"]] = " ".join(row["caption"].split())
    if problems:
        shown = "; ".join(f"{problem.path}: {problem.message}" for problem in problems[:_SHOWN])
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        raise InputError(f"{table}: {shown}{more}", problems=tuple(problems), hint="correct the table and run again")
    return table.name, captions


def _fault(row: Any, known: dict[str, str]) -> str:
    if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("caption"), str):
        return "needs a file and a caption, both text"
    return f"second caption for {row['file']!r}" if row["file"] in known else ""


def _csv_rows(table: Path) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(_text(table).splitlines(keepends=True))
    columns = reader.fieldnames or []
    if not {"file", "caption"} <= set(columns):
        raise InputError(f"{table}: line 1: needs the columns file and caption, has {', '.join(columns) or 'none'}")
    for row in reader:
        yield f"line {reader.line_num}", row


def _json_rows(table: Path) -> Iterator[tuple[str, Any]]:
    try:
        data = json.loads(_text(table))
    except json.JSONDecodeError as error:
        raise InputError(f"{table}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    if isinstance(data, dict):
        yield from ((f"key {name!r}", {"file": name, "caption": caption}) for name, caption in data.items())
    elif isinstance(data, list):
        yield from ((f"entry {index}", row) for index, row in enumerate(data))
    else:
        raise InputError(f"{table}: needs an object of file to caption or a list, has {type(data).__name__}")


def _json_lines_rows(table: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_text(table).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{table}: line {number}, column {error.colno}: not JSON: {error.msg}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error.reason}", hint="save it as UTF-8") from error
