"""Files survive crashes and name their damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.core.cost import Interval
from nas.core.errors import InputError, UnavailableError
from nas.core.files import JsonLines, canonical_json, read_json, sha256_path, write_json, write_text_atomically
from nas.core.schema import check_schema, from_data, with_schema


def test_canonical_json_ignores_key_order() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'


def test_canonical_json_refuses_not_a_number() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"loss": float("nan")})


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "front.json"
    write_text_atomically(target, "old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(target, {"x": float("inf")})
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["front.json"]


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text_atomically(tmp_path / "index.html", "")
    assert (tmp_path / "index.html").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot be written") as caught:
        write_text_atomically(tmp_path / "file" / "below.json", "x")
    assert caught.value.hint is not None
    assert "resumed" in caught.value.hint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(UnavailableError, match="/dev/full: cannot be written: No space left on device"):
        JsonLines(Path("/dev/full")).append({"number": 0})


def test_torn_last_line_is_ignored_and_cut_by_the_next_append(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "evaluations.jsonl")
    lines.append({"number": 0})
    with lines.path.open("a") as stream:
        stream.write('{"number": 1, "arch')
    assert lines.read() == [{"number": 0}]
    lines.append({"number": 1})
    assert lines.read() == [{"number": 0}, {"number": 1}]


def test_damage_before_the_last_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(InputError, match=r"records\.jsonl: line 2: damaged"):
        JsonLines(path).read()


def test_damaged_json_names_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    path.write_text('{\n  "members": [,]\n}')
    with pytest.raises(InputError, match=r"front\.json: line 2, column 15: not JSON"):
        read_json(path)


def test_folder_digest_sees_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = sha256_path(folder)
    (folder / "a").rename(folder / "b")
    assert sha256_path(folder) != first


def test_schema_line_is_checked() -> None:
    data = with_schema("front", 1, {"members": []})
    assert check_schema(data, "front", 1, where="front.json") == {"members": []}
    with pytest.raises(InputError, match="schema is 'nas/front/1', this version reads 'nas/front/2'"):
        check_schema(data, "front", 2, where="front.json")


def test_unknown_fields_are_faults_unless_a_part_is_read() -> None:
    data = {"low": 1.0, "high": 2.0, "coverage": 0.9, "width": 1.0}
    with pytest.raises(InputError, match=r"front\.json: not a Interval: width"):
        from_data(Interval, data, where="front.json")
    assert from_data(Interval, data, partial=True) == Interval(low=1.0, high=2.0, coverage=0.9)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_damage(tmp_path: Path, word: str) -> None:
    file = tmp_path / "predictor.json"
    file.write_text(f'{{"latency_ms": {word}}}')
    with pytest.raises(InputError, match=rf"predictor\.json: holds {word}, which is no number"):
        read_json(file)
