"""Hypervolume against evaluations on a problem made to look like ours, with its exact front known.

The problem: 20 slots with 9 options (1.2e19 architectures). Latency is a table plus a residual between neighbouring
slots (a tenth of its spread); peak memory is a maximum over slots; quality is a sum over slots, has interactions
between neighbours (35 % of its spread) and noise (3 %). Limits on latency and memory leave 2 to 3 % of random
architectures. There are two versions: what an option adds to quality is a random share of its latency, or has nothing
to do with it. A search's score is the hypervolume of the true figures of what it judged inside the budget, as a share
of the exact front's; the reference is (limits, quality of the empty architecture).

"Screened" searches ask the cost model first and pay only for what fits; all of ours do. The others pay for every draw.

    python benchmarks/search_efficiency.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna

from nas.core.architecture import Architecture, ChoiceSpec
from nas.core.cost import Budget, CostEstimate, Interval
from nas.core.evaluation import Quality
from nas.core.files import write_json, write_text_atomically
from nas.core.pareto import hypervolume
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.search import engines, search
from nas.search.exact import AdditiveCosts, AdditiveProblem, SlotSum, solve
from search_spaces.categorical import CategoricalSpace

SLOTS, OPTIONS = 20, 9
CHECKPOINTS = (50, 100, 200, 500, 1000)
BATCH = 10
INTERACTION_RATIO, RESIDUAL_RATIO, NOISE_RATIO = 0.35, 0.10, 0.03
LATENCY_QUANTILE, MEMORY_QUANTILE = 0.05, 0.4


@dataclass(frozen=True)
class Problem:
    """Tables of one seed, the budget and the exact front's hypervolume."""

    costs: AdditiveCosts
    quality: SlotSum
    noise: float
    budget: Budget
    share_inside: float
    front: Any
    volume: float
    seed: int

    name = "table"
    fidelity = "noisy"

    def points(self, rows: Sequence[Sequence[int]]) -> list[tuple[float, float, float]]:
        """Return latency, negated true quality and memory; in this order hypervolume has few slabs to sweep."""
        options = np.array(rows, dtype=np.int64).reshape(len(rows), len(self.costs.sizes))
        costs = self.costs.score(options)
        inside = self.costs.feasible(options, self.budget)
        columns = np.stack([costs.latency_ms, -self.quality.total(options), costs.peak_memory_mb], axis=1)
        return [tuple(row) for row in columns[inside].tolist()]

    @property
    def reference(self) -> tuple[float, float, float]:
        """The corner that volumes are measured from."""
        return float(self.budget.latency_ms or 0), -self.quality.base, float(self.budget.peak_memory_mb or 0)

    def share(self, rows: Sequence[Sequence[int]]) -> float:
        """Return the hypervolume of architectures as a share of the exact front's."""
        return hypervolume(self.points(rows), self.reference) / self.volume

    def shares(self, rows: Sequence[Sequence[int]]) -> dict[str, float]:
        """Return the share after each checkpoint that was reached."""
        return {str(count): self.share(rows[:count]) for count in CHECKPOINTS if count <= len(rows)}

    def judged(self, row: Sequence[int]) -> float:
        """Return the noisy quality of one architecture; the same every time."""
        key = int.from_bytes(bytes(row), "big")
        generator = np.random.default_rng([self.seed, key & (2**63 - 1), key >> 63])
        return float(self.quality.total(np.array([row]))[0] + self.noise * generator.normal())

    def estimate(self, architecture: Architecture) -> Quality:
        """Judge one architecture; this object is the quality estimator."""
        return Quality(score=self.judged(options_of(architecture)), estimator=self.name, fidelity=self.fidelity)


@dataclass(frozen=True)
class Prices:
    """The cost model: exact figures, intervals of no width."""

    costs: AdditiveCosts

    def estimate(self, architecture: Architecture) -> CostEstimate:
        """Price one architecture."""
        costs = self.costs.score(np.array([options_of(architecture)]))
        latency_ms, memory_mb = float(costs.latency_ms[0]), float(costs.peak_memory_mb[0])
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


class Journal:
    """A journal in memory: the benchmark times the search, not the disk."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.paid_at: list[float] = []

    def append(self, evaluations: Sequence[Any]) -> None:
        """Keep evaluations, and the time at which each was kept."""
        self.records.extend(evaluations)
        self.paid_at += [time.process_time() for one in evaluations if one.state == "complete"]

    def read(self) -> list[Any]:
        """Return them."""
        return list(self.records)


def make_space(num_slots: int = SLOTS) -> CategoricalSpace:
    """Return a space of independent choices."""
    names = [f"slot{index:02d}" for index in range(num_slots)]
    return CategoricalSpace(
        "synthetic", 1, {name: [ChoiceSpec(name=f"{name}.kind", values=tuple(range(OPTIONS)))] for name in names}
    )


def options_of(architecture: Architecture) -> tuple[int, ...]:
    """Return the options of an architecture of ``make_space``; names sort as slots do."""
    return tuple(int(value) for _, value in architecture.choices)


def draw_pairs(rng: np.random.Generator, num_slots: int, spread: float) -> list[np.ndarray]:
    """Return random pair tables whose sum has standard deviation ``spread``; none with option 0, which is nothing."""
    pairs = rng.normal(size=(num_slots - 1, OPTIONS, OPTIONS))
    pairs[:, 0, :] = pairs[:, :, 0] = 0.0
    random = rng.integers(OPTIONS, size=(20_000, num_slots))
    total = sum(pair[random[:, slot], random[:, slot + 1]] for slot, pair in enumerate(pairs))
    return list(pairs * spread / np.std(total))


def make_problem(seed: int, *, num_slots: int = SLOTS, interactions: bool = True, related: bool = False) -> Problem:
    """Draw tables, set the limits at quantiles of random architectures and find the exact front."""
    rng = np.random.default_rng([seed, num_slots])
    latency = [np.r_[0.0, rng.uniform(5, 50, OPTIONS - 1)] for _ in range(num_slots)]
    importance = rng.lognormal(0, 0.5, num_slots)
    score = [
        weight * np.r_[0.0, rng.uniform(0, 1, OPTIONS - 1)] * (row / 50 if related else 1.0)
        for weight, row in zip(importance, latency, strict=True)
    ]
    activation = tuple(np.r_[0.0, 10 * np.ceil(12 * rng.uniform(0, 1, OPTIONS - 1) ** 4)] for _ in range(num_slots))
    random = rng.integers(OPTIONS, size=(50_000, num_slots))
    spread_ms, spread = SlotSum.of(latency).total(random).std(), SlotSum.of(score).total(random).std()
    residual = draw_pairs(rng, num_slots, RESIDUAL_RATIO * spread_ms) if interactions else None
    pairs = draw_pairs(rng, num_slots, INTERACTION_RATIO * spread) if interactions else None
    costs = AdditiveCosts(
        latency_ms=SlotSum.of(latency, residual, base=200.0), activation_mb=activation, base_activation_mb=50.0
    )
    quality = SlotSum.of(score, pairs)
    scored = costs.score(random)
    budget = Budget(
        latency_ms=float(np.quantile(scored.latency_ms, LATENCY_QUANTILE)),
        peak_memory_mb=float(np.quantile(scored.peak_memory_mb, MEMORY_QUANTILE)) + 1.0,
    )
    problem = Problem(
        costs=costs,
        quality=quality,
        noise=NOISE_RATIO * float(quality.total(random).std()),
        budget=budget,
        share_inside=float(costs.feasible(random, budget).mean()),
        front=solve(AdditiveProblem(costs=costs, quality=quality), budget),
        volume=1.0,
        seed=seed,
    )
    return replace(problem, volume=hypervolume(problem.points(problem.front.options), problem.reference))


def run_engine(
    problem: Problem,
    name: str,
    options: dict[str, Any],
    evaluations: int,
    seed: int,
    *,
    residual_known: bool = True,
) -> dict[str, Any]:
    """Run one of our engines in the loop, costs known (but for the residual, if so wished) and candidates screened."""
    space = make_space()
    costs = problem.costs
    if not residual_known:
        costs = replace(costs, latency_ms=replace(costs.latency_ms, pairs=None))
    journal = Journal()
    start = time.process_time()
    result = search(
        space,
        engines.build(name, space, options, RandomStreams(seed), costs=costs, budget=problem.budget),
        cost_model=Prices(problem.costs),
        quality_estimator=problem,
        budget=problem.budget,
        journal=journal,
        evaluations=evaluations,
        batch=BATCH,
        patience=20_000,
    )
    seconds = time.process_time() - start
    paid = [options_of(one.architecture) for one in result.evaluations if one.state == "complete"]
    run = outcome(problem, paid, seconds, screened=result.screened, stopped=result.stopped)
    if len(journal.paid_at) >= 200:
        run["cpu_ms_per_evaluation_at_200"] = 1000 * (journal.paid_at[199] - start) / 200
    return run


def outcome(
    problem: Problem, paid: Sequence[Sequence[int]], seconds: float, *, screened: int = 0, stopped: str = "evaluations"
) -> dict[str, Any]:
    """Return what is kept of one run."""
    return {
        "shares": problem.shares(paid),
        "paid": len(paid),
        "screened": screened,
        "stopped": stopped,
        "cpu_ms_per_evaluation": 1000 * seconds / len(paid),
    }


PROBLEMS = {"quality a random share of latency": True, "quality unrelated to latency": False}


def run_unscreened_random(problem: Problem, evaluations: int, seed: int) -> dict[str, Any]:
    """Judge uniform draws, whatever they cost."""
    rng = RandomStreams(seed).numpy("unscreened")
    start = time.process_time()
    rows = [tuple(row) for row in rng.integers(OPTIONS, size=(evaluations, SLOTS)).tolist()]
    for row in rows:
        problem.judged(row)
    return outcome(problem, rows, time.process_time() - start)


def run_unscreened_optuna(problem: Problem, evaluations: int, seed: int) -> dict[str, Any]:
    """Run ``study.optimize`` with NSGA-II and constraints, as Optuna's documentation shows; every trial is paid for."""
    rows: list[tuple[int, ...]] = []
    limits = problem.reference[0], problem.reference[2]

    def objective(trial: optuna.Trial) -> tuple[float, float, float]:
        row = tuple(trial.suggest_categorical(f"slot{slot}", range(OPTIONS)) for slot in range(SLOTS))
        rows.append(row)
        costs = problem.costs.score(np.array([row]))
        latency_ms, memory_mb = float(costs.latency_ms[0]), float(costs.peak_memory_mb[0])
        trial.set_user_attr("excess", [latency_ms / limits[0] - 1, memory_mb / limits[1] - 1])
        return latency_ms, memory_mb, -problem.judged(row)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.NSGAIISampler(seed=seed, constraints_func=lambda trial: trial.user_attrs["excess"])
        start = time.process_time()
        optuna.create_study(directions=["minimize"] * 3, sampler=sampler).optimize(objective, n_trials=evaluations)
        seconds = time.process_time() - start
    return outcome(problem, rows, seconds)


Runner = Callable[[Problem, int, int], dict[str, Any]]


def ours(name: str, *, residual_known: bool = True, **options: Any) -> Runner:
    """Return a runner of one of our engines."""
    return lambda problem, evaluations, seed: run_engine(
        problem, name, options, evaluations, seed, residual_known=residual_known
    )


SEARCHES: dict[str, tuple[Runner, int, int]] = {  # runner, evaluations, most seeds
    "model_based": (ours("model_based"), 1000, 5),
    "model_based, latency residual unknown to it": (ours("model_based", residual_known=False), 200, 3),
    "model_based without pairs": (ours("model_based", pairs=False), 200, 3),
    "evolving (greedy actions)": (ours("evolving"), 1000, 5),
    "regularised evolution": (ours("regularised"), 1000, 5),
    "Optuna NSGA-II, screened": (ours("optuna", sampler="nsga2"), 1000, 3),
    "Optuna NSGA-II": (run_unscreened_optuna, 1000, 3),
    "random, screened": (ours("random"), 1000, 3),
    "random": (run_unscreened_random, 1000, 5),
}


def best_by_milp(problem: Problem, index: int) -> float | None:
    """Return the highest quality at no more latency and memory than member ``index``; ``None`` if not proved in time.

    An independent check of the exact front, by HiGHS: one binary for each option; options above the member's memory
    are excluded. For problems without interactions.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    latency, quality = (np.concatenate(table.slots) for table in (problem.costs.latency_ms, problem.quality))
    num_slots = len(problem.costs.sizes)
    one_each = np.kron(np.eye(num_slots), np.ones(OPTIONS))
    allowed = np.concatenate(problem.costs.activation_mb) <= problem.front.costs.peak_memory_mb[index]
    most_ms = problem.front.costs.latency_ms[index] - problem.costs.latency_ms.base + 1e-9
    found = milp(
        -quality,
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(latency[None, :], -np.inf, most_ms)],
        integrality=np.ones(len(quality)),
        bounds=Bounds(0, allowed.astype(float)),
        options={"mip_rel_gap": 0.0, "time_limit": 60.0},
    )
    return float(-found.fun) if found.success else None


def time_exact(num_slots: int, *, interactions: bool, members: int) -> dict[str, Any]:
    """Time the exact front of one problem and confirm ``members`` of it by integer programmes."""
    problem = make_problem(0, num_slots=num_slots, interactions=interactions)
    start = time.process_time()
    front = solve(AdditiveProblem(costs=problem.costs, quality=problem.quality), problem.budget)
    seconds = time.process_time() - start
    chosen = np.random.default_rng(0).choice(len(front), size=min(members, len(front)), replace=False).tolist()
    best = [(problem.front.quality[index], best_by_milp(problem, index)) for index in chosen]
    proved = [(ours_, theirs) for ours_, theirs in best if theirs is not None]
    return {
        "slots": num_slots,
        "options": OPTIONS,
        "interactions": interactions,
        "seconds": seconds,
        "members": len(front),
        "exact": front.certificate.exact,
        "quality_loss": front.certificate.quality_loss,
        "levels": front.certificate.levels,
        "labels": front.certificate.labels,
        "milp_proved": len(proved),
        "milp_equal": sum(bool(abs(ours_ - theirs) <= 1e-6) for ours_, theirs in proved),
    }


def to_row(name: str, runs: Sequence[dict[str, Any]]) -> str:
    """Return one engine's row of a table."""
    cells = []
    for count in map(str, CHECKPOINTS):
        found = [run["shares"][count] for run in runs if count in run["shares"]]
        cells.append(f"{median(found):.3f} ({min(found):.2f}-{max(found):.2f})" if found else "-")
    key = "cpu_ms_per_evaluation_at_200"
    early = f"{median(run[key] for run in runs):.1f}" if key in runs[0] else "-"
    cells += [str(len(runs)), early, f"{median(run['cpu_ms_per_evaluation'] for run in runs):.1f}"]
    return f"| {name} | {' | '.join(cells)} |"


def to_markdown(document: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = ["# Search efficiency", "", document["problem"], ""]
    lines += ["Share of the exact front's hypervolume: median (lowest-highest seed)."]
    for problem, searches in document["runs"].items():
        lines += [
            "",
            f"## {problem[0].upper()}{problem[1:]}",
            "",
            f"| engine | {' | '.join(map(str, CHECKPOINTS))} | seeds | CPU ms per evaluation to 200 | to the end |",
            f"| --- |{' --- |' * (len(CHECKPOINTS) + 3)}",
            *(to_row(name, runs) for name, runs in searches.items() if runs),
        ]
    lines += [
        "",
        "Evaluations are what was judged; screened searches also drew candidates over the budget, at no evaluation. "
        "Times are processor seconds of one thread and include the loop, screening and the synthetic cost model. "
        f"Peak memory of the whole benchmark: {document['peak_memory_mb']:.0f} MB.",
        "",
        "## Exact front",
        "",
        "| slots x options | interactions | seconds | members | exact | memory levels | labels | confirmed by HiGHS |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['slots']} x {row['options']} | {'yes' if row['interactions'] else 'no'} | {row['seconds']:.2f} | "
        f"{row['members']} | {'yes' if row['exact'] else 'no'} | {row['levels']} | {row['labels']} | "
        + (f"{row['milp_equal']} of {row['milp_proved']} proved |" if row["milp_proved"] else "- |")
        for row in document["exact"]
    ]
    machine, packages = document["host"], document["versions"]
    lines += [
        "",
        f"{document['created_at']}, {machine['logical_processors']} logical processors, {machine['system']}, "
        f"Python {packages['python']}, numpy {packages['numpy']}, scipy {packages['scipy']}, "
        f"optuna {packages['optuna']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run every search on its seeds and the exact solver; write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for search_efficiency.json and .md")
    parser.add_argument("--seeds", type=int, default=5, help="most seeds of any engine")
    parser.add_argument("--evaluations", type=int, default=1000, help="most evaluations of any engine")
    parser.add_argument("--version", choices=PROBLEMS, help="renew only this version's runs in an earlier result")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    exact = [
        time_exact(20, interactions=False, members=10),
        time_exact(20, interactions=True, members=0),
        time_exact(40, interactions=False, members=5),
        time_exact(40, interactions=True, members=0),
    ]
    print(json.dumps(exact))
    inside: list[float] = []
    earlier = arguments.out / "search_efficiency.json"
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    if arguments.version and earlier.exists():
        document = json.loads(earlier.read_text())
        runs, exact, inside = document["runs"], document["exact"], document["share_inside"]
    for kind, related in PROBLEMS.items():
        if arguments.version not in (None, kind):
            continue
        problems = [make_problem(seed, related=related) for seed in range(arguments.seeds)]
        inside += [problem.share_inside for problem in problems]
        runs[kind] = {name: [] for name in SEARCHES}
        for name, (runner, evaluations, seeds) in SEARCHES.items():
            for seed, problem in enumerate(problems[:seeds]):
                runs[kind][name].append(runner(problem, min(evaluations, arguments.evaluations), seed))
                print(f"{kind}, {name}, seed {seed}: {json.dumps(runs[kind][name][-1])}", flush=True)
        write(arguments.out, runs, exact, inside)  # after each version, since a run takes its time


def write(folder: Path, runs: dict[str, Any], exact: Sequence[dict[str, Any]], inside: Sequence[float]) -> None:
    """Write what there is as JSON and Markdown."""
    document = {
        "schema": "nas/benchmark/1",
        "benchmark": "search_efficiency",
        "created_at": timestamp(),
        "problem": f"{SLOTS} slots x {OPTIONS} options, latency with a residual between neighbours "
        f"({RESIDUAL_RATIO:.0%}), quality with interactions ({INTERACTION_RATIO:.0%}) and noise ({NOISE_RATIO:.0%}); "
        f"{min(inside):.1%} to {max(inside):.1%} of random architectures are inside the budget.",
        "host": {key: value for key, value in host().items() if key != "name"},
        "versions": versions(),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "share_inside": list(inside),
        "exact": exact,
        "runs": runs,
    }
    write_json(folder / "search_efficiency.json", document)
    write_text_atomically(folder / "search_efficiency.md", to_markdown(document))
    print(to_markdown(document))


if __name__ == "__main__":
    main()
