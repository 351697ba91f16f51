"""Hypervolume against evaluations: our engines, and a plain Optuna study as the peer, on a problem with a known front.

The problem is synthetic: latency and quality add over the slots of a space of 390,625 architectures, peak memory is
their maximum, and limits on latency and memory leave about two in a hundred inside. The exact front is found by
enumeration. A search's score is the hypervolume of the candidates inside the budget that it paid for, as a share of the
exact front's; the reference corner is (latency limit, memory limit, quality 0).

The peer is Optuna used as its documentation shows: ``study.optimize`` with NSGA-II and constraints, where a candidate
over the budget costs an evaluation like any other. Our loop prices first and pays only for what fits.

    python benchmarks/search_baseline.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from nas.core.architecture import Architecture, ChoiceSpec
from nas.core.cost import Budget, CostEstimate, Interval
from nas.core.evaluation import Quality
from nas.core.files import write_json, write_text_atomically
from nas.core.pareto import hypervolume, non_dominated
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.search import engines, search

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SLOTS, OPTIONS = 8, 5
BASE_LATENCY_MS, BASE_MEMORY_MB = 100.0, 50.0
CHECKPOINTS = (50, 100, 200, 500)
SEARCHES: dict[str, tuple[str, dict[str, Any], int]] = {
    "random": ("random", {}, 500),
    "Optuna NSGA-II": ("optuna", {"sampler": "nsga2", "population": 50}, 500),
    "Optuna NSGA-III": ("optuna", {"sampler": "nsga3", "population": 50}, 500),
    "Optuna TPE": ("optuna", {"sampler": "tpe"}, 200),
}
PEER = "peer: plain Optuna study, NSGA-II"


@dataclass(frozen=True)
class Problem:
    """Tables (slots, options) of one seed, the limits and the exact front's hypervolume."""

    latency: np.ndarray
    memory: np.ndarray
    score: np.ndarray
    limits: tuple[float, float]
    exact: float
    share_inside: float

    name = "table"
    fidelity = "exact"

    def figures(self, options: Sequence[int]) -> tuple[float, float, float]:
        """Return latency in ms, peak memory in MB and negated quality."""
        rows = np.arange(SLOTS), np.asarray(options)
        return (
            BASE_LATENCY_MS + float(self.latency[rows].sum()),
            BASE_MEMORY_MB + float(self.memory[rows].max()),
            -float(self.score[rows].sum()),
        )

    def share(self, points: Sequence[tuple[float, float, float]]) -> float:
        """Return the hypervolume of ``points`` as a share of the exact front's."""
        return hypervolume(points, (*self.limits, 0.0)) / self.exact

    def estimate(self, architecture: Architecture) -> Quality:
        """Quality from the table; this object is the quality estimator."""
        return Quality(score=-self.figures(options_of(architecture))[2], estimator=self.name, fidelity=self.fidelity)


@dataclass(frozen=True)
class Prices:
    """The cost model: exact figures, intervals of no width."""

    problem: Problem

    def estimate(self, architecture: Architecture) -> CostEstimate:
        """Price one architecture."""
        latency_ms, memory_mb, _ = self.problem.figures(options_of(architecture))
        return CostEstimate(
            latency_ms=latency_ms,
            latency_interval_ms=Interval(low=latency_ms, high=latency_ms, coverage=1.0),
            peak_memory_mb=memory_mb,
            memory_interval_mb=Interval(low=memory_mb, high=memory_mb, coverage=1.0),
            parameters=0,
            blocks=(),
            device="synthetic",
            scenario="synthetic",
            predictor="table",
            origin="simulated",
        )


class Space:
    """``SLOTS`` slots with ``OPTIONS`` options each."""

    name, version, identifier = "synthetic", 1, "synthetic/1"

    def choices(self) -> tuple[ChoiceSpec, ...]:
        """Return one choice a slot."""
        return tuple(ChoiceSpec(name=slot, values=tuple(range(OPTIONS))) for slot in self.slots())

    def slots(self) -> tuple[str, ...]:
        """Return the slots' names."""
        return tuple(f"slot{index}" for index in range(SLOTS))

    def options(self, slot: str) -> tuple[Mapping[str, int], ...]:
        """Return the settings of a slot."""
        return tuple({slot: value} for value in range(OPTIONS))

    def count(self) -> int:
        """Return the number of architectures."""
        return OPTIONS**SLOTS

    def from_options(self, options: Sequence[int]) -> Architecture:
        """Return the architecture of option indices."""
        return Architecture(self.identifier, dict(zip(self.slots(), map(int, options), strict=True)))

    def to_options(self, architecture: Architecture) -> tuple[int, ...]:
        """Return the option index of every slot."""
        return options_of(architecture)

    encode, decode = to_options, from_options

    def validate(self, architecture: Architecture) -> None:
        """Check the space."""
        assert architecture.space == self.identifier

    def workload(self, architecture: Architecture, scenario: Any) -> Any:
        """Not needed here."""
        raise NotImplementedError


class Journal:
    """A journal in memory: the benchmark times the search, not the disk."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def append(self, evaluations: Sequence[Any]) -> None:
        """Keep evaluations."""
        self.records.extend(evaluations)

    def read(self) -> list[Any]:
        """Return what is kept."""
        return list(self.records)


def options_of(architecture: Architecture) -> tuple[int, ...]:
    """Return the option index of every slot."""
    return tuple(int(value) for _, value in architecture.choices)


def make_problem(seed: int) -> Problem:
    """Draw tables, set the limits at quantiles of all architectures and find the exact front."""
    rng = np.random.default_rng(seed)
    latency = np.concatenate([np.zeros((SLOTS, 1)), rng.uniform(5, 50, (SLOTS, OPTIONS - 1))], axis=1)
    memory = np.concatenate([np.zeros((SLOTS, 1)), rng.integers(1, 13, (SLOTS, OPTIONS - 1)) * 10.0], axis=1)
    score = latency * rng.uniform(0.005, 0.02, (SLOTS, OPTIONS))
    total = np.zeros((1, 3))  # latency, memory, negated quality of every architecture, built slot by slot
    for slot in range(SLOTS):
        added = total[:, None, [0, 2]] + np.stack([latency[slot], -score[slot]], axis=-1)[None]
        peak = np.maximum(total[:, None, 1], memory[slot][None])
        total = np.stack([added[..., 0], peak, added[..., 1]], axis=-1).reshape(-1, 3)
    total += [BASE_LATENCY_MS, BASE_MEMORY_MB, 0.0]
    limits = float(np.quantile(total[:, 0], 0.04)), float(np.quantile(total[:, 1], 0.4))
    inside = total[(total[:, 0] <= limits[0]) & (total[:, 1] <= limits[1])]
    points = [tuple(row) for row in inside.tolist()]
    front = [points[index] for index in non_dominated(points)]
    exact = hypervolume(front, (*limits, 0.0))
    return Problem(latency, memory, score, limits, exact, len(inside) / len(total))


def run_ours(problem: Problem, name: str, seed: int) -> dict[str, Any]:
    """Run one engine in the loop; return shares at the checkpoints and the time an evaluation took."""
    engine_name, options, evaluations = SEARCHES[name]
    space = Space()
    start = time.perf_counter()
    result = search(
        space,
        engines.build(engine_name, space, options, RandomStreams(seed)),
        cost_model=Prices(problem),
        quality_estimator=problem,
        budget=Budget(latency_ms=problem.limits[0], peak_memory_mb=problem.limits[1]),
        journal=Journal(),
        evaluations=evaluations,
        batch=10,
    )
    seconds = time.perf_counter() - start
    paid = [problem.figures(options_of(one.architecture)) for one in result.evaluations if one.state == "complete"]
    return {
        "shares": shares(problem, paid),
        "paid": len(paid),
        "screened": result.screened,
        "stopped": result.stopped,
        "ms_per_evaluation": 1000 * seconds / len(paid),
    }


def run_peer(problem: Problem, seed: int) -> dict[str, Any]:
    """Run ``study.optimize`` with NSGA-II and constraints; every trial is an evaluation."""
    paid: list[tuple[float, float, float]] = []

    def objective(trial: optuna.Trial) -> tuple[float, float, float]:
        figures = problem.figures([trial.suggest_categorical(f"slot{i}", range(OPTIONS)) for i in range(SLOTS)])
        trial.set_user_attr("excess", [figures[i] / problem.limits[i] - 1 for i in range(2)])
        paid.append(figures)
        return figures

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.NSGAIISampler(
            population_size=50, seed=seed, constraints_func=lambda trial: trial.user_attrs["excess"]
        )
        start = time.perf_counter()
        study = optuna.create_study(directions=["minimize"] * 3, sampler=sampler)
        study.optimize(objective, n_trials=CHECKPOINTS[-1])
        seconds = time.perf_counter() - start
    return {
        "shares": shares(problem, paid),
        "paid": len(paid),
        "screened": 0,
        "stopped": "evaluations",
        "ms_per_evaluation": 1000 * seconds / len(paid),
    }


def shares(problem: Problem, paid: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    """Return the share after each checkpoint that was reached; points over a limit add nothing."""
    return {str(count): problem.share(paid[:count]) for count in CHECKPOINTS if count <= len(paid)}


def to_markdown(document: dict[str, Any]) -> str:
    """Return the table of medians as Markdown."""
    lines = [
        "# Search baseline",
        "",
        f"Median share of the exact front's hypervolume over {document['seeds']} seeds; {document['problem']}",
        "",
        f"| engine | {' | '.join(f'{count} evaluations' for count in CHECKPOINTS)} | ms per evaluation |",
        f"| --- |{' --- |' * (len(CHECKPOINTS) + 1)}",
    ]
    for name, runs in document["runs"].items():
        cells = []
        for count in map(str, CHECKPOINTS):
            found = [run["shares"][count] for run in runs if count in run["shares"]]
            cells.append(f"{median(found):.2f} ({min(found):.2f}-{max(found):.2f})" if found else "-")
        lines.append(f"| {name} | {' | '.join(cells)} | {median(run['ms_per_evaluation'] for run in runs):.1f} |")
    machine, packages = document["host"], document["versions"]
    lines += [
        "",
        "In brackets: lowest and highest seed. Times are of a machine with other load and so upper bounds; they "
        "include every draw that was screened out.",
        "",
        f"{document['created_at']}, {machine['logical_processors']} logical processors, {machine['system']}, "
        f"Python {packages['python']}, optuna {packages['optuna']}, numpy {packages['numpy']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run every search on every seed and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for search_baseline.json and .md")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*SEARCHES, PEER)}
    inside = []
    for seed in range(arguments.seeds):
        problem = make_problem(seed)
        inside.append(problem.share_inside)
        for name in runs:
            runs[name].append(run_peer(problem, seed) if name == PEER else run_ours(problem, name, seed))
            print(f"seed {seed}, {name}: {json.dumps(runs[name][-1]['shares'])}")
    machine = {
        "system": f"{platform.system()} {platform.machine()}",
        "logical_processors": host()["logical_processors"],
    }
    document = {
        "schema": "nas/benchmark/1",
        "benchmark": "search_baseline",
        "created_at": timestamp(),
        "seeds": arguments.seeds,
        "problem": f"{SLOTS} slots x {OPTIONS} options, additive; {min(inside):.1%} to {max(inside):.1%} of all "
        "architectures are inside the budget.",
        "host": machine,
        "versions": versions(),
        "runs": runs,
    }
    write_json(arguments.out / "search_baseline.json", document)
    write_text_atomically(arguments.out / "search_baseline.md", to_markdown(document))
    print(to_markdown(document))


if __name__ == "__main__":
    main()
