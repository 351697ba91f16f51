"""Does choosing the scenario together with the architecture pay: `python benchmarks/joint_scenario.py --out FILE`.

On `tiny` with the cost tables of a phone's prior. Three questions, each at several budgets of a whole generation:

1. Exact fronts, synthetic quality: how much of the joint front's hypervolume does the best fixed scenario reach, for
   scenarios that are worth nothing, a quarter and as much as the architecture? The joint front can only be larger; how
   much is the question.
2. Searches of equal length: the joint space is larger, so a joint search may lose to a search that was given the best
   scenario beforehand.
3. Supernet quality: a pool of architectures judged by really sampling in 1, 2, 4 and 8 steps, without any stated worth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import latency_models
import search_spaces
from latency_models.joint_table import JointCostTable
from latency_models.predictors.roofline import RooflinePredictor
from nas.core.cost import Budget
from nas.core.evaluation import Quality
from nas.core.pareto import hypervolume, non_dominated
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario
from nas.pipeline.costs import additive_costs, latency_range_ms
from nas.search import engines
from nas.search.exact import SlotSum
from nas.search.loop import search
from search_spaces.joint import JointSpace, ScenarioValues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.architecture import Architecture
    from nas.core.evaluation import Evaluation
    from nas.core.scenario import ScenarioPoint

TINY = search_spaces.get("tiny")
OWN = Scenario(frames=8, height=32, width=32, denoising_steps=4)
VALUES = ScenarioValues(denoising_steps=(2, 4, 8), size=((32, 32), (64, 64)))
POOL_VALUES = ScenarioValues(denoising_steps=(1, 2, 4, 8))
DEVICE = "iphone16_pro_max"
SHARES = (0.1, 0.3, 0.6)
WEIGHTS = (0.0, 0.25, 1.0)

PARTS = ("exact", "search", "supernet")
SETTINGS = {
    "exact": ("seeds",),
    "search": ("search_seeds", "search_weights", "evaluations"),
    "supernet": ("pool",),
}

Points = list[tuple[float, float, float]]


def main() -> None:
    """Run the parts and write ``OUT.json`` and ``OUT.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/joint_scenario"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--search-seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--search-weights", type=float, nargs="+", default=WEIGHTS[1:])
    parser.add_argument("--supernet", type=Path, help="search/supernet of a run of examples/demo.yaml (seed 0)")
    parser.add_argument("--pool", type=int, default=40)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the others are kept as OUT has them")
    options = parser.parse_args()
    if "supernet" in options.parts and options.supernet is None:
        parser.error("the part 'supernet' needs --supernet FOLDER")
    space = JointSpace(TINY, VALUES)
    prices = make_prices(space)
    runs = {
        "exact": lambda: exact_fronts(space, prices, options.seeds),
        "search": lambda: equal_searches(
            space, prices, options.search_weights, seeds=options.search_seeds, evaluations=options.evaluations
        ),
        "supernet": lambda: supernet_pool(options.supernet, options.pool),
    }
    file = options.out.with_suffix(".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        begin = time.process_time()
        found = runs[part]()
        settings = {name: getattr(options, name) for name in SETTINGS[part]}
        body = json.loads(file.read_text()) if file.exists() else {}
        body["versions"] = {name: version(name) for name in ("numpy", "torch")}
        body[part] = {"settings": settings, "cpu_seconds": time.process_time() - begin, "found": found}
        file.write_text(json.dumps(body, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(markdown(body))


def make_prices(space: JointSpace) -> JointCostTable:
    """Return the tables of every scenario of a space, by the phone's prior."""
    device = latency_models.device(DEVICE)
    tables = []
    for point in space.points:
        scenario = point.applied(OWN)
        predictor = RooflinePredictor(device, precision=scenario.precision, compute_units=scenario.compute_units)
        tables.append(latency_models.compile_cost_table(TINY, scenario, predictor))
    return JointCostTable(space, tables)


def budget_at(prices: JointCostTable, share: float) -> Budget:
    """Return the latency limit at a share between the cheapest and the dearest candidate of all scenarios."""
    low, high = latency_range_ms(prices, prices.space)
    return Budget(latency_ms=low + share * (high - low))


def synthetic_quality(space: JointSpace, prices: JointCostTable, *, weight: float, seed: int) -> SlotSum:
    """Return a quality that adds over slots, and scenarios worth ``weight`` times the range of the architectures.

    Options are worth the root of what they cost, times a lognormal factor. Of steps the worth is 1 - 1/steps, as the
    error of Euler's method falls; of the size its logarithm; how much of the worth is either's is drawn.
    """
    rng = np.random.default_rng([seed, 7])
    hint = additive_costs(prices).hint_ms
    rows = [np.sqrt(np.maximum(row - row[0], 0.0)) * rng.lognormal(0.0, 0.5, size=len(row)) for row in hint.slots[:-1]]
    spread = sum(float(row.max()) for row in rows)
    part = rng.uniform(0.25, 0.75)
    return SlotSum(slots=(*rows, weight * spread * np.array([_worth(point, part) for point in space.points])))


def _worth(point: ScenarioPoint, part: float) -> float:
    steps, size = point.denoising_steps or 1, point.size or (32, 32)
    return part * (1.0 - 1.0 / steps) / (1.0 - 1.0 / 8.0) + (1.0 - part) * float(np.log2(size[0] / 32.0))


def exact_fronts(space: JointSpace, prices: JointCostTable, seeds: int) -> list[dict[str, Any]]:
    """Return, for each weight and budget, the share of the joint front's hypervolume that fixed scenarios reach."""
    costs = additive_costs(prices)
    parts = [additive_costs(table) for table in prices.tables]
    rows = []
    for weight, share in product(WEIGHTS, SHARES):
        budget = budget_at(prices, share)
        best, middle, used = [], [], []
        for seed in range(seeds):
            quality = synthetic_quality(space, prices, weight=weight, seed=seed)
            joint = costs.front(quality, budget)
            fixed = []
            for index, part in enumerate(parts):
                own = SlotSum(slots=quality.slots[:-1], base=float(quality.slots[-1][index]))
                fixed.append(_points(part.front(own, budget).points()))
            reference = corner([_points(joint.points()), *fixed])
            whole = hypervolume(_points(joint.points()), reference)
            shares = [hypervolume(points, reference) / whole for points in fixed]
            best.append(max(shares))
            middle.append(statistics.median(shares))
            used.append(len(set(joint.options[:, -1].tolist())))
        rows.append(
            {"weight": weight, "budget_share": share, "best_fixed": best, "median_fixed": middle, "scenarios": used}
        )
        print(rows[-1], flush=True)
    return rows


@dataclass(frozen=True)
class Tabulated:
    """A quality by table; of a joint space, or of one scenario of it."""

    space: Any
    quality: SlotSum
    name: str = "synthetic"
    fidelity: str = "table"

    def estimate(self, architecture: Architecture) -> Quality:
        """Look the quality up."""
        row = np.array([self.space.to_options(architecture)])
        return Quality(score=float(self.quality.total(row)[0]), estimator=self.name, fidelity=self.fidelity)


class Memory:
    """A journal that is not kept."""

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Keep nothing."""

    def read(self) -> list[Evaluation]:
        """Return nothing."""
        return []


def equal_searches(
    space: JointSpace, prices: JointCostTable, weights: Sequence[float], *, seeds: int, evaluations: int
) -> list[dict[str, Any]]:
    """Return shares of the exact joint front found in ``evaluations``, jointly and with the scenario fixed."""
    rows = []
    budget = budget_at(prices, SHARES[1])
    for weight, engine in product(weights, ("model_based", "random")):
        joint, best, middle = [], [], []
        for seed in range(seeds):
            quality = synthetic_quality(space, prices, weight=weight, seed=seed)
            exact = _points(additive_costs(prices).front(quality, budget).points())
            found = [_search(engine, space, prices, quality, budget, seed=seed, evaluations=evaluations)]
            for index, table in enumerate(prices.tables):
                own = SlotSum(slots=quality.slots[:-1], base=float(quality.slots[-1][index]))
                found.append(_search(engine, TINY, table, own, budget, seed=seed, evaluations=evaluations))
            reference = corner([exact, *found])
            whole = hypervolume(exact, reference)
            shares = [hypervolume(points, reference) / whole for points in found]
            joint.append(shares[0])
            best.append(max(shares[1:]))
            middle.append(statistics.median(shares[1:]))
        row = {"weight": weight, "engine": engine, "joint": joint, "best_fixed": best, "median_fixed": middle}
        rows.append(row)
        print(row, flush=True)
    return rows


def _search(
    engine: str, space: Any, prices: Any, quality: SlotSum, budget: Budget, *, seed: int, evaluations: int
) -> Points:
    costs = additive_costs(prices)
    if not len(costs.front(quality, budget, max_labels=10)):
        return []
    result = search(
        space,
        engines.build(engine, space, {}, RandomStreams(seed), costs=costs, budget=budget),
        cost_model=prices,
        quality_estimator=Tabulated(space, quality),
        budget=budget,
        journal=Memory(),
        evaluations=evaluations,
    )
    return [_figures(item) for item in result.front.members]


def _figures(item: Evaluation) -> tuple[float, float, float]:
    score = item.quality.score if item.quality else 0.0
    return item.cost.latency_ms, item.cost.peak_memory_mb, -score


def supernet_pool(supernet: Path, count: int) -> dict[str, Any]:
    """Return what a pool judged by sampling says: errors by steps, and fronts with the steps free and fixed.

    Args:
        supernet: Folder of a trained supernet, ``search/supernet`` of a run of `tiny` with seed 0.
        count: Architectures judged: the smallest, the largest, and random ones.
    """
    import torch

    from nas.core.scenario import ScenarioPoint
    from nas.quality.held_out_loss import supernet_quality
    from nas.quality.supernet import load_supernet

    torch.set_num_threads(1)
    space = JointSpace(TINY, POOL_VALUES)
    prices = make_prices(space)
    kit = load_supernet(TINY, supernet, seed=RandomStreams(0).integer("supernet"))
    steps = int(json.loads((supernet / "stage.json").read_text())["steps"])
    judge = supernet_quality(kit, seed=0, trained_steps=steps, num_clips=18, most_steps=8)
    rng = np.random.default_rng(0)
    rows = [[int(rng.integers(len(TINY.options(slot)))) for slot in TINY.slots()] for _ in range(count - 2)]
    pool = [TINY.smallest(), TINY.largest(), *(TINY.from_options(row) for row in rows)]
    points: dict[int, Points] = {}
    errors: dict[int, list[float]] = {}
    begin = time.process_time()
    for number, architecture in enumerate(pool):
        for point in space.points:
            at = point.denoising_steps or 1
            quality = judge.estimate_at(architecture, ScenarioPoint(denoising_steps=at))
            cost = prices.estimate(space.join(architecture, point))
            points.setdefault(at, []).append((cost.latency_ms, cost.peak_memory_mb, -quality.score))
            errors.setdefault(at, []).append(dict(quality.metrics)["sampling_error"])
        print(f"judged {number + 1} of {count}, {time.process_time() - begin:.0f} CPU s", flush=True)
    seconds = (time.process_time() - begin) / (count * len(space.points))
    low, high = min(p[0] for p in points[1]), max(p[0] for p in points[8])
    fronts = []
    for share in SHARES:
        limit = low + share * (high - low)
        inside = {at: [p for p in own if p[0] <= limit] for at, own in points.items()}
        fixed = [_front(own) for own in inside.values()]
        joint = _front([p for own in inside.values() for p in own])
        reference = corner([joint, *fixed])
        whole = hypervolume(joint, reference)
        by_steps = {at: hypervolume(own, reference) / whole for at, own in zip(inside, fixed, strict=True)}
        on_front = {at: sum(p in joint for p in own) for at, own in inside.items()}
        fronts.append({"budget_share": share, "fixed": by_steps, "members_by_steps": on_front})
        print(fronts[-1], flush=True)
    return {
        "trained_steps": steps,
        "sampling_error": {at: statistics.fmean(values) for at, values in errors.items()},
        "seconds_per_candidate": seconds,
        "fronts": fronts,
    }


def _front(points: Points) -> Points:
    return [points[index] for index in non_dominated(points)]


def corner(fronts: Sequence[Points]) -> tuple[float, float, float]:
    """Return the worst of all fronts and a tenth of their range beyond."""
    every = np.array([point for front in fronts for point in front])
    low, high = every.min(axis=0), every.max(axis=0)
    worst = high + 0.1 * np.where(high > low, high - low, 1.0)
    return float(worst[0]), float(worst[1]), float(worst[2])


def _points(rows: Any) -> Points:
    return [(float(row[0]), float(row[1]), float(row[2])) for row in rows]


def markdown(body: dict[str, Any]) -> str:
    """Return the tables of the parts that ``body`` holds."""
    count = len(VALUES.denoising_steps) * len(VALUES.size)
    lines = [
        "# Architecture and scenario together",
        "",
        "Command: `python benchmarks/joint_scenario.py --supernet RUN/search/supernet`. Space `tiny` (6.4 million",
        f"architectures), prices by the prior of {DEVICE}, denoiser alone, {count} scenarios: steps 2, 4, 8 and 32 or",
        "64 px. Budget: share of the way from the cheapest to the dearest candidate of all scenarios. Figures are",
        "shares of the joint front's hypervolume; medians over seeds, with the range.",
    ]
    sections = {"exact": _exact_lines, "search": _search_lines, "supernet": _supernet_lines}
    for part in PARTS:
        if part in body:
            lines += ["", *sections[part](body[part]["found"], body[part]["settings"])]
    seconds = [f"{part} {body[part]['cpu_seconds']:.0f}" for part in PARTS if body.get(part, {}).get("cpu_seconds")]
    return "\n".join([*lines, "", f"CPU seconds: {', '.join(seconds)}.", ""])


def _exact_lines(found: list[dict[str, Any]], settings: dict[str, Any]) -> list[str]:
    return [
        f"## Exact fronts, synthetic quality, {settings['seeds']} seeds",
        "",
        "The joint front holds every fixed one, so no share exceeds 1. Weight: how much the scenarios are worth, of",
        "the range of the architectures; it is assumed, and decides how much there is to gain.",
        "",
        "| weight | budget | best fixed scenario | median fixed scenario | scenarios on the joint front |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row['weight']:g} | {row['budget_share']:g} | {_range(row['best_fixed'])} | "
            f"{_range(row['median_fixed'])} | {statistics.median(row['scenarios']):g} |"
            for row in found
        ),
    ]


def _search_lines(found: list[dict[str, Any]], settings: dict[str, Any]) -> list[str]:
    return [
        f"## Searches of {settings['evaluations']} evaluations, budget {SHARES[1]:g}, {settings['search_seeds']} seeds",
        "",
        "Best fixed is the best of all fixed scenarios, which nobody knows beforehand: finding it costs as many",
        "searches as there are scenarios. Shares are of the exact joint front.",
        "",
        "| weight | engine | joint search | best fixed scenario | median fixed scenario |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row['weight']:g} | {row['engine']} | {_range(row['joint'])} | {_range(row['best_fixed'])} | "
            f"{_range(row['median_fixed'])} |"
            for row in found
        ),
    ]


def _supernet_lines(found: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    errors = ", ".join(f"{at} steps {value:.4f}" for at, value in found["sampling_error"].items())
    lines = [
        "## Supernet quality, really sampled",
        "",
        f"A supernet of {found['trained_steps']} steps, {settings['pool']} architectures in 1, 2, 4 and 8 steps, "
        f"{found['seconds_per_candidate']:.1f} CPU s a candidate. Mean error of sampling: {errors}. Fronts within the",
        "pool, shares of the front with the steps free; budget on the prediction:",
        "",
        "| budget | " + " | ".join(f"{at} steps" for at in POOL_VALUES.denoising_steps) + " | on the joint front |",
        "| --- " * (2 + len(POOL_VALUES.denoising_steps)) + "|",
    ]
    for row in found["fronts"]:
        shares = " | ".join(f"{value:.3f}" for value in row["fixed"].values())
        members = ", ".join(f"{number} of {at} steps" for at, number in row["members_by_steps"].items() if number)
        lines.append(f"| {row['budget_share']:g} | {shares} | {members} |")
    return lines


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
