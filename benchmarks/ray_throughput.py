"""How many tabulated evaluations a second go through Ray tasks, and what a task costs beside a real training.

    python benchmarks/ray_throughput.py --out benchmarks/results

Look-ups in a table, two Ray workers: through the executor alone, which decides itself how many share a task; with one
a task, as a script would do it; and as whole searches with journal, duplicates and prices, on Ray and in one process.
Trainings: a small video network of ``tiny/1`` is trained for some steps in each task, one task after the other; its
overhead is the time from handing it over to having its result, less the time inside the worker. Writes
``ray_throughput.json`` and ``ray_throughput.md``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil
from table_problem import TableProblem, TableQuality

import search_spaces
from nas.core.cost import Budget
from nas.core.evaluation import Quality
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.runs.journal import Journal
from nas.runs.outcomes import Outcomes
from nas.search import engines, search
from nas.search.executors.ray_cluster import RayExecutor
from nas.search.executors.serial import SerialExecutor
from nas.search.judging import judge
from search_spaces.operators import sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.core.architecture import Architecture
    from nas.core.protocols import Executor

WORKERS = 2
QUEUED = 20_000


@dataclass(frozen=True)
class SmallTraining:
    """Trains the network of an architecture of ``tiny/1`` on noise; the score means nothing, the work is real."""

    steps: int = 10
    name: str = "small_training"
    fidelity: str = "noise"

    def estimate(self, architecture: Architecture) -> Quality:
        """Train and return minus the last loss."""
        import torch

        from nas.models.build import build_denoiser

        space = search_spaces.get("tiny/1")
        torch.manual_seed(0)
        network = build_denoiser(space, architecture)
        backbone = space.backbone
        side = 32 // backbone.latent_downsampling
        video = torch.randn(4, 8, backbone.latent_channels, side, side)
        text = torch.randn(4, backbone.text_tokens, backbone.text_width)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
        for _ in range(self.steps):
            loss = (network(video, torch.full((4,), 0.5), text) - video).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return Quality(score=-float(loss), estimator=self.name, fidelity=self.fidelity)


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--count", type=int, default=1_000_000, help="look-ups through the executor")
    parser.add_argument("--single", type=int, default=5_000, help="look-ups with one a task")
    parser.add_argument("--evaluations", type=int, default=100_000, help="evaluations of the searches")
    parser.add_argument("--trainings", type=int, default=8, help="trainings, the first one apart")
    options = parser.parse_args()
    problem = TableProblem()
    with RayExecutor(workers=WORKERS) as executor:
        result: dict[str, Any] = {
            "workers": WORKERS,
            "batched": look_ups(executor, problem, options.count),
            "one_a_task": look_ups(RayExecutor(items_per_task=1), problem, options.single),
            "search_on_ray": searched(executor, problem, options.evaluations),
            "search_in_process": searched(SerialExecutor(), problem, options.evaluations),
            "trainings": trainings(RayExecutor(), options.trainings),
        }
    result |= {"load": os.getloadavg(), "taken_at": timestamp(), "host": host(), "versions": versions()}
    write_json(options.out / "ray_throughput.json", result)
    write_text_atomically(options.out / "ray_throughput.md", markdown(result))
    print(markdown(result))


def look_ups(executor: RayExecutor, problem: TableProblem, count: int) -> dict[str, Any]:
    """Judge ``count`` architectures of the table and check every score."""
    function = partial(judge, TableQuality.of(problem))
    items = islice(every(problem), count)
    executor.prepare(())
    start, processor_start = time.perf_counter(), processor_seconds()
    submitted = finished = 0
    total = 0.0
    while finished < count:
        for item in islice(items, QUEUED - (submitted - finished)):
            executor.submit(submitted, function, item)
            submitted += 1
        for _, outcome in executor.wait():
            finished += 1
            total += outcome.quality.score
    seconds, used = time.perf_counter() - start, used_since(processor_start)
    expected = sum(map(TableQuality.of(problem).score, islice(every(problem), count)))
    if abs(total - expected) > 1e-6 * abs(expected):
        raise RuntimeError(f"the scores add up to {total}, not to {expected}")
    return {
        "count": count,
        "seconds": seconds,
        "per_second": count / seconds,
        "processor_seconds": used,
    }


def processor_seconds() -> dict[int, float]:
    """Return the processor time of this process and of Ray's workers, by process."""
    used = {}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            if process.pid == os.getpid() or any(part.startswith("ray::") for part in process.cmdline()):
                times = process.cpu_times()
                used[process.pid] = times.user + times.system
    return used


def used_since(start: dict[int, float]) -> float:
    """Return the processor time since then, of the processes that are still there."""
    return sum(seconds - start.get(process, 0.0) for process, seconds in processor_seconds().items())


def every(problem: TableProblem) -> Iterator[Architecture]:
    """Return the architectures of the table's space, again and again."""
    while True:
        yield from map(problem.space.from_options, product(range(problem.num_options), repeat=problem.num_slots))


def searched(executor: Executor, problem: TableProblem, evaluations: int) -> dict[str, Any]:
    """Search at random without limits; the time from the first draw to the last line of the journal."""
    with tempfile.TemporaryDirectory() as folder:
        start, processor_start = time.perf_counter(), processor_seconds()
        result = search(
            problem.space,
            engines.build("exhaustive", problem.space, {"limit": problem.space.count()}, RandomStreams(0)),
            cost_model=problem,
            quality_estimator=TableQuality.of(problem),
            budget=Budget(),
            journal=Journal(Path(folder) / "evaluations.jsonl"),
            outcomes=Outcomes(Path(folder) / "outcomes.jsonl"),
            evaluations=evaluations,
            batch=QUEUED // 2,
            executor=executor,
        )
        seconds, used = time.perf_counter() - start, used_since(processor_start)
        return {
            "count": result.complete,
            "seconds": seconds,
            "per_second": result.complete / seconds,
            "processor_seconds": used,
            "journal_bytes_each": (Path(folder) / "evaluations.jsonl").stat().st_size / result.complete,
        }


def trainings(executor: RayExecutor, count: int) -> dict[str, Any]:
    """Train ``count`` networks one after the other, after a first one that makes the worker load torch."""
    space = search_spaces.get("tiny/1")
    random = RandomStreams(0).python("trainings")
    function = partial(judge, SmallTraining())
    inside, overhead = [], []
    for number in range(count + 1):
        start = time.perf_counter()
        executor.submit(number, function, sample(space, random))
        ((_, outcome),) = executor.wait()
        inside.append(outcome.seconds)
        overhead.append(time.perf_counter() - start - outcome.seconds)
    return {
        "count": count,
        "first_inside_s": inside[0],
        "first_overhead_s": overhead[0],
        "median_inside_s": median(inside[1:]),
        "median_overhead_s": median(overhead[1:]),
        "largest_overhead_s": max(overhead[1:]),
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a result."""
    rows = [
        ("executor, batched by itself", "batched"),
        ("executor, one a task", "one_a_task"),
        ("whole search on Ray", "search_on_ray"),
        ("whole search in one process", "search_in_process"),
    ]
    training = result["trainings"]
    return "\n".join(
        [
            "# Throughput through Ray",
            "",
            f"Look-ups in a table, {result['workers']} Ray workers; the searches price, look for duplicates and write",
            "the journal. All were done, in this order, while the machine had other load, see below. Processor seconds",
            "are those of the searching process and of the workers.",
            "",
            "| way | evaluations | seconds | a second | processor seconds |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {one['count']:,} | {one['seconds']:.1f} | {one['per_second']:,.0f} | "
                f"{one['processor_seconds']:.1f} |"
                for name, one in ((name, result[key]) for name, key in rows)
            ),
            "",
            f"A training of {training['median_inside_s']:.1f} s (median of {training['count']}) costs "
            f"{1000 * training['median_overhead_s']:.0f} ms beside (largest "
            f"{1000 * training['largest_overhead_s']:.0f} ms). The first on a fresh worker took",
            f"{training['first_inside_s']:.1f} s, as it loads torch, and {training['first_overhead_s']:.1f} s beside.",
            "",
            f"Load average {result['load'][0]:.1f} on {result['host']['logical_processors']} processors. "
            f"{result['taken_at']}, {result['host']}",
            "",
        ]
    )


if __name__ == "__main__":
    main()
