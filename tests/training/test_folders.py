"""Folders of clips: what is found, how captions are matched, which faults are named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from nas.core.errors import InputError
from nas.training.folders import scan_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them in a sub-folder, and a video's name."""
    (tmp_path / "more").mkdir()
    for name in ("b.png", "a.jpg", "more/c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "z.mp4").write_bytes(b"")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


CSV = 'file,caption\na.jpg,an a\nb.png,"a  b, quoted"\nmore/c.png,a c\nz.mp4,a z\n'
JSON = json.dumps({"a.jpg": "an a", "b.png": "a b, quoted", "more/c.png": "a c", "z.mp4": "a z"})
ROWS = [{"file": name, "caption": caption} for name, caption in json.loads(JSON).items()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", CSV),
        ("captions.csv", "\ufeff" + CSV),
        ("captions.json", JSON),
        ("captions.json", json.dumps(ROWS)),
        ("captions.jsonl", "\n".join(json.dumps(row) for row in ROWS)),
    ],
)
def test_every_table_gives_the_same_captions_videos_first(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    found = scan_folder(folder)
    assert [(file.name, file.kind, file.caption) for file in found.files] == [
        ("z.mp4", "video", "a z"),
        ("a.jpg", "image", "an a"),
        ("b.png", "image", "a b, quoted"),
        ("more/c.png", "image", "a c"),
    ]
    assert (found.without_caption, found.unmatched, found.table) == ((), (), name)


def test_text_beside_a_clip_fills_what_the_table_lacks(folder: Path) -> None:
    (folder / "captions.csv").write_text("file,caption\na.jpg,an a\ngone.mp4,a gone\n")
    (folder / "b.txt").write_text("a b\n")
    found = scan_folder(folder)
    assert {file.name: file.caption for file in found.files}["b.png"] == "a b"
    assert found.without_caption == ("z.mp4", "more/c.png")
    assert found.unmatched == ("gone.mp4",)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("captions.csv", "name,text\na.jpg,x\n", r"captions.csv: line 1: needs the columns file and caption, has name"),
        ("captions.csv", "file,caption\na.jpg,x\na.jpg,y\n", r"captions.csv: line 3: second caption for 'a.jpg'"),
        ("captions.csv", "file,caption\na.jpg\n", r"line 2: needs a file and a caption, both text"),
        ("captions.json", "[1, 2]", r"entry 0: needs a file and a caption, both text; entry 1"),
        ("captions.json", "3", r"needs an object of file to caption or a list, has int"),
        ("captions.json", '{"a": }', r"captions.json: line 1, column 7: not JSON"),
        ("captions.jsonl", '{"file": "a.jpg", "caption": "x"}\n{', r"captions.jsonl: line 2, column 2: not JSON"),
    ],
)
def test_faults_of_a_table_are_named_with_their_place(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        scan_folder(folder)


def test_a_table_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "captions.csv").write_bytes(b"file,caption\na.jpg,caf\xe9\n")
    with pytest.raises(InputError, match=r"captions.csv: not UTF-8 text"):
        scan_folder(folder)


def test_two_tables_are_refused(folder: Path) -> None:
    (folder / "captions.csv").write_text(CSV)
    (folder / "captions.json").write_text(JSON)
    with pytest.raises(InputError, match=r"has captions.csv and captions.json; captions must come from one"):
        scan_folder(folder)


def test_a_folder_without_captions_says_how_to_add_them(folder: Path) -> None:
    with pytest.raises(InputError, match="none of its 4 clips has a caption") as caught:
        scan_folder(folder)
    assert "captions.csv with the columns file and caption" in str(caught.value.hint)


def test_a_folder_without_clips_or_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no video or image file; known endings are avi, gif"):
        scan_folder(tmp_path)
    with pytest.raises(InputError, match="no such folder of clips"):
        scan_folder(tmp_path / "gone")
