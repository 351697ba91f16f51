"""The command line: help, exit codes, JSON on stdout, clear errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from nas.cli.main import VERBS, main
from nas.cli.output import Console, TerminalProgress
from nas.core.errors import BudgetError, NasError

if TYPE_CHECKING:
    from pathlib import Path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage:")


def test_an_unknown_verb_exits_2_and_names_the_nearest() -> None:
    result = invoke("serch")
    assert result.exit_code == 2
    assert "Did you mean 'search'?" in result.output


def test_a_faulty_yaml_exits_2_with_every_fault_in_json(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("run: {name: x, sed: 1}\nspace: {name: tiny}\n")
    result = invoke("config", "check", str(path), "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "config"
    assert {(item["path"], item["line"]) for item in error["problems"]} == {
        ("run.sed", 1),
        ("scenario", None),
        ("device", None),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serch", "run.yaml"), "Did you mean 'search'?"),
        (("search", "run.yaml", "--evaluatons", "3"), "No such option"),
        (("search",), "Missing argument"),
        (("show", "run.yaml", "fornt"), "'fornt' is not one of"),
    ],
)
def test_faults_of_the_command_line_are_one_document_with_json(arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["exit"]) == ("config", 2)
    assert message in error["message"]
    assert error["hint"].startswith("Usage:")


def test_help_and_results_are_the_same_with_json() -> None:
    assert invoke("search", "--help", "--json").stdout.startswith("Usage:")
    assert json.loads(invoke("list", "engines", "--json").stdout)


@pytest.mark.parametrize("verb", ["run", "search", "config check"])
def test_a_missing_file_exits_3(verb: str, tmp_path: Path) -> None:
    result = invoke(*verb.split(), str(tmp_path / "none.yaml"))
    assert result.exit_code == 3
    assert "none.yaml: does not exist" in result.stderr


def test_init_writes_a_valid_yaml_once(tmp_path: Path) -> None:
    path = str(tmp_path / "run.yaml")
    assert invoke("init", "demo", "--output", path).exit_code == 0
    assert invoke("config", "check", path).exit_code == 0
    again = invoke("init", "demo", "--output", path)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("init", "snapgen_v", "--output", "run.yaml")
    result = invoke("run", "run.yaml", "--dry-run", "--json")
    assert [step["stage"] for step in json.loads(result.stdout)["plan"]] == ["search", "train", "export", "report"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.yaml"]


def test_a_stage_without_its_section_exits_2(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    invoke("init", "snapgen_v", "--output", str(path))
    result = invoke("profile", str(path), "--dry-run")
    assert result.exit_code == 2
    assert "no section 'profile'" in result.stderr


def test_an_unknown_space_names_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("init", "demo", "--output", "run.yaml")
    result = invoke("run", "run.yaml", "--set", "space.name=tinny")
    assert result.exit_code == 2
    assert "did you mean 'tiny'" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_phone_cannot_be_profiled_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("init", "demo", "--output", "run.yaml")
    result = invoke("profile", "run.yaml", "--set", "device.name=iphone16_pro_max", "--set", "phases=null")
    assert result.exit_code == 6
    assert "cannot be measured from here" in result.stderr


@pytest.mark.parametrize("kind", ["spaces", "devices", "engines", "qualities"])
def test_lists_are_json_with_names(kind: str) -> None:
    result = invoke("list", kind, "--json")
    rows = json.loads(result.stdout)[kind]
    assert all(row["name"] and row["text"] for row in rows)


def test_the_exact_size_of_the_full_space_is_printed() -> None:
    # 1 empty option and 33 layers once or twice in a row, in each of ten slots.
    assert f"{67**10:,} distinct architectures" in invoke("list", "spaces").stdout


def test_a_bug_exits_1_and_leaves_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.txt"
    with pytest.raises(SystemExit) as caught, Console().errors(log):
        _fail()
    assert caught.value.code == 1
    assert "ZeroDivisionError" in log.read_text()
    assert str(log) in capsys.readouterr().err


def _fail() -> None:
    raise ZeroDivisionError("planted")


def test_errors_carry_their_exit_code_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, Console(as_json=True).errors():
        _raise(BudgetError("nothing fits", hint="allow more"))
    assert caught.value.code == 4
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["message"], error["hint"]) == ("budget", "nothing fits", "allow more")


def _raise(error: NasError) -> None:
    raise error


def test_progress_off_a_terminal_is_a_line_at_start_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress("search", quiet=False)
    for done in range(11):
        progress.update(done, 10)
    assert capsys.readouterr().err.splitlines() == ["search: 0/10", "search: 10/10"]


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    TerminalProgress("search", quiet=True).update(10, 10)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(45.4, "45 s"), (119.0, "119 s"), (600.0, "10 min"), (12_000.0, "3 h 20 min"), (187_200.0, "2 d 4 h")],
)
def test_remaining_time_is_of_the_work_at_hand_in_the_largest_units(
    seconds: float, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 0.0, 100.0, 100.0 + seconds])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = TerminalProgress("train", quiet=False)
    progress.update(7, 9)  # other work, which took long
    progress.update(0, 2)
    progress.update(1, 2)
    remaining = progress._remaining(1, 2, 100.0 + seconds)
    assert remaining == f" · {words} left"
    assert capsys.readouterr().err.splitlines()[0] == "train: 7/9"
