"""The search benchmark's runner: what a run pays for, what a kill leaves, what the tables say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import search_runs
from search_peers import optuna_sampler, random
from search_problems import KINDS, Kind, make_synthetic
from search_recorder import Finished, Recorder
from search_runs import ENGINES, Task, execute, load, run_all, tasks
from search_scores import first_at, score_all
from search_tables import to_markdown

if TYPE_CHECKING:
    from pathlib import Path

ROW = (1, 2, 0, 1)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(make_synthetic("noisy, related", 0, num_slots=4, num_options=3), 3, tmp_path / "progress.jsonl")


def test_a_known_answer_costs_nothing(recorder: Recorder) -> None:
    assert recorder.judge(ROW) == recorder.judge(np.array(ROW))
    assert recorder.rows == [ROW]


def test_a_run_stops_at_its_limit(recorder: Recorder) -> None:
    with pytest.raises(Finished):
        random(recorder, 0)

    assert len(recorder.rows) == len(set(recorder.rows)) == 3


def test_an_engine_that_asks_only_for_what_it_knows_is_stopped(recorder: Recorder) -> None:
    def repeat() -> None:
        for _ in range(10_000):
            recorder.judge(ROW)

    with pytest.raises(Finished):
        repeat()
    assert recorder.rows == [ROW]


def test_a_killed_run_goes_on_from_its_progress_file(recorder: Recorder, tmp_path: Path) -> None:
    score = recorder.judge(ROW)

    again = Recorder(recorder.problem, 3, tmp_path / "progress.jsonl", resume=True)

    assert (again.rows, again.scores) == ([ROW], [score])
    assert Recorder(recorder.problem, 3, tmp_path / "progress.jsonl").rows == []


def test_optuna_stops_by_itself_and_is_given_true_constraints(recorder: Recorder) -> None:
    optuna_sampler(recorder, 0, sampler="nsga2")

    assert len(recorder.rows) == 3


def test_one_run_of_ours_and_one_of_a_peer_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_runs, "make_synthetic", lambda name, seed: make_synthetic(name, seed, num_slots=4))

    records = [
        execute(Task(problem="additive, related", engine=name, seed=0, evaluations=12), tmp_path)
        for name in ("model_based", "Optuna NSGA-II")
    ]

    assert [len(record["rows"]) for record in records] == [12, 12]
    assert records[0]["stopped"] == "evaluations"
    assert all(len(record["cpu_s"]) == 12 for record in records)


def test_finished_runs_are_not_repeated_and_a_cut_off_line_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (task,) = tasks(["additive, related"], ["random"], seeds=1, evaluations=5, data=None)
    record = execute(task, tmp_path)
    (tmp_path / "runs.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(record)[:40])

    run_all([task], tmp_path, workers=1)

    assert "0 runs to do" in capsys.readouterr().out
    assert len(load(tmp_path)) == 1


def test_tables_say_where_a_killed_run_stopped(tmp_path: Path) -> None:
    task = Task(problem="additive, related", engine="random", seed=0, evaluations=200)
    (tmp_path / "progress").mkdir()
    lines = [json.dumps([[0] * 20, 0.0, 0.001 * index]) for index in range(60)]
    (tmp_path / "progress" / f"{task.slug}.jsonl").write_text("\n".join(lines))

    scored = score_all([task], tmp_path)
    document = {
        "notes": [],
        "synthetic": scored,
        "nb201": {},
        "anb": {},
        "missing": ["pymoo"],
        "created_at": "now",
        "host": {"logical_processors": 2, "system": "test"},
        "versions": {"numpy": "2"},
    }

    assert "| random | 0.000 | - | - | 1, stopped at 60 |" in to_markdown(document)
    assert "not run: pymoo" in to_markdown(document)


def test_a_record_of_another_problem_definition_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = tasks(["additive, related"], ["random"], seeds=1, evaluations=50, data=None)
    (tmp_path / "runs.jsonl").write_text(json.dumps(execute(task, tmp_path)) + "\n")
    for path in (tmp_path / "progress").iterdir():
        path.unlink()
    assert len(score_all([task], tmp_path)[task.problem]["random"]) == 1

    monkeypatch.setitem(KINDS, task.problem, Kind(interaction_ratio=0.2, noise_ratio=0.0, related=True))

    assert score_all([task], tmp_path)[task.problem]["random"] == []


def test_first_evaluation_at_a_target_is_that_of_a_plain_scan() -> None:
    problem = make_synthetic("additive, unrelated", 2, num_slots=4, num_options=3)
    rows = [tuple(row) for row in np.random.default_rng(0).permutation(problem.front).tolist()]
    shares = [first_at(problem, rows[:count], 0.9) is not None for count in range(1, len(rows) + 1)]

    assert first_at(problem, rows, 0.9) == shares.index(True) + 1
    assert first_at(problem, rows[:1], 0.999) is None


def test_rows_of_missing_peers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_runs, "missing", lambda name: ENGINES[name].package)

    found = tasks(["additive, related"], list(ENGINES), seeds=1, evaluations=10, data=None)

    assert {ENGINES[task.engine].package for task in found} == {None}
