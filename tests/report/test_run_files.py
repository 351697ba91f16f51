from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nas.core.errors import InputError
from nas.report.run_files import read_run

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_a_finished_run_holds_is_read(finished_run: Path) -> None:
    files = read_run(finished_run)
    assert files.faults == ()
    assert len(files.evaluations) == 40
    assert len(files.records) == 12
    assert len(files.trained[0].rows) == 5
    assert files.exported[0].model.package_bytes == 1_810_000
    assert files.stage("train").state == "done"
    assert files.stage("report").state == "pending"


def test_an_empty_folder_is_a_run_in_which_nothing_ran(tmp_path: Path) -> None:
    files = read_run(tmp_path)
    assert files.faults == ()
    assert files.front is None
    assert {stage.state for stage in files.stages} == {"pending"}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run directory"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name",
    [
        "search/front.json",
        "closed_loop/closed_loop.json",
        "status.json",
        "manifest.json",
        "resolved.yaml",
    ],
)
def test_a_damaged_file_is_a_fault_and_the_rest_is_read(run_dir: Path, name: str) -> None:
    (run_dir / name).write_text('{"schema": [}', encoding="utf-8")
    files = read_run(run_dir)
    assert [fault.file for fault in files.faults] == [name]
    assert len(files.evaluations) == 40


def test_a_damaged_record_is_named_by_its_line(run_dir: Path) -> None:
    path = run_dir / "search/evaluations.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], '{"number": 3}', *lines[4:]]) + "\n", encoding="utf-8")
    (fault,) = read_run(run_dir).faults
    assert "search/evaluations.jsonl: record 4" in fault.message


def test_a_file_of_another_schema_version_is_a_fault(run_dir: Path) -> None:
    path = run_dir / "closed_loop/closed_loop.json"
    path.write_text(path.read_text(encoding="utf-8").replace("nas/closed_loop/1", "nas/closed_loop/9"), "utf-8")
    (fault,) = read_run(run_dir).faults
    assert "nas/closed_loop/9" in fault.message


def test_fault_messages_do_not_carry_the_path_of_the_machine(run_dir: Path) -> None:
    (run_dir / "search/front.json").write_text("{", encoding="utf-8")
    (fault,) = read_run(run_dir).faults
    assert str(run_dir) not in fault.message


def test_a_stage_whose_input_changed_is_stale(run_dir: Path) -> None:
    assert read_run(run_dir).stage("train").stale_inputs == ()
    path = run_dir / "search/front.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert read_run(run_dir).stage("train").stale_inputs == ("search/front.json",)
