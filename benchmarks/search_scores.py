"""Scores of recorded runs: share of the exact front's hypervolume after each checkpoint, time and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_problems import fingerprint, share
from search_runs import Task, build_problem, engine_version, group_of, load, unfinished

from nas.core.pareto import hypervolume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from search_measured import TabulatedProblem
    from search_problems import Problem, Row

CHECKPOINTS = {
    "interacting": (50, 100, 200, 500, 1000),
    "synthetic": (50, 100, 200),
    "nb201": (25, 50, 100, 150),
    "tiny": (8, 16, 24),
    "anb": (25, 50, 100, 150),
}
TARGET = 0.99


def score_run(problem: Problem, record: dict[str, Any]) -> dict[str, Any]:
    """Return what is published of one run."""
    rows, cpu_s = [tuple(row) for row in record["rows"]], record["cpu_s"]
    group = group_of(problem.name)
    counts = [count for count in CHECKPOINTS[group] if count <= len(rows)]
    scores: dict[str, Any] = {
        "seed": record["seed"],
        "paid": len(rows),
        "complete": len(rows) >= record["wanted"],
        "shares": {str(count): share(problem, rows[:count]) for count in counts},
        "cpu_ms_per_evaluation": {str(count): 1000 * cpu_s[count - 1] / count for count in counts},
        "peak_memory_mb": record.get("peak_memory_mb"),
        "version": record["version"],
    }
    scores |= {name: record[name] for name in ("screened", "stopped") if name in record}
    if group in {"nb201", "anb"}:
        scores["shares_tight"] = {str(count): _tight_share(problem, rows[:count]) for count in counts}  # type: ignore[arg-type]  # tables
        scores["evaluations_to_target"] = first_at(problem, rows, TARGET)
    return scores


def first_at(problem: Problem, rows: Sequence[Row], target: float) -> int | None:
    """Return after how many evaluations the share is at least ``target``; None when it never is. By bisection."""
    low, high = 1, len(rows)
    if not rows or share(problem, rows) < target:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if share(problem, rows[:middle]) >= target else (middle + 1, high)
    return low


def _tight_share(problem: TabulatedProblem, rows: Sequence[Row]) -> float:
    import numpy as np

    corner = problem.tight_reference
    found, best = (
        hypervolume(map(tuple, problem.points(np.array(options)).tolist()), corner) for options in (rows, problem.front)
    )
    return found / best


def score_all(todo: Sequence[Task], cache_folder: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return problem, engine and runs: of the current version where there are any, else of the newest that has some.

    Runs that were shorter than wanted, or killed, count as far as they came and say so.
    """
    records: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for record in load(cache_folder):
        key = record["problem"], record["engine"], record["seed"]
        records.setdefault(key, []).append(record)
    problems: dict[tuple[str, int], Problem] = {}
    scored: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for task in todo:
        place = task.problem, task.seed
        if place not in problems:
            problems[place] = build_problem(task, cache_folder)
        problem = problems[place]
        record = _record_of(task, records, fingerprint(problem), cache_folder)
        runs = scored.setdefault(task.problem, {}).setdefault(task.engine, [])
        if record is not None:
            runs.append(score_run(problem, {**record, "wanted": task.evaluations}))
    return scored


def _record_of(
    task: Task,
    records: dict[tuple[str, str, int], list[dict[str, Any]]],
    wanted: str,
    cache_folder: Path,
) -> dict[str, Any] | None:
    """Return the longest record of the current version, else of the newest, else what a killed run left."""
    found = [
        record
        for record in records.get((task.problem, task.engine, task.seed), ())
        if record["fingerprint"] == wanted and record["evaluations"] <= task.evaluations
    ]
    if found:
        current = [record for record in found if record["version"] == engine_version(task.engine)]
        newest = current or [record for record in found if record["version"] == found[-1]["version"]]
        return max(newest, key=lambda record: len(record["rows"]))
    left = unfinished(task, cache_folder)
    if not left:
        return None
    return {
        "seed": task.seed,
        "rows": [row for row, _, _ in left],
        "cpu_s": [cpu_s for _, _, cpu_s in left],
        "version": engine_version(task.engine),
    }
