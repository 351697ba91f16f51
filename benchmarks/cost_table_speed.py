"""How fast a cost table scores random architectures, against one-by-one estimates and a plain NumPy and pandas peer.

    python benchmarks/cost_table_speed.py --out benchmarks/results

Scores ``--count`` random architectures of ``snapgen_v/1`` (text encoder and decoder included) for latency, peak memory
and both ends of both intervals. The peer does the same sums the way a script would: a pandas table per slot, looked up
and added column by column. Times are processor seconds of one thread, the median of the rounds. Writes
``cost_table_speed.json`` and ``cost_table_speed.md``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import search_spaces
from latency_models import compile_cost_table, device
from latency_models.phases import Pipeline, phase_of_figures, phase_of_workload
from latency_models.predictors.roofline import RooflinePredictor
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.core.scenario import Scenario
from search_spaces.stable_diffusion import text_encoder_workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from latency_models import CostTable

SCENARIO = Scenario(frames=16, height=512, width=512, denoising_steps=4, compute_units="cpu_and_gpu")
FIGURES = (
    ("latency_ms", lambda cost: cost.latency_ms),
    ("latency_low_ms", lambda cost: cost.latency_interval_ms.low),
    ("latency_high_ms", lambda cost: cost.latency_interval_ms.high),
    ("peak_memory_mb", lambda cost: cost.peak_memory_mb),
    ("memory_low_mb", lambda cost: cost.memory_interval_mb.low),
    ("memory_high_mb", lambda cost: cost.memory_interval_mb.high),
)


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--count", type=int, default=1_000_000, help="architectures to score")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of the table and the peer")
    parser.add_argument("--single", type=int, default=1000, help="architectures to estimate one by one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the architectures")
    options = parser.parse_args()
    result = measure(options.count, options.rounds, options.single, options.seed)
    write_json(options.out / "cost_table_speed.json", result)
    write_text_atomically(options.out / "cost_table_speed.md", markdown(result))
    print(markdown(result))


def make_table() -> tuple[CostTable, float]:
    """Return the table of the full-size space on a phone, and the processor seconds it took to compile."""
    space = search_spaces.get("snapgen_v/1")
    predictor = RooflinePredictor(device("iphone16_pro_max"), compute_units="cpu_and_gpu")
    pipeline = Pipeline(
        phases=(
            phase_of_workload("text_encoder", text_encoder_workload(), predictor),
            phase_of_figures(
                "decoder", latency_ms=540.0, low_ms=430.0, high_ms=650.0, calls=4, weights_mb=100.0,
                activation_mb=500.0, origin="published", source="any",
            ),
        ),
        keeps_arenas=True,
    )  # fmt: skip
    start = time.thread_time()
    table = compile_cost_table(space, SCENARIO, predictor, pipeline)
    return table, time.thread_time() - start


def measure(count: int, rounds: int, single: int, seed: int) -> dict[str, Any]:
    """Time the table, the peer and single estimates, and hold them against each other."""
    table, compile_s = make_table()
    generator = np.random.default_rng(seed)
    options = np.stack([generator.integers(size, size=count) for size in table.num_options], axis=1)
    scores, table_s = timed(lambda: table.score(options), rounds)
    found, peer_s = timed(lambda: peer(table, options), rounds)
    architectures = [table.space.from_options(row.tolist()) for row in options[:single]]
    costs, single_s = timed(lambda: [table.estimate(architecture) for architecture in architectures], 1)
    ours = {name: getattr(scores, name) for name, _ in FIGURES}
    one_by_one = {name: np.array([read(cost) for cost in costs]) for name, read in FIGURES}
    return {
        "taken_at": timestamp(),
        "host": host(),
        "versions": versions(),
        "seed": seed,
        "count": count,
        "rounds": rounds,
        "single": single,
        "compile_s": compile_s,
        "table_s": table_s,
        "peer_s": peer_s,
        "single_s_each": single_s / single,
        "largest_difference_to_single": max(
            float(np.max(np.abs(ours[name][:single] - values) / values)) for name, values in one_by_one.items()
        ),
        "largest_difference_to_peer": max(
            float(np.max(np.abs(ours[name] - values) / values)) for name, values in found.items()
        ),
    }


def timed(call: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """Return the result of ``call`` and the median of its processor seconds."""
    seconds = []
    result = None
    for _ in range(rounds):
        start = time.thread_time()
        result = call()
        seconds.append(time.thread_time() - start)
    return result, float(np.median(seconds))


def peer(table: CostTable, options: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return latency and peak memory with their upper ends, the plain way."""
    import pandas as pd

    costs = table.slot_costs()
    frame = pd.DataFrame({str(slot): options[:, slot] for slot in range(options.shape[1])})
    sums = {"latency_ms": costs.latency_ms, "latency_high_ms": costs.latency_high_ms, "weights_mb": costs.weights_mb}
    bases = {
        "latency_ms": costs.base_latency_ms,
        "latency_high_ms": costs.base_latency_high_ms,
        "weights_mb": costs.base_weights_mb,
    }
    total = {
        name: bases[name] + sum(frame[str(slot)].map(pd.Series(row)) for slot, row in enumerate(rows))
        for name, rows in sums.items()
    }
    activations = pd.concat(
        [frame[str(slot)].map(pd.Series(row)) for slot, row in enumerate(costs.activation_mb)], axis=1
    )
    largest = activations.max(axis=1).clip(lower=costs.base_activation_mb)
    peak = (total["weights_mb"] + largest).clip(lower=costs.floor_mb)
    high = (total["weights_mb"] + largest * costs.activation_high_ratio + costs.held_high_mb).clip(
        lower=costs.floor_high_mb
    )
    return {
        "latency_ms": total["latency_ms"].to_numpy(),
        "latency_high_ms": total["latency_high_ms"].to_numpy(),
        "peak_memory_mb": peak.to_numpy(),
        "memory_high_mb": high.to_numpy(),
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the table of a result."""
    count, table_s = result["count"], result["table_s"]
    each = 1e6 * result["single_s_each"]
    return "\n".join(
        [
            "# Speed of the cost table",
            "",
            f"`snapgen_v/1`, {count:,} random architectures, text encoder and decoder included; processor seconds of",
            f"one thread, median of {result['rounds']} rounds.",
            "",
            "| way | seconds | figures | times the table's |",
            "| --- | --- | --- | --- |",
            f"| cost table | {table_s:.2f} | latency, memory, both ends of both | 1 |",
            f"| pandas and NumPy peer | {result['peer_s']:.2f} | latency, memory, upper ends | "
            f"{result['peer_s'] / table_s:.1f} |",
            f"| one by one ({each:.0f} microseconds each) | {each * count / 1e6:.0f} (from {result['single']:,}) "
            f"| all, by block and phase | {each * count / 1e6 / table_s:.0f} |",
            "",
            f"Compiling the table took {result['compile_s']:.1f} s once. Largest relative difference to one-by-one "
            f"estimates {result['largest_difference_to_single']:.1e}, to the peer "
            f"{result['largest_difference_to_peer']:.1e}. Seed {result['seed']}.",
            "",
            f"{result['taken_at']}, {result['host']}",
            "",
        ]
    )


if __name__ == "__main__":
    main()
