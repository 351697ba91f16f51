"""What a run's journal keeps: enough to end, killed anywhere and with any engine, in the very same bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, get_args

import pytest
from click.testing import CliRunner

from nas.cli.main import main
from nas.config.search import Engine, OptunaEngine
from nas.core.protocols import SilentProgress
from nas.pipeline import search
from nas.pipeline.context import open_run
from nas.runs.front import read_front
from nas.runs.journal import Journal
from nas.search import judging

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.core.evaluation import Evaluation

RUN = """\
run: {name: small, seed: 1, directory: RUNS}
space: {name: tiny, version: 1}
scenario: {frames: 8, height: 32, width: 32, denoising_steps: 4, guidance: false, precision: float32}
device: {name: iphone16_pro_max}
budget: {latency_share: 0.5, coverage: 0.9}
search: {engine: ENGINE, evaluations: 12, batch: 4}
quality: {type: temporal_capacity}
"""
SAMPLERS = get_args(OptunaEngine.model_fields["sampler"].annotation)
TYPES = [get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(Engine)]
ENGINES = [f"{{type: {name}}}" for name in TYPES if name not in ("optuna", "exhaustive")]
# Optuna's GP sampler takes minutes here; tests/search/test_engines.py goes on with it on a smaller space.
ENGINES += [f"{{type: optuna, sampler: {name}}}" for name in SAMPLERS if name != "gp"]
ENGINES += ["{type: exhaustive, limit: 10000000}"]


def perform(folder: Path, engine: str) -> Path:
    """Search in a run below ``folder``, or go on with it; return the folder of its search."""
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(RUN.replace("RUNS", str(folder / "runs")).replace("ENGINE", engine))
    context = open_run(str(folder / "run.yaml"))
    with context.directory.stage("search") as found:
        search.perform(context, found, SilentProgress())
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_search_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setattr(judging.time, "monotonic", lambda: 0.0)  # seconds are the only thing that may differ
    whole = perform(tmp_path / "whole", engine)
    append = Journal.append
    for kept in (1, 6):

        def dying(journal: Journal, evaluations: Sequence[Evaluation], kept: int = kept) -> None:
            append(journal, evaluations)
            if len(journal.read()) >= kept:
                raise KeyboardInterrupt

        monkeypatch.setattr(Journal, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            perform(tmp_path / "killed", engine)
    monkeypatch.setattr(Journal, "append", append)
    killed = perform(tmp_path / "killed", engine)
    for name in ("evaluations.jsonl", "front.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_front_has_the_split_that_the_journal_leaves_out(tmp_path: Path) -> None:
    folder = perform(tmp_path, "{type: random}")
    members = read_front(folder / "front.json").members
    kept = {one.architecture.digest: one for one in Journal(folder / "evaluations.jsonl").read()}
    for member in members:
        assert member.cost.totals() == kept[member.architecture.digest].cost
        assert sum(block.latency_ms for block in member.cost.blocks) == pytest.approx(member.cost.latency_ms)
        assert sum(phase.latency_ms for phase in member.cost.phases) == pytest.approx(member.cost.latency_ms)


def test_show_computes_the_split_of_a_candidate_that_is_not_on_the_front(tmp_path: Path) -> None:
    folder = perform(tmp_path, "{type: random}")
    front = {one.architecture.digest for one in read_front(folder / "front.json").members}
    other = next(one for one in Journal(folder / "evaluations.jsonl").read() if one.architecture.digest not in front)
    arguments = ["show", str(folder.parent), "architecture", "--architecture", other.architecture.digest, "--json"]
    cost = json.loads(CliRunner().invoke(main, arguments).stdout)["cost"]
    assert cost["latency_ms"] == other.cost.latency_ms
    assert sum(block["latency_ms"] for block in cost["blocks"]) == pytest.approx(cost["latency_ms"])
