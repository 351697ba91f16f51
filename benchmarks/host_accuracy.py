"""Predicted against measured latency and memory of networks that the calibration never saw, on this host.

    python benchmarks/host_accuracy.py --out benchmarks/results

Profiles and calibrates ``tiny`` as ``examples/demo.yaml`` does, then measures fresh random networks, filled from sparse
to full, in a second session minutes of measuring later. Writes ``host_accuracy.json`` and ``host_accuracy.md``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import yaml

from latency_models import choose_networks, compare, measure_all
from latency_models.memory import memory_graph
from nas.config.templates import read_template
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.pipeline.context import Context, open_run
from nas.pipeline.costs import load_cost_table, load_predictor
from nas.pipeline.networks import network_jobs
from nas.pipeline.profile import host_backend, measurement_plan
from nas.pipeline.stages import perform


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
    parser.add_argument("--networks", type=int, default=40, help="fresh networks to measure")
    parser.add_argument("--seed", type=int, default=1, help="seed of the fresh networks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), count=options.networks, seed=options.seed)
    write_json(options.out / "host_accuracy.json", result)
    write_text_atomically(options.out / "host_accuracy.md", markdown(result))
    print(markdown(result))


def measure(folder: Path, *, count: int, seed: int) -> dict[str, Any]:
    """Profile, calibrate, measure again, compare."""
    settings = yaml.safe_load(read_template("demo"))
    settings["run"]["directory"] = str(folder)
    del settings["phases"]  # single denoiser calls are measured here
    (folder / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    context = open_run(str(folder / "run.yaml"))
    with context.directory.lock():
        perform(context, ("profile", "calibrate"), force=False, progress=PrintedProgress, say=print)
    known = {network.digest for network in choose_networks(context.space, calibrated(context), context.streams)}
    drawn = choose_networks(context.space, count + len(known), RandomStreams(seed))
    fresh = [network for network in drawn if network.digest not in known][:count]
    backend = host_backend(context)
    jobs = network_jobs(context.space, fresh, context.scenario, backend.device)
    path = folder / "fresh.jsonl"
    records = measure_all(backend, jobs, measurement_plan(context), path, progress=PrintedProgress("fresh networks"))
    table = load_cost_table(context)
    comparison = compare(
        {network.digest: table.estimate(network) for network in fresh},
        records,
        context.scenario,
        reference=load_predictor(context).model.network_anchor,  # type: ignore[attr-defined]  # calibrated above
        held_mb={
            network.digest: memory_graph(context.space.workload(network, context.scenario)).input_bytes / 1e6
            for network in fresh
        },
    )
    errors = sorted(row.error_ratio for row in comparison.rows)
    return {
        "taken_at": timestamp(),
        "host": host(),
        "versions": versions(),
        "seed": seed,
        "blocks_and_networks_measured": len({record["subject"] for record in _lines(context)}),
        "within_10_percent": sum(error <= 0.1 for error in errors) / len(errors),
        "mean_error_ratio": sum(errors) / len(errors),
        "worst_error_ratio": errors[-1],
        **comparison.to_dict(),
    }


def calibrated(context: Context) -> int:
    """Number of networks that the calibration used."""
    section = context.config.profile
    return section.networks if section else 0


def _lines(context: Context) -> list[dict[str, Any]]:
    from nas.core.files import JsonLines

    return JsonLines(context.path("profile", "records.jsonl")).read()


def markdown(result: dict[str, Any]) -> str:
    """Return the table of a result."""
    rows = [
        ("fresh networks", f"{len(result['rows'])}"),
        ("median latency error", f"{result['median_error_ratio']:.1%}"),
        ("mean latency error", f"{result['mean_error_ratio']:.1%}"),
        ("worst latency error", f"{result['worst_error_ratio']:.1%}"),
        ("within 10 %", f"{result['within_10_percent']:.0%}"),
        ("inside the interval (stated)", f"{result['coverage']:.0%} ({result['stated_coverage']:.0%})"),
        ("median memory error", f"{result['memory_median_error_ratio']:.2%}"),
        ("machine, against calibration", f"{result['slowdown_ratio']:.2f} times as slow, divided out"),
    ]
    measured = result["blocks_and_networks_measured"]
    return "\n".join(
        [
            "# Host accuracy",
            "",
            f"`tiny`, host-cpu, one thread; calibrated on {measured} blocks and networks.",
            "",
            "| figure | value |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in rows),
            "",
            f"{result['taken_at']}, {result['host']}",
            "",
        ]
    )


if __name__ == "__main__":
    main()
