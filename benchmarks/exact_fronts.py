"""Time and size of complete fronts, and of fronts to a stated bound; members confirmed by integer programmes.

python benchmarks/exact_fronts.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: times are of one thread

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array, vstack

from nas.core.cost import Budget
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.search.exact import AdditiveCosts, AdditiveProblem, ExactFront, SlotSum, solve

NUM_OPTIONS = 9
SAMPLES = 4
MILP_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of problem: what varies besides latency, activations (six levels) and quality."""

    slots: int
    gains: str = "unrelated"  # to latency; "close" ones are nearly proportional to it, which makes fronts long
    pairs: bool = False
    weights: bool = False
    parameters: bool = False
    epsilon_ratio: float | None = None
    latency_share: float = 0.5

    @property
    def name(self) -> str:
        """The case in words."""
        parts = [f"{self.slots} x {NUM_OPTIONS}", f"gains {self.gains}"]
        parts += [word for word in ("pairs", "weights", "parameters") if getattr(self, word)]
        return ", ".join(parts)


CASES = (
    Case(slots=20),
    Case(slots=20, latency_share=1.0),
    Case(slots=20, gains="close"),
    Case(slots=20, pairs=True),
    Case(slots=20, weights=True),
    Case(slots=20, weights=True, pairs=True),
    Case(slots=20, weights=True, parameters=True),
    Case(slots=40),
    Case(slots=40, gains="close", epsilon_ratio=0.005),
    Case(slots=40, pairs=True),
    Case(slots=40, weights=True, epsilon_ratio=0.005),
    Case(slots=40, weights=True, parameters=True, epsilon_ratio=0.005, latency_share=0.2),
)


def build(case: Case, seed: int) -> tuple[AdditiveProblem, Budget]:
    """Return a problem of the case, and its budget: that share of half the dearest latency."""
    rng = np.random.default_rng([case.slots, seed])
    latency = [np.r_[0.0, rng.uniform(5, 50, NUM_OPTIONS - 1)] for _ in range(case.slots)]

    def share(spread: float, power: float) -> list[Any]:
        return [np.r_[0.0, row[1:] ** power * rng.lognormal(0, spread, NUM_OPTIONS - 1)] for row in latency]

    gains = share(0.05, 1.0) if case.gains == "close" else share(0.5, 0.5)
    square = (NUM_OPTIONS, NUM_OPTIONS)
    pairs = [rng.normal(0, 1.0, square) for _ in range(case.slots - 1)] if case.pairs else None
    costs = AdditiveCosts(
        latency_ms=SlotSum.of(latency, base=100.0),
        activation_mb=tuple(np.r_[0.0, 10.0 * rng.integers(1, 7, NUM_OPTIONS - 1)] for _ in range(case.slots)),
        weights_mb=SlotSum.of([row / 3 for row in share(0.6, 1.0)]) if case.weights else None,
        parameters=SlotSum.of([row / 3 for row in share(0.6, 1.0)]) if case.parameters else None,
    )
    budget = Budget(latency_ms=100.0 + case.latency_share * 25.0 * case.slots)
    return AdditiveProblem(costs=costs, quality=SlotSum.of(gains, pairs)), budget


def best_by_milp(problem: AdditiveProblem, limits: dict[str, float]) -> float | None:
    """Return the best quality inside limits on the objectives by HiGHS; None where it is not proven in time.

    One binary an option, one flow a pair (the linearised product), and the largest activation.
    """
    costs, quality = problem.costs, problem.quality
    sizes = costs.sizes
    starts = np.concatenate([[0], np.cumsum(sizes)])
    num_ones = int(starts[-1])
    num_flows = sum(one * two for one, two in pairwise(sizes)) if quality.pairs else 0
    size = num_ones + num_flows + 1
    gain = np.zeros(size)
    gain[:num_ones] = np.concatenate(quality.slots)
    rows, low, high = [], [], []

    def add(positions: Any, values: Any, least: float, most: float) -> None:
        row = lil_array((1, size))
        row[0, positions] = values
        rows.append(row)
        low.append(least)
        high.append(most)

    for slot, count in enumerate(sizes):
        own = np.arange(starts[slot], starts[slot] + count)
        add(own, 1.0, 1.0, 1.0)
        add(np.append(own, size - 1), np.append(costs.activation_mb[slot], -1.0), -np.inf, 0.0)
    position = num_ones
    for slot, pair in enumerate(quality.pairs or ()):
        flow = position + np.arange(pair.size).reshape(pair.shape)
        position += pair.size
        gain[flow.ravel()] = pair.ravel()
        for option in range(pair.shape[0]):
            add(np.append(flow[option], starts[slot] + option), np.append(np.ones(pair.shape[1]), -1.0), 0.0, 0.0)
        for option in range(pair.shape[1]):
            add(
                np.append(flow[:, option], starts[slot + 1] + option), np.append(np.ones(pair.shape[0]), -1.0), 0.0, 0.0
            )
    ones = np.arange(num_ones)
    tables = {
        "latency": (costs.latency_ms, 0.0),
        "memory": (costs.weights_mb, 1.0),
        "parameters": (costs.parameters, 0.0),
    }
    for name, limit in limits.items():
        table, activation = tables[name]
        values = np.zeros(num_ones) if table is None else np.concatenate(table.slots)
        base = 0.0 if table is None else table.base
        add(np.append(ones, size - 1), np.append(values, activation), -np.inf, limit - base + 1e-7)
    integrality = np.zeros(size)
    integrality[:num_ones] = 1
    upper = np.ones(size)
    upper[-1] = np.inf
    found = milp(
        -gain,
        constraints=LinearConstraint(vstack(rows).tocsr(), low, high),
        integrality=integrality,
        bounds=Bounds(np.zeros(size), upper),
        options={"mip_rel_gap": 0.0, "time_limit": MILP_SECONDS},
    )
    return float(-found.fun) + quality.base if found.status == 0 else None


def confirm(problem: AdditiveProblem, front: ExactFront, seed: int) -> dict[str, int]:
    """Return how many sampled members no integer programme beats by more than the bound, of how many proven."""
    chosen = np.random.default_rng(seed).choice(len(front), size=min(SAMPLES, len(front)), replace=False)
    counts = {"sampled": len(chosen), "proven": 0, "confirmed": 0}
    for index in chosen.tolist():
        limits = {"latency": front.costs.latency_ms[index], "memory": front.costs.peak_memory_mb[index]}
        if front.parameters_objective:
            limits["parameters"] = front.costs.parameters[index]
        best = best_by_milp(problem, limits)
        if best is not None:
            counts["proven"] += 1
            counts["confirmed"] += best <= reached(front, index) + 1e-6
    return counts


def reached(front: ExactFront, index: int) -> float:
    """Return the best quality that the certificate allows inside a member's own costs."""
    losses = np.array(front.certificate.objective_losses[: front.points().shape[1]])
    losses[2] = np.inf
    inside = (front.points() <= front.points()[index] + losses + 1e-9).all(axis=1)
    return float(front.quality[inside].max()) + front.certificate.quality_loss


def run(case: Case, seed: int) -> dict[str, Any]:
    """Return figures of one front."""
    problem, budget = build(case, seed)
    start = time.process_time()
    front = solve(problem, budget, epsilon_ratio=case.epsilon_ratio, parameters_objective=case.parameters)
    seconds = time.process_time() - start
    row = {
        "case": case.name,
        **asdict(case),
        "seed": seed,
        "members": len(front),
        "labels": front.certificate.labels,
        "exact": front.certificate.exact,
        "loss_ratio": front.loss_ratio(),
        "cpu_seconds": seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        **confirm(problem, front, seed),
    }
    print(
        f"{case.name}, seed {seed}: {len(front)} members, {seconds:.1f} s, {row['confirmed']}/{row['proven']} confirmed"
    )
    return row


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """Return a table of medians and extremes over seeds."""
    lines = [
        "Complete fronts of quality, latency and peak memory (up to seven activation levels), with parameters as a",
        "fourth objective where named; seconds are of one thread's processor time. The bound is the largest loss in",
        "any objective as a share of the front's range. Sampled members are compared with the best quality by HiGHS",
        "inside their own latency, memory and parameters; proven: solved to optimality within",
        f"{MILP_SECONDS:.0f} s by the clock.",
        "",
        "| problem | latency limit | members | seconds (worst) | bound | confirmed of proven of sampled |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key in dict.fromkeys((row["case"], row["latency_share"]) for row in rows):
        own = [row for row in rows if (row["case"], row["latency_share"]) == key]
        times, members = [row["cpu_seconds"] for row in own], [row["members"] for row in own]
        worst = max(row["loss_ratio"] for row in own)
        bound = "exact" if all(row["exact"] for row in own) else f"{100 * worst:.2f} %"
        sums = [sum(row[name] for row in own) for name in ("confirmed", "proven", "sampled")]
        cells = [key[0], f"{key[1]:.0%}", f"{int(np.median(members)):,}", f"{np.median(times):.1f} ({max(times):.1f})"]
        cells += [bound, f"{sums[0]} of {sums[1]} of {sums[2]}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Solve all cases and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for exact_fronts.json and .md")
    parser.add_argument("--seeds", type=int, default=3, help="problems of each kind")
    parser.add_argument("--cases", type=int, nargs="*", help="only cases of these numbers, from 0")
    arguments = parser.parse_args()
    cases = [CASES[index] for index in arguments.cases or range(len(CASES))]
    rows = []
    for case in cases:
        rows += [run(case, seed) for seed in range(arguments.seeds)]
        body = {"written_at": timestamp(), "host": host(), "versions": versions(), "rows": rows}
        write_json(arguments.out / "exact_fronts.json", body)
        write_text_atomically(arguments.out / "exact_fronts.md", to_markdown(rows))


if __name__ == "__main__":
    main()
