"""What cheap estimators and foreknowledge are worth: hypervolume against price with them and without.

The problem is "interacting" of search_problems.py: 20 slots with 9 options, interactions, noise, its exact front known.

Beside the dear estimator there is a cheap one at 0.05 of its price. It is biased: its score is a mixture of the truth
and of another sum over slots and pairs, in a unit of its own, plus noise of a tenth of its spread. Over random
architectures it correlates with the truth by 0.7 (useful) or 0 (useless). Sensitivities for a warm start are what each
option adds to the truth by itself, with noise as large as their spread.

A search's score after some price is the hypervolume of the true figures of what it judged dearly, as a share of the
exact front's. Every search uses the engine model_based with 24 start designs. With a cheap source these are judged
cheaply and only the best of them dearly: what that alone is worth shows in the row with 8 start designs.

    python benchmarks/fidelities.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from search_ours import PATIENCE, Journal, Prices, make_space
from search_problems import SyntheticProblem, make_synthetic, share

from nas.core.evaluation import Quality
from nas.core.files import JsonLines, write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.search import engines, search
from nas.search.engines.halving import SuccessiveHalving
from nas.search.engines.warm import WarmStarted, good_designs
from nas.search.exact import SlotSum
from nas.search.judging import QualityLevel
from nas.search.levels import LevelModels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.architecture import Architecture
    from nas.core.evaluation import Evaluation

KINDS = ("interacting, unrelated", "interacting, related")
CHECKPOINTS = (25, 50, 100)
PRICE, BATCH, WARM_DESIGNS, START_DESIGNS = 0.05, 10, 12, 24
CHEAP_NOISE_RATIO, INTERACTION_RATIO = 0.1, 0.35
SOURCES: dict[str, dict[str, Any]] = {
    "dear estimator alone": {},
    "dear estimator alone, 8 start designs": {"start": 8},
    "useful source below (r = 0.7)": {"correlation": 0.7},
    "useless source below (r = 0)": {"correlation": 0.0},
    "sensitivities, noise 1": {"sensitivity_noise": 1.0},
    "sensitivities of noise alone": {"sensitivity_noise": float("inf")},
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """An estimator of a synthetic problem: a table and noise, the same for an architecture every time."""

    table: SlotSum
    noise: float
    seed: int
    name: str
    fidelity: str = "table"

    def estimate(self, architecture: Architecture) -> Quality:
        """Judge one architecture."""
        row = _row(architecture)
        key = int.from_bytes(bytes(row), "big")
        generator = np.random.default_rng([self.seed, 1, key & (2**63 - 1), key >> 63])
        score = float(self.table.total(np.array([row]))[0] + self.noise * generator.normal())
        return Quality(score=score, estimator=self.name, fidelity=self.fidelity)


def _row(architecture: Architecture) -> tuple[int, ...]:
    return tuple(int(value) for _, value in architecture.choices)  # names sort as the slots do


def cheap_source(problem: SyntheticProblem, correlation: float) -> Source:
    """Mix the truth with another quality that knows nothing of it, so that scores correlate as told."""
    rng = np.random.default_rng([problem.seed, 7])
    sizes = problem.sizes
    random = np.stack([rng.integers(size, size=20_000) for size in sizes], axis=1)
    importance = rng.lognormal(0, 0.5, len(sizes))
    slots = [weight * rng.normal(size=size) for weight, size in zip(importance, sizes, strict=True)]
    pairs = [rng.normal(size=(first, second)) for first, second in pairwise(sizes)]
    alone, between = SlotSum.of(slots), SlotSum.of([np.zeros(size) for size in sizes], pairs)
    scale = INTERACTION_RATIO * float(alone.total(random).std()) / float(between.total(random).std())
    other = SlotSum.of(slots, [scale * table for table in pairs])
    truth, drawn = problem.quality.total(random), other.total(random)
    alike = float(np.cov(truth, drawn)[0, 1] / truth.var())  # by chance; taken out
    along = correlation * np.sqrt(1 + CHEAP_NOISE_RATIO**2)  # noise lowers the correlation
    across = np.sqrt(1 - along**2) / (drawn - alike * truth).std()
    weights = along / truth.std() - alike * across, across
    mixed = [
        [weights[0] * mine + weights[1] * theirs for mine, theirs in zip(ours, others, strict=True)]
        for ours, others in ((problem.quality.slots, other.slots), (problem.quality.pairs or (), other.pairs or ()))
    ]
    table = SlotSum.of(mixed[0], mixed[1], base=-3.0)
    return Source(table=table, noise=CHEAP_NOISE_RATIO, seed=problem.seed, name="cheap")


def sensitivities(problem: SyntheticProblem, noise_ratio: float) -> SlotSum:
    """Return what each option adds by itself, with noise relative to the spread of that; infinite: noise alone."""
    rng = np.random.default_rng([problem.seed, 3])
    rows = [row - row[0] for row in problem.quality.slots]
    spread = float(np.std(np.concatenate([row[1:] for row in rows])))
    noise = [spread * np.r_[0.0, rng.normal(size=len(row) - 1)] for row in rows]
    if np.isinf(noise_ratio):
        return SlotSum.of(noise)
    return SlotSum.of([row + noise_ratio * more for row, more in zip(rows, noise, strict=True)])


def run(
    problem: SyntheticProblem,
    seed: int,
    *,
    evaluations: int,
    correlation: float | None = None,
    sensitivity_noise: float | None = None,
    start: int = START_DESIGNS,
) -> dict[str, Any]:
    """Search with the dear estimator alone, with a cheap source below it, or with sensitivities known."""
    space, streams, costs = make_space(problem.sizes), RandomStreams(seed), problem.costs
    dear: Any = Source(table=problem.quality, noise=problem.noise, seed=seed + 1000, name="dear")
    outside = () if sensitivity_noise is None else (sensitivities(problem, sensitivity_noise),)
    levels = [QualityLevel(estimator=dear)]
    if correlation is not None:
        levels.insert(0, QualityLevel(estimator=cheap_source(problem, correlation), price=PRICE))
    models = LevelModels(sizes=problem.sizes, num_levels=len(levels), latency=costs.hint_ms, outside=outside)
    engine = engines.build(
        "model_based",
        space,
        {"start": start},
        streams,
        costs=costs,
        budget=problem.budget,
        hints=lambda: models.hints(len(levels) - 1),
    )
    if outside:
        engine = WarmStarted(engine, space, good_designs(costs, problem.budget, outside, count=WARM_DESIGNS))
    if len(levels) > 1:
        prices = [level.price for level in levels]
        engine = SuccessiveHalving(engine, space, models, streams, prices=prices, costs=costs, budget=problem.budget)
    began = time.process_time()
    result = search(
        space,
        engine,
        cost_model=Prices(problem, space),
        quality_estimator=levels,
        budget=problem.budget,
        journal=Journal(),
        evaluations=evaluations,
        batch=BATCH,
        patience=PATIENCE,
    )
    return {
        "shares": shares(problem, result.evaluations, evaluations),
        "dear": result.complete,
        "cheap": result.judged_below,
        "cpu_s": time.process_time() - began,
    }


def shares(problem: SyntheticProblem, evaluations: Sequence[Evaluation], limit: int) -> dict[str, float]:
    """Return the share of the exact hypervolume after each price up to ``limit``."""
    judged = [one for one in evaluations if one.state == "complete"]
    paid = np.cumsum([1.0 if one.at_highest_level else PRICE for one in judged])
    result = {}
    for checkpoint in (price for price in CHECKPOINTS if price <= limit):
        inside = zip(judged, paid, strict=True)
        rows = [_row(one.architecture) for one, sum_ in inside if one.at_highest_level and sum_ <= checkpoint + 1e-9]
        result[str(checkpoint)] = share(problem, rows)
    return result


def run_all(cache: JsonLines, *, kinds: Sequence[str], seeds: Sequence[int], evaluations: int) -> None:
    """Run what ``cache`` does not hold yet, or not as long."""
    done = {(row["kind"], row["source"], row["seed"]): row for row in longest(cache.read())}
    for seed in seeds:
        for kind in kinds:
            lengths = {name: done.get((kind, name, seed), {}).get("evaluations", 0) for name in SOURCES}
            todo = [name for name, length in lengths.items() if length < evaluations]
            problem = make_synthetic(kind, seed) if todo else None
            for name in todo:
                assert problem is not None
                figures = run(problem, seed, evaluations=evaluations, **SOURCES[name])
                cache.append({"kind": kind, "source": name, "seed": seed, "evaluations": evaluations, **figures})
                print(kind, name, seed, {key: round(value, 3) for key, value in figures["shares"].items()}, flush=True)


def longest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one run of every kind, source and seed: the one that paid most."""
    kept: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: int(row["evaluations"])):
        kept[row["kind"], row["source"], row["seed"]] = row
    return sorted(kept.values(), key=lambda row: (row["kind"], row["seed"], list(SOURCES).index(row["source"])))


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return one table a kind: medians, least and greatest over seeds."""
    lines = [
        "# Cheap estimators and foreknowledge",
        "",
        "Share of the exact front's hypervolume after a price in dear evaluations, median (least to greatest; "
        "number of seeds); "
        f"a cheap evaluation costs {PRICE}. See benchmarks/fidelities.py.",
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == kind]
        points = [str(price) for price in CHECKPOINTS if any(str(price) in row["shares"] for row in mine)]
        heads = ["known beside costs", *points, "dear evaluations", "cheap evaluations", "CPU s a search"]
        lines += ["", f"## {kind}", "", f"| {' | '.join(heads)} |", "| --- |" + " --- |" * (len(heads) - 1)]
        lines += [_line(name, [row for row in mine if row["source"] == name], points) for name in SOURCES]
    return "\n".join(lines) + "\n"


def _line(name: str, rows: Sequence[dict[str, Any]], points: Sequence[str]) -> str:
    cells = [_spread([row["shares"][point] for row in rows if point in row["shares"]]) for point in points]
    counts = [f"{median(row[key] for row in rows):.0f}" if rows else "-" for key in ("dear", "cheap", "cpu_s")]
    return f"| {' | '.join([name, *cells, *counts])} |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{median(values):.3f} ({min(values):.2f} to {max(values):.2f}; {len(values)})"


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, action="append", help="default: 0 to 4")
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--only-table", action="store_true", help="write the tables of the runs that there are")
    options = parser.parse_args()
    cache = JsonLines(options.out / "fidelities.jsonl")
    if not options.only_table:
        seeds = range(5) if options.seed is None else options.seed
        run_all(cache, kinds=options.kind or KINDS, seeds=seeds, evaluations=options.evaluations)
    rows = longest(cache.read())
    document = {"created_at": timestamp(), "host": host(), "versions": versions(), "runs": rows}
    write_json(options.out / "fidelities.json", document)
    write_text_atomically(options.out / "fidelities.md", to_markdown(rows))


if __name__ == "__main__":
    main()
