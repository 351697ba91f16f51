from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from nas.core.errors import InputError, TrainingError, UnavailableError
from nas.runs.directory import STAGES, RunDirectory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_bytes(b"run: {name: demo}   # a comment\r\n")
    return path


@pytest.fixture
def run(config: Path, tmp_path: Path) -> RunDirectory:
    return create(config, tmp_path)


def create(config: Path, tmp_path: Path, resolved: str = "run: {name: demo, seed: 0}\n") -> RunDirectory:
    return RunDirectory.create(config, parent=tmp_path / "runs", name="demo", resolved=resolved, seed=0)


def test_new_run_has_config_manifest_and_pending_stages(run: RunDirectory, config: Path) -> None:
    assert (run.path / "run.yaml").read_bytes() == config.read_bytes()
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert manifest["versions"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert {name: state.state for name, state in run.states().items()} == dict.fromkeys(STAGES, "pending")


def test_two_runs_in_one_second_get_two_folders(config: Path, tmp_path: Path) -> None:
    assert create(config, tmp_path).path != create(config, tmp_path).path


def test_missing_config_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml: does not exist"):
        create(tmp_path / "absent.yaml", tmp_path)
    assert not (tmp_path / "runs").exists()


def test_equal_settings_continue_the_newest_run_and_others_start_one(config: Path, tmp_path: Path) -> None:
    arguments = {"parent": tmp_path / "runs", "name": "demo", "seed": 0}
    first = RunDirectory.for_config(config, resolved="a: 1\n", **arguments)
    other = RunDirectory.for_config(config, resolved="a: 2\n", **arguments)
    assert other.path != first.path
    assert RunDirectory.for_config(config, resolved="a: 1\n", **arguments) == first


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a run directory: run\.yaml, resolved\.yaml, status\.json missing"):
        RunDirectory.open(tmp_path)


def test_damaged_status_is_an_input_error(run: RunDirectory) -> None:
    (run.path / "status.json").write_text('{"schema": "nas/status/1", "stages": {"search": {"state": "finished"}}}')
    with pytest.raises(InputError, match=r"status\.json.*search\.state"):
        RunDirectory.open(run.path)


def test_finished_stage_records_digests_of_inputs_and_outputs(run: RunDirectory) -> None:
    with run.stage("profile") as folder:
        (folder / "records.jsonl").write_text("records\n")
    with run.stage("calibrate", ["profile/records.jsonl"], settings={"predictor": {"type": "gp"}}) as folder:
        assert run.state("calibrate") == "running"
        (folder / "deep").mkdir()
        (folder / "deep" / "report.json").write_text("{}")
    assert run.state("calibrate") == "done"
    stage = json.loads((run.path / "calibrate" / "stage.json").read_text())
    assert stage["inputs"]["profile/records.jsonl"] == hashlib.sha256(b"records\n").hexdigest()
    assert stage["outputs"] == {"calibrate/deep/report.json": hashlib.sha256(b"{}").hexdigest()}
    assert "resolved.yaml#predictor" in stage["inputs"]


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (TrainingError("loss is not a number at step 7"), "failed", "TrainingError: loss is not a number at step 7"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(143), "interrupted", "SystemExit"),
    ],
)
def test_stage_that_ends_badly_says_so_and_raises_on(
    run: RunDirectory, error: BaseException, state: str, text: str
) -> None:
    with pytest.raises(type(error)), run.stage("train"):
        raise error
    assert run.states()["train"].state == state
    assert run.states()["train"].error == text
    assert not (run.path / "train" / "stage.json").exists()


def test_missing_input_fails_before_the_stage_begins(run: RunDirectory) -> None:
    with pytest.raises(InputError, match=r"predictor\.json: does not exist"), run.stage("search", ["predictor.json"]):
        pytest.fail("the stage began")
    assert run.state("search") == "pending"


@pytest.fixture
def calibrated(run: RunDirectory) -> RunDirectory:
    with run.stage("profile") as folder:
        (folder / "records.jsonl").write_text("one\n")
    with run.stage("calibrate", ["profile/records.jsonl"], settings={"seed": 0}) as folder:
        (folder / "predictor.json").write_text("{}")
    return run


def test_untouched_stage_is_not_stale(calibrated: RunDirectory) -> None:
    assert calibrated.stale("calibrate") == ()
    assert calibrated.stale("calibrate", ["profile/records.jsonl"], settings={"seed": 0}) == ()


def test_changed_file_and_setting_make_a_stage_stale(calibrated: RunDirectory) -> None:
    (calibrated.path / "profile" / "records.jsonl").write_text("two\n")
    assert calibrated.stale("calibrate") == ("profile/records.jsonl",)
    assert calibrated.stale("calibrate", ["profile/records.jsonl"], settings={"seed": 1}) == (
        "profile/records.jsonl",
        "resolved.yaml#seed",
    )


def test_vanished_and_added_inputs_make_a_stage_stale(calibrated: RunDirectory) -> None:
    (calibrated.path / "profile" / "records.jsonl").unlink()
    assert calibrated.stale("calibrate") == ("profile/records.jsonl",)
    assert calibrated.stale("calibrate", ["profile/records.jsonl", "run.yaml"], settings={"seed": 0}) == (
        "profile/records.jsonl",
        "run.yaml",
    )


def test_later_stage_requires_whole_outputs(calibrated: RunDirectory) -> None:
    calibrated.require("profile", "calibrate")
    (calibrated.path / "calibrate" / "predictor.json").write_text("{ }")
    with pytest.raises(InputError, match=r"stage 'calibrate': missing or changed .* calibrate/predictor\.json"):
        calibrated.require("profile", "calibrate")


def test_later_stage_requires_a_finished_one(run: RunDirectory) -> None:
    with pytest.raises(InputError, match="stage 'search' is pending"):
        run.require("search")


def test_reset_stages_are_pending_and_the_others_stay(calibrated: RunDirectory) -> None:
    calibrated.reset(["calibrate", "search"])
    assert [calibrated.state(name) for name in ("profile", "calibrate", "search")] == ["done", "pending", "pending"]
    assert [calibrated.was_reset(name) for name in ("profile", "calibrate", "train")] == [False, True, False]
    with calibrated.stage("calibrate"):
        assert not calibrated.was_reset("calibrate")


def test_stage_of_a_killed_process_is_interrupted(run: RunDirectory) -> None:
    start_and_kill(run, "with run.lock(), run.stage('search') as folder: print('ready', flush=True); time.sleep(60)")
    assert run.state("search") == "running"
    with run.lock() as lock:
        assert lock.took_over
        assert run.mark_interrupted() == ("search",)
    assert run.states()["search"].state == "interrupted"


def start(run: RunDirectory, line: str) -> subprocess.Popen[str]:
    code = f"""
        import time
        from pathlib import Path
        from nas.runs.directory import RunDirectory
        run = RunDirectory.open(Path({str(run.path)!r}))
        {line}
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def start_and_kill(run: RunDirectory, line: str) -> None:
    process = start(run, line)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_lock_names_the_process_that_holds_it(run: RunDirectory) -> None:
    process = start(run, "with run.lock(): print('ready', flush=True); time.sleep(60)")
    try:
        with pytest.raises(Exception, match=f"in use by process {process.pid}"), run.lock():
            pytest.fail("the lock was taken twice")
    finally:
        process.kill()
        process.communicate()
    with run.lock() as lock:
        assert lock.took_over


def test_lock_is_given_back(run: RunDirectory) -> None:
    with run.lock():
        assert json.loads((run.path / "lock").read_text())["pid"] == os.getpid()
    assert (run.path / "lock").read_text() == ""
    with run.lock() as lock:
        assert not lock.took_over


def test_lock_of_a_dead_process_goes_to_one_of_those_that_want_it(run: RunDirectory) -> None:
    """With a lock file that is judged, removed and written anew, a late remover would let two of them in."""
    start_and_kill(run, "with run.lock(): print('ready', flush=True); time.sleep(60)")
    first = run.lock()
    with first, pytest.raises(UnavailableError, match=f"in use by process {os.getpid()}"), run.lock():
        pytest.fail("the lock was taken twice")
    assert first.took_over


def test_lock_does_not_depend_on_what_its_file_says(run: RunDirectory) -> None:
    with run.lock():
        (run.path / "lock").write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()}))  # no such process
        with pytest.raises(UnavailableError, match="in use by process"), run.lock():
            pytest.fail("the lock was taken twice")


def test_lock_file_that_was_deleted_does_not_lock_a_nameless_file(run: RunDirectory) -> None:
    with run.lock():
        (run.path / "lock").unlink()
    with run.lock():
        assert json.loads((run.path / "lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", [b"garbage", b"\xff\x00", b"[1]", b"{}", b'{"pid": "x"}', b"12"])
def test_lock_file_with_garbage_is_taken_over(run: RunDirectory, content: bytes) -> None:
    (run.path / "lock").write_bytes(content)
    with run.lock() as lock:
        assert lock.took_over
        (run.path / "lock").write_bytes(content)
        with pytest.raises(UnavailableError, match="the run is in use"), run.lock():
            pytest.fail("the lock was taken twice")


def test_lock_of_another_host_is_never_taken_over(run: RunDirectory) -> None:
    (run.path / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "yesterday"}))
    with pytest.raises(Exception, match="process 1 on host 'elsewhere'"), run.lock():
        pytest.fail("the lock was taken")
