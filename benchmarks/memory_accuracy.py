"""Predicted against measured peak memory on this host, by the allocator's own account.

    python benchmarks/memory_accuracy.py --out benchmarks/results

Random networks of ``tiny`` and random blocks of ``snapgen_v`` at a size that fits are run once under torch's CPU
allocator; on CUDA, where there is one, the same networks under ``torch.cuda.max_memory_allocated``. Predicted are plain
liveness, the model of eager torch (nothing measured), and that model after the memory line is fitted on twenty other
networks. Writes ``memory_accuracy.json`` and ``memory_accuracy.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import search_spaces
from latency_models import choose_networks, distinct_blocks
from latency_models.backends.torch_memory import peak_allocated_bytes
from latency_models.lowering import LOWERINGS
from latency_models.memory import memory_graph, memory_profile
from latency_models.memory_fit import MemoryReading, fit_memory
from latency_models.residency import MemoryTarget, peak_memory
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario
from nas.core.workload import TensorSpec, Workload
from nas.models.build import build_block, build_denoiser, example_inputs
from search_spaces.layers import block_inputs, write_block

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.core.workload import BlockSpec

TOY = Scenario(frames=8, height=32, width=32, denoising_steps=4, precision="float32", compute_units="cpu_only")
# A seventh of the full size's area and a quarter of its frames: every block fits into a few GB.
SMALLER = Scenario(frames=4, height=192, width=192, denoising_steps=4, precision="float32", compute_units="cpu_only")
FITTED = 20


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--networks", type=int, default=100, help="networks of tiny to measure, beside those to fit on")
    parser.add_argument("--blocks", type=int, default=40, help="blocks of snapgen_v to measure")
    parser.add_argument("--seed", type=int, default=0, help="seed of networks and blocks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        result = measure(options.networks, options.blocks, options.seed)
    write_json(options.out / "memory_accuracy.json", result)
    write_text_atomically(options.out / "memory_accuracy.md", markdown(result))
    print(markdown(result))


def measure(num_networks: int, num_blocks: int, seed: int) -> dict[str, Any]:
    """Measure and predict; every row has megabytes."""
    streams = RandomStreams(seed)
    space = search_spaces.get("tiny/1")
    rows = [network_row(network, "cpu") for network in choose_networks(space, num_networks + FITTED, streams)]
    fitting, rows = rows[:FITTED], rows[FITTED:]
    line = fit_memory(
        [row["eager_mb"] for row in fitting], [MemoryReading(value_mb=row["measured_mb"]) for row in fitting]
    )
    for row in rows:
        row["fitted_mb"] = line.at(row["eager_mb"])
    full = search_spaces.get("snapgen_v/1")
    specs = list(distinct_blocks(full, SMALLER).values())
    order = streams.numpy("blocks").permutation(len(specs))[:num_blocks]
    cuda = [network_row(network, "cuda") for network in choose_networks(space, 20, streams)] if has_cuda() else []
    return {
        "taken_at": timestamp(),
        "host": host(),
        "versions": versions(),
        "seed": seed,
        "fitted_on": FITTED,
        "line": {"scale": line.scale, "constant_mb": line.constant_mb},
        "networks": rows,
        "blocks": [block_row(specs[index]) for index in order],
        "cuda": cuda,
        "cuda_skipped": None if cuda else "torch sees no CUDA GPU",
    }


def has_cuda() -> bool:
    """Whether there is a GPU to measure on."""
    return torch.cuda.is_available()


def network_row(architecture: Architecture, device: str) -> dict[str, Any]:
    """Measured and predicted activation memory of one call of a network of ``tiny``, inputs included."""
    space = search_spaces.get("tiny/1")
    workload = space.workload(architecture, TOY)
    network = build_denoiser(space, architecture, dtype=torch.float32, device=device).eval()
    inputs = example_inputs(space, TOY, dtype=torch.float32, device=device)
    network(*inputs)
    held = memory_graph(workload).input_bytes
    lowering = LOWERINGS["torch" if device == "cpu" else "torch_cuda"]
    return {
        "subject": architecture.digest,
        "weights_mb": workload.weight_bytes / 1e6,
        "measured_mb": (held + peak_bytes(network, inputs, device)) / 1e6,
        "liveness_mb": memory_profile(workload).peak_activation_bytes / 1e6,
        "eager_mb": memory_profile(workload, lowering).peak_activation_bytes / 1e6,
        "arena_mb": peak_memory(workload, MemoryTarget(lowering=LOWERINGS["fused_sdpa"])).arena_mb,
    }


def block_row(spec: BlockSpec) -> dict[str, Any]:
    """Measured and predicted activation memory of one block of ``snapgen_v`` alone, inputs included."""
    shapes = block_inputs(spec)
    operations, tensors = write_block("block", spec, {port: port for port in shapes}, 4)
    sources = [TensorSpec(name=port, shape=shape, element_bytes=4) for port, shape in shapes.items()]
    workload = Workload(
        operations=operations, tensors=(*sources, *tensors), blocks=(("block", spec),), repeats=(("denoiser", 1),)
    )
    module, inputs = build_block(spec, dtype=torch.float32, device="cpu")
    module(*inputs)
    held = memory_graph(workload).input_bytes
    return {
        "subject": spec.signature,
        "weights_mb": workload.weight_bytes / 1e6,
        "measured_mb": (held + peak_bytes(module, inputs, "cpu")) / 1e6,
        "liveness_mb": memory_profile(workload).peak_activation_bytes / 1e6,
        "eager_mb": memory_profile(workload, LOWERINGS["torch"]).peak_activation_bytes / 1e6,
        "arena_mb": peak_memory(workload, MemoryTarget(lowering=LOWERINGS["fused_sdpa"])).arena_mb,
    }


def peak_bytes(module: Any, inputs: tuple[Any, ...], device: str) -> int:
    """Return the allocator's peak above what was held before the call."""
    if device == "cpu":
        return peak_allocated_bytes(lambda: module(*inputs))
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    module(*inputs)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - held


def summary(rows: list[dict[str, Any]], name: str, *, weights: bool) -> tuple[float, float, float]:
    """Return the share within 5 %, the median and the worst error of one prediction."""
    extra = np.array([row["weights_mb"] if weights else 0.0 for row in rows])
    measured = np.array([row["measured_mb"] for row in rows]) + extra
    errors = np.abs(np.array([row[name] for row in rows]) + extra - measured) / measured
    return float((errors <= 0.05).mean()), float(np.median(errors)), float(errors.max())


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a result."""
    sets = [
        (f"{len(result['networks'])} networks of tiny", result["networks"], ("liveness", "eager", "fitted")),
        (f"{len(result['blocks'])} blocks of snapgen_v", result["blocks"], ("liveness", "eager")),
    ]
    if result["cuda"]:
        sets.append((f"{len(result['cuda'])} networks of tiny on CUDA", result["cuda"], ("liveness", "eager")))
    words = {
        "liveness": "liveness of the graph",
        "eager": "eager model, nothing measured",
        "fitted": f"eager model, line fitted on {result['fitted_on']} other networks",
    }
    lines = [
        "# Memory accuracy",
        "",
        "Peak memory by the allocator's own events against predictions, float32, one thread. Activations alone are the",
        "harder test: with weights added, which are known exactly, every error shrinks.",
        "",
        "| measured | prediction | within 5 % | median error | worst error | within 5 %, with weights | worst |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, rows, names in sets:
        for name in names:
            alone = summary(rows, f"{name}_mb", weights=False)
            whole = summary(rows, f"{name}_mb", weights=True)
            lines.append(
                f"| {title} | {words[name]} | {alone[0]:.0%} | {alone[1]:.2%} | {alone[2]:.1%} | {whole[0]:.0%} "
                f"| {whole[2]:.1%} |"
            )
    packing = [row["arena_mb"] / row["liveness_mb"] for row in (*result["networks"], *result["blocks"])]
    skipped = f"CUDA skipped: {result['cuda_skipped']}. " if result["cuda_skipped"] else ""
    lines += [
        "",
        f"An arena packed greedily by size needs {np.mean(packing):.3f} times the lower bound (mean), "
        f"{max(packing):.3f} at most. {skipped}Seed {result['seed']}.",
        "",
        f"{result['taken_at']}, {result['host']}",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
