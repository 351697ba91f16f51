"""What drove a search is written beside its front, read again, and shown, whatever engine searched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from nas.cli.main import main
from nas.core.protocols import SilentProgress
from nas.pipeline import stages
from nas.pipeline.context import Context, open_run
from nas.report import build_report
from nas.runs.explanation import read_explanation
from nas.runs.front import read_front

if TYPE_CHECKING:
    from pathlib import Path

RUN = """\
run: {name: x, directory: DIRECTORY}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32, denoising_steps: 4}
device: {name: iphone16_pro_max}
budget: {latency_share: 0.5, peak_memory_mb: 60.0}
search:
  engine: {type: ENGINE}
  evaluations: 16
  batch: 8
MORE
quality: {type: temporal_capacity}
"""
SCENARIO = """\
  scenario:
    denoising_steps: [2, 4]
    worth: {denoising_steps: [0, 1]}"""


def searched(folder: Path, engine: str, more: str = "", *, evaluations: int = 16) -> Context:
    text = RUN.replace("DIRECTORY", str(folder / "runs")).replace("ENGINE", engine).replace("MORE\n", more)
    text = text.replace("evaluations: 16", f"evaluations: {evaluations}")
    (folder / "run.yaml").write_text(text)
    context = open_run(str(folder / "run.yaml"))
    stages.perform(context, ("search",), force=False, progress=lambda _: SilentProgress(), say=lambda _: None)
    return context


@pytest.mark.parametrize(("engine", "more"), [("optuna", ""), ("random", SCENARIO + "\n")])
def test_every_search_is_explained_and_rebuilt_from_files(tmp_path: Path, engine: str, more: str) -> None:
    context = searched(tmp_path, engine, more)
    path = context.path("search", "explain.json")
    explanation = read_explanation(path)
    assert explanation.judged == 16
    assert [item.slot for item in explanation.slots] == list(context.search_space.slots())
    assert explanation.chosen == read_front(context.path("search", "front.json")).selected
    assert {step.limit for step in explanation.budgets} == {"latency_ms", "peak_memory_mb"}
    assert explanation.optimality is not None
    assert 0 < explanation.optimality.lower <= explanation.optimality.median <= 1

    run = str(context.directory.path)
    page = build_report(context.directory.path).read_text()
    shown = CliRunner().invoke(main, ["show", run, "explain"]).stdout
    written = CliRunner().invoke(main, ["show", run, "explain", "--json"])
    path.unlink()
    rebuilt = CliRunner().invoke(main, ["show", run, "explain", "--json"])
    assert json.loads(written.stdout) == json.loads(rebuilt.stdout)

    for text in ("share of the best reachable hypervolume: at", "what another limit buys", "what each slot decides"):
        assert text in shown
    for text in ("How far from optimal:", "What another limit buys", "What each block of the chosen network is worth"):
        assert text in page
    first = next(line for line in shown.splitlines() if "(+5%)" in line)
    assert first.split("buys ")[1].split(" quality")[0] in page


def test_too_few_judged_candidates_are_said_to_explain_nothing(tmp_path: Path) -> None:
    context = searched(tmp_path, "random", evaluations=1)
    assert not context.path("search", "explain.json").exists()
    shown = CliRunner().invoke(main, ["show", str(context.directory.path), "explain"])
    assert shown.exit_code == 3
    assert "fewer than two candidates were judged" in shown.stderr
    assert "--set search.evaluations=N" in shown.stderr
