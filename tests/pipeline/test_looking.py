"""``nas show`` and ``nas verify`` look at a run: they start none, and answer with one document."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from nas.cli.main import main
from nas.core.architecture import Architecture
from nas.core.cost import Budget, CostEstimate, Infeasibility, Interval
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.core.files import sha256_text
from nas.pipeline.context import Context, open_run
from nas.pipeline.show import describe
from nas.pipeline.stages import _inputs, _settings, chosen_stages
from nas.runs.front import FrontFile, MemberInterval, SelectionEffect, write_front
from nas.runs.journal import Journal
from tests.integration.small_run import SMALL_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SMALL_RUN.replace("DIRECTORY", str(tmp_path / "runs")))
    return tmp_path / "small.yaml"


@contextmanager
def finishing(context: Context, name: str) -> Iterator[Path]:
    """Mark a stage done with whatever is put into its folder."""
    (stage,) = chosen_stages(context.config, (name,))
    inputs = _inputs(context.config, context.directory, stage)
    with context.directory.stage(name, inputs, settings=_settings(context.config, stage)) as folder:
        yield folder


@pytest.fixture
def context(config: Path) -> Context:
    """A run whose first stages are done, and empty."""
    context = open_run(str(config))
    for name in ("profile", "calibrate", "search", "train", "export"):
        with finishing(context, name):
            pass
    return context


@pytest.mark.parametrize("arguments", [("verify",), ("show",), ("show", "status")])
def test_looking_at_a_run_that_never_began_exits_3_and_writes_nothing(config: Path, arguments: tuple[str, ...]) -> None:
    verb, *rest = arguments
    result = invoke(verb, str(config), *rest, "--json")
    assert result.exit_code == 3
    error = json.loads(result.stdout)["error"]
    assert error["message"] == f"{config}: there is no run of these settings yet"
    assert error["hint"] == f"start it: nas run {config}"
    assert [path.name for path in config.parent.iterdir()] == ["small.yaml"]


def test_looking_by_the_yaml_finds_the_run_that_began(config: Path) -> None:
    begun = open_run(str(config)).directory.path
    result = invoke("show", str(config), "status", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["stages"]["profile"]["state"] == "pending"
    assert list(begun.parent.iterdir()) == [begun]


def test_a_check_that_fails_exits_5_with_one_document(context: Context) -> None:
    write_export(context, passed=False)
    result = invoke("verify", str(context.directory.path), "--json")
    assert result.exit_code == 5
    document = json.loads(result.stdout)
    assert {check["name"]: check["passed"] for check in document["checks"]}["abc: runs"] is False
    assert document["error"]["kind"] == "verification"
    assert document["error"]["message"].endswith("checks failed: abc: runs")


def test_a_check_that_fails_is_printed_for_people_too(context: Context) -> None:
    write_export(context, passed=False)
    result = invoke("verify", str(context.directory.path))
    assert result.exit_code == 5
    assert "FAIL abc: runs: no" in result.stdout
    assert "checks failed: abc: runs" in result.stderr


def test_checks_that_hold_exit_0_with_one_document(context: Context) -> None:
    write_export(context, passed=True)
    result = invoke("verify", str(context.directory.path), "--json")
    assert result.exit_code == 0
    assert all(check["passed"] for check in json.loads(result.stdout)["checks"])


def leave_running(context: Context) -> None:
    """Leave a run as a process that was killed while it searched."""
    file = context.path("status.json")
    status = json.loads(file.read_text())
    status["stages"]["report"]["state"] = "running"
    file.write_text(json.dumps(status))


def test_a_stage_whose_process_was_killed_exits_5(context: Context) -> None:
    leave_running(context)
    context.path("lock").write_text(json.dumps({"pid": 1, "host": socket.gethostname()}))
    result = invoke("verify", str(context.directory.path), "--json")
    assert result.exit_code == 5
    assert json.loads(result.stdout)["error"]["message"].endswith("the process of running stage report")
    with context.directory.lock() as lock:
        assert lock.took_over  # verify has left the trace of the killed process


def test_a_stage_whose_process_is_at_work_verifies(context: Context) -> None:
    leave_running(context)
    with context.directory.lock():
        result = invoke("verify", str(context.directory.path))
    assert result.exit_code == 0
    assert "ok   the process of running stage report: is at work" in result.stdout


def test_a_changed_setting_is_stale_and_exits_3_with_one_document(context: Context) -> None:
    resolved = context.path("resolved.yaml")
    resolved.write_text(resolved.read_text().replace("seed: 3", "seed: 4"))
    result = invoke("verify", str(context.directory.path), "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert set(document) == {"error"}
    for name in ("profile", "calibrate", "search", "train", "export"):
        assert f"stage '{name}' is stale: resolved.yaml#seed" in document["error"]["message"]


def write_export(context: Context, *, passed: bool) -> None:
    """Put a package and its record into the finished export stage."""
    with finishing(context, "export") as folder:
        (folder / "abc").mkdir()
        (folder / "abc" / "package").write_text("weights")
        check = {"name": "runs", "expected": "yes", "found": "yes" if passed else "no", "passed": passed}
        body = {
            "schema": "nas/export/1",
            "packages": ["package"],
            "sha256": [sha256_text("weights")],
            "checks": [check],
        }
        (folder / "abc" / "export.json").write_text(json.dumps(body))


def test_show_front_has_intervals_before_and_after_selection_and_says_who_lies_outside(tmp_path: Path) -> None:
    cost = CostEstimate(
        latency_ms=100.0,
        latency_interval_ms=Interval(low=90.0, high=110.0, coverage=0.9),
        peak_memory_mb=5.0,
        memory_interval_mb=Interval(low=4.0, high=6.0, coverage=0.9),
        parameters=7,
        blocks=(),
        device="d",
        scenario="s",
        predictor="p",
        origin="predicted",
        in_domain=False,
        domain_note="2 of 9 blocks not measured",
    )
    architecture = Architecture("small/1", {"first.kind": "none"})
    member = Evaluation(
        number=0,
        proposal=Proposal(architecture=architecture),
        cost=cost,
        quality=Quality(score=0.5, estimator="e", fidelity="f"),
        violations=(),
        state="complete",
    )
    after = MemberInterval(digest=architecture.digest, latency_interval_ms=Interval(low=91.0, high=123.0, coverage=0.9))
    effect = SelectionEffect(
        coverage=0.9,
        low_shift_ratio=1.0,
        high_shift_ratio=1.1,
        widening_ratio=1.0,
        seen_before=None,
        seen_after=None,
        seen_random=None,
        replays=0,
        pool=3,
        selected=1.0,
        members=(after,),
    )
    front = FrontFile(
        members=(member,),
        budget=Budget(),
        selected=architecture.digest,
        selection="knee",
        hypervolume=1.0,
        reference=(1.0, 1.0, 1.0),
        quality_estimator="e",
        screened=0,
        complete=1,
        selection_effect=effect,
    )
    write_front(tmp_path / "front.json", front)
    context = SimpleNamespace(path=lambda _, name: tmp_path / name)
    data, text = describe(context, "front", None)  # type: ignore[arg-type]  # only its paths are asked for
    assert "90.0 to 110.0" in text
    assert "91.0 to 123.0" in text
    assert text.endswith("outside the calibration: 2 of 9 blocks not measured")
    assert data["selection_effect"]["members"][0]["latency_interval_ms"]["high"] == 123.0


def candidate(number: int, context: Context, options: list[int], **changes: Any) -> Evaluation:
    """An evaluation of the run's space; ``changes`` are fields of its cost."""
    ends = Interval(low=1.0, high=3.0, coverage=0.9)
    cost = CostEstimate(
        latency_ms=2.0,
        latency_interval_ms=ends,
        peak_memory_mb=2.0,
        memory_interval_mb=ends,
        parameters=10,
        blocks=(),
        device="test",
        scenario="test",
        predictor="test",
        origin="simulated",
        **changes,
    )
    violations = Budget().violations(cost)
    quality = None if violations else Quality(score=1.0, estimator="test", fidelity="test")
    return Evaluation(
        number=number,
        proposal=Proposal(architecture=context.space.from_options(options)),
        cost=cost,
        quality=quality,
        violations=violations,
        state="screened" if violations else "complete",
    )


def test_show_says_why_candidates_were_screened(context: Context) -> None:
    slots = len(context.space.slots())
    fault = Infeasibility(block="mid.0.temporal", compute_unit="cpu", reason="rank is 6, at most 5", source="a guide")
    good = candidate(0, context, [0] * slots)
    stuck = candidate(1, context, [1] + [0] * (slots - 1), infeasible=(fault,))
    with finishing(context, "search") as folder:
        Journal(folder / "evaluations.jsonl").append([good, stuck])
        write_front(
            folder / "front.json",
            FrontFile(
                members=(good,),
                budget=Budget(),
                selected=good.architecture.digest,
                selection="knee",
                hypervolume=1.0,
                reference=(1.0, 1.0, 1.0),
                quality_estimator="test",
                screened=1,
                complete=1,
            ),
        )
    reason = "placement: mid.0.temporal on cpu: rank is 6, at most 5 (a guide)"
    run = str(context.directory.path)
    assert f"     1  {reason}" in invoke("show", run, "front").stdout
    shown = invoke("show", run, "architecture", "--architecture", stuck.architecture.digest)
    assert reason in shown.stdout
    assert "does not run on the device:" in shown.stdout
