"""Predicted against measured latency and memory of networks that the calibration never saw, on this host.

    python benchmarks/host_accuracy.py --out benchmarks/results

Profiles every distinct block of ``tiny`` and 20 whole networks, calibrates, then measures fresh random networks, filled
from sparse to full, in a second session minutes of measuring later, in processes of its own. The fresh networks are
also predicted by calibrations on other sets of 20 networks, drawn from those measured in the first session
(``--profiled``), which tells what is owed to the very 20. Writes ``host_accuracy.json`` and ``host_accuracy.md``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import yaml

from latency_models import CalibrationOptions, calibrate, choose_networks, compare, measure_all, predict
from latency_models.backends.fresh_process import FreshProcessBackend
from latency_models.memory import memory_graph
from nas.config.templates import read_template
from nas.core.files import write_json, write_text_atomically
from nas.core.profile import ProfileSet
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.pipeline.calibrate import known_workloads, read_records
from nas.pipeline.context import Context, open_run
from nas.pipeline.costs import prior_device
from nas.pipeline.networks import network_jobs
from nas.pipeline.profile import host_backend, measurement_plan
from nas.pipeline.stages import perform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models import Comparison
    from nas.core.architecture import Architecture

NETWORKS = 20
# The worse end of each figure.
WORST: dict[str, Any] = {
    "mean_error_ratio": max,
    "worst_error_ratio": max,
    "within_10_percent": min,
    "interval_coverage": min,
    "interval_half_width": max,
}


class PrintedProgress:
    """Progress as a line a stage."""

    def __init__(self, label: str) -> None:
        self._label = label

    def update(self, done: int, total: int, message: str = "") -> None:
        """Print the end."""
        if done >= total:
            print(f"{self._label}: {done} of {total} {message}", flush=True)


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--networks", type=int, default=100, help="fresh networks to measure")
    parser.add_argument("--profiled", type=int, default=60, help="networks of the first session, to draw sets of 20 of")
    parser.add_argument("--draws", type=int, default=20, help="sets of 20 networks")
    parser.add_argument("--seed", type=int, default=1, help="seed of the fresh networks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options)
    write_json(options.out / "host_accuracy.json", result)
    write_text_atomically(options.out / "host_accuracy.md", markdown(result))
    print(markdown(result))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Profile, calibrate, measure again, compare."""
    context = begin(folder, options.profiled)
    with context.directory.lock():
        perform(context, ("profile",), force=False, progress=PrintedProgress, say=print)
    profiles, _ = read_records(context)
    known = {record.subject for record in profiles.of_level("network")}
    drawn = choose_networks(context.space, options.networks + len(known), RandomStreams(options.seed))
    fresh = [network for network in drawn if network.digest not in known][: options.networks]
    backend = host_backend(context)
    jobs = network_jobs(context.space, fresh, context.scenario, backend.device)
    path = folder / "fresh.jsonl"
    with FreshProcessBackend(backend) as later:
        later.renew()
        records = measure_all(later, jobs, measurement_plan(context), path, progress=PrintedProgress("fresh networks"))
    first = judge(context, networks_only(profiles, first_networks(context)), fresh, records)
    others = []
    for draw in range(options.draws):
        subset = RandomStreams(options.seed).python("draws", draw).sample(sorted(known), NETWORKS)
        others.append(figures(judge(context, networks_only(profiles, set(subset)), fresh, records)))
    return {
        "taken_at": timestamp(),
        "host": host(),
        "versions": versions(),
        "seed": options.seed,
        "block_timings": len({record.subject for record in profiles.of_level("block")}),
        "networks": NETWORKS,
        **figures(first),
        "draws": {
            name: {"mean": mean(row[name] for row in others), "worst": WORST[name](row[name] for row in others)}
            for name in WORST
        },
        **first.to_dict(),
    }


def begin(folder: Path, networks: int) -> Context:
    """Open a run like the demo's, with more networks."""
    settings = yaml.safe_load(read_template("demo"))
    settings["run"]["directory"] = str(folder)
    del settings["phases"]  # single denoiser calls are measured here
    settings["profile"]["networks"] = networks
    (folder / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return open_run(str(folder / "run.yaml"))


def first_networks(context: Context) -> set[str]:
    """Return the networks that a run with 20 of them would have measured."""
    return {network.digest for network in choose_networks(context.space, NETWORKS, context.streams)}


def networks_only(profiles: ProfileSet, subjects: set[str]) -> ProfileSet:
    """Keep all blocks, and of the networks those named."""
    kept = (record for record in profiles.records if record.level == "block" or record.subject in subjects)
    return ProfileSet(records=tuple(kept))


def judge(context: Context, profiles: ProfileSet, fresh: Sequence[Architecture], records: ProfileSet) -> Comparison:
    """Calibrate on ``profiles`` and hold the fresh networks against their measurement."""
    predictor, _ = calibrate(
        profiles, known_workloads(profiles, context), context.scenario, prior_device(context), CalibrationOptions()
    )
    estimates = {
        network.digest: predict(predictor, context.space.workload(network, context.scenario), context.scenario)
        for network in fresh
    }
    held_mb = {
        network.digest: memory_graph(context.space.workload(network, context.scenario)).input_bytes / 1e6
        for network in fresh
    }
    return compare(estimates, records, context.scenario, reference=predictor.model.network_anchor, held_mb=held_mb)


def figures(comparison: Comparison) -> dict[str, float]:
    """Return the figures that are shown."""
    errors = [row.error_ratio for row in comparison.rows]
    return {
        "mean_error_ratio": mean(errors),
        "worst_error_ratio": max(errors),
        "within_10_percent": mean(error <= 0.1 for error in errors),
        "interval_coverage": comparison.coverage,
        "interval_half_width": mean((row.high_ms - row.low_ms) / 2.0 / row.predicted_ms for row in comparison.rows),
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the table of a result."""

    def shown(name: str, form: str) -> str:
        draws = result["draws"][name]
        return f"{form.format(result[name])}; {form.format(draws['mean'])}, {form.format(draws['worst'])}"

    rows = [
        ("fresh networks", f"{len(result['rows'])}"),
        ("median latency error", f"{result['median_error_ratio']:.1%}"),
        ("mean latency error", shown("mean_error_ratio", "{:.1%}")),
        ("worst latency error", shown("worst_error_ratio", "{:.1%}")),
        ("within 10 %", shown("within_10_percent", "{:.0%}")),
        (f"inside the {result['stated_coverage']:.0%} interval", shown("interval_coverage", "{:.0%}")),
        ("half-width of the interval", shown("interval_half_width", "{:.1%}")),
        ("median memory error", f"{result['memory_median_error_ratio']:.2%}"),
        ("machine, against calibration", f"{result['slowdown_ratio']:.2f} times as slow, divided out"),
    ]
    return "\n".join(
        [
            "# Host accuracy",
            "",
            f"`tiny`, host-cpu, one thread; calibrated on {result['block_timings']} block timings and "
            f"{result['networks']} whole networks. After the semicolon: mean and worst over calibrations on other sets "
            f"of {result['networks']} networks of the same session.",
            "",
            "| figure | the run's 20 networks; other sets: mean, worst |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in rows),
            "",
            f"{result['taken_at']}, {result['host']}",
            "",
        ]
    )


if __name__ == "__main__":
    main()
