"""Peak activation memory: liveness over exported programs against the predictor's figure from the description.

    python benchmarks/program_memory.py --out benchmarks/results

Random architectures of ``tiny`` and of ``snapgen_v`` (its structure at an eighth of its channels, so that a conversion
takes half a minute; ``--full`` adds networks at full width) are exported in both lowerings and read back. The same
networks' peaks on this machine's processor are measured by the allocator's events (float32, eager) and set against the
description run eagerly. Writes ``program_memory.json`` and ``program_memory.md``.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import search_spaces
from latency_models.backends.torch_memory import peak_allocated_bytes
from latency_models.lowering import LOWERINGS
from latency_models.memory import memory_graph, memory_profile
from nas.core.files import write_json
from nas.core.provenance import host, versions
from nas.core.scenario import Scenario
from nas.export.component import denoiser_component
from nas.export.coreml import convert, save
from nas.export.mil import activation_peak, read_program, weight_bytes
from nas.export.trace import exportable, trace
from nas.models.build import build_denoiser
from search_spaces.snapgen_v import snapgen_v_backbone
from search_spaces.temporal import TemporalSpace

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from search_spaces.backbone import ResidualBlock

# The exporter's lowerings and how the predictor calls them.
PREDICTED = {"neural_engine": "long_axis_last", "gpu": "fused_sdpa"}
NARROWING = 8
TINY = Scenario(frames=8, height=32, width=32, denoising_steps=4)
LARGE = Scenario(frames=8, height=512, width=512, denoising_steps=4)


def narrow_space() -> TemporalSpace:
    """Return ``snapgen_v`` with an eighth of its channels and of its text's width."""
    spec = snapgen_v_backbone()

    def narrowed(block: ResidualBlock) -> ResidualBlock:
        return replace(
            block,
            in_channels=block.in_channels // NARROWING,
            skip_channels=block.skip_channels // NARROWING,
            out_channels=block.out_channels // NARROWING,
        )

    backbone = replace(
        spec,
        name="snapgen_v_narrow",
        text_width=spec.text_width // NARROWING,
        norm_groups=8,
        time_width=spec.time_width // NARROWING,
        width_multiple=8,
        stages=tuple(replace(stage, blocks=tuple(map(narrowed, stage.blocks))) for stage in spec.stages),
    )
    return TemporalSpace(
        backbone.name, 1, backbone, width_ratios=(0.25, 0.5, 1.0), kernels=(3, 5), heads=(4, 8), depths=(1, 2)
    )


def random_options(space: Any, rng: random.Random) -> list[int]:
    """Return an option for every slot."""
    return [rng.randrange(len(space.options(slot))) for slot in space.slots()]


def package(space: Any, architecture: Architecture, scenario: Scenario, lowering: str, folder: Path) -> Path:
    """Return one network's package in ``folder``, exported where it is not there yet."""
    path = folder / f"{space.name}_{architecture.digest}_{lowering}.mlpackage"
    if path.exists():
        return path
    torch.manual_seed(0)
    denoiser = exportable(build_denoiser(space, architecture).eval())
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)  # nothing that a conversion could fold away
    component = denoiser_component(denoiser, scenario, lowering=lowering)
    save(convert(trace(component), component), path)
    gc.collect()
    return path


def row(space: Any, options: list[int], scenario: Scenario, lowering: str, folder: Path) -> dict[str, Any]:
    """Read one network's package and compare its peak with the description's."""
    architecture = space.from_options(options)
    program = read_program(package(space, architecture, scenario, lowering, folder))
    workload = space.workload(architecture, scenario)
    target = LOWERINGS[PREDICTED[lowering]]
    unpadded = memory_profile(workload, replace(target, row_bytes=1))
    padded = memory_profile(workload, target)
    peak, rows = activation_peak(program), activation_peak(program, row_bytes=target.row_bytes)
    weights = weight_bytes(program)
    return {
        "space": space.name,
        "digest": architecture.digest,
        "lowering": lowering,
        "program_bytes": peak.num_bytes,
        "program_at": peak.location,
        "predicted_bytes": unpadded.peak_activation_bytes,
        "predicted_in": max(unpadded.blocks, key=lambda block: block.peak_bytes).block,
        "program_padded_bytes": rows.num_bytes,
        "predicted_padded_bytes": padded.peak_activation_bytes,
        "weights_stored_bytes": weights.stored,
        "weights_expanded_bytes": weights.decompressed,
        "weights_predicted_bytes": workload.weight_bytes,
    }


def measured(space: Any, options: list[int], scenario: Scenario) -> dict[str, Any]:
    """Measure one network on the host's allocator (float32, eager) beside its description and its program's figure."""
    architecture = space.from_options(options)
    network = build_denoiser(space, architecture).eval()
    spec = network.spec
    inputs = (
        torch.randn(1, scenario.frames, spec.latent_channels, *spec.latent_size(scenario)),
        torch.full((1,), 500.0),
        torch.randn(1, spec.text_tokens, spec.text_width),
    )
    single = space.workload(architecture, replace(scenario, precision="float32"))
    with torch.no_grad():
        network(*inputs)
        peak = memory_graph(single).input_bytes + peak_allocated_bytes(lambda: network(*inputs))
    return {
        "space": space.name,
        "digest": architecture.digest,
        "measured_bytes": peak,
        "eager_bytes": memory_profile(single, LOWERINGS["torch"]).peak_activation_bytes,
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a result."""
    rows = result["rows"]
    lines = [
        "# Memory from the program",
        "",
        "Peak of live activations over the exported program, in program order, against the predictor's figure from the",
        "description; float16. `padded` has rows of 64 bytes on the Neural Engine. Weights are compared as stored.",
        "",
        "| space | lowering | networks | program / predicted | padded | weights | within 5 % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for space, lowering in dict.fromkeys((item["space"], item["lowering"]) for item in rows):
        own = [item for item in rows if (item["space"], item["lowering"]) == (space, lowering)]
        plain, padded, weights = ([ratio(item, name) for item in own] for name in ("", "padded_", "weights"))
        within = sum(abs(value - 1) <= 0.05 for value in plain)
        lines.append(
            f"| {space} | {lowering} | {len(own)} | {span(plain)} | {span(padded)} | {span(weights)} | "
            f"{within} of {len(own)} |"
        )
    lines += [
        "",
        "| space | network | lowering | program MB | at | predicted MB | in | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {item['space']} | `{item['digest']}` | {item['lowering']} | {item['program_bytes'] / 1e6:.3f} | "
        f"{item['program_at'].split(' ')[2]} | {item['predicted_bytes'] / 1e6:.3f} | {item['predicted_in']} | "
        f"{ratio(item, ''):.4f} |"
        for item in rows
    ]
    lines += [
        "",
        "## The same networks on this machine",
        "",
        "Peak of torch's CPU allocator (measured, float32, eager), beside the description run eagerly and half of the",
        "measured figure beside the programs', whose elements are half as large.",
        "",
        "| space | network | measured MB | description, eager MB | ratio | program (gpu) / half of measured |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    programs = {item["digest"]: item["program_bytes"] for item in rows if item["lowering"] == "gpu"}
    for item in result["measured"]:
        half = programs.get(item["digest"], 0) / (item["measured_bytes"] / 2)
        lines.append(
            f"| {item['space']} | `{item['digest']}` | {item['measured_bytes'] / 1e6:.3f} | "
            f"{item['eager_bytes'] / 1e6:.3f} | {item['eager_bytes'] / item['measured_bytes']:.4f} | "
            f"{format(half, '.3f') if half else '-'} |"
        )
    used = ", ".join(f"{name} {result['versions'][name]}" for name in ("torch", "coremltools"))
    lines += [
        "",
        f"Command: `{result['command']}`; seed {result['seed']}, {result['cpu_seconds']:.0f} CPU seconds without the "
        f"conversions of {result['reused']} packages that were there from an earlier run (9 to 47 each), "
        f"{result['host']['system']}, {result['host']['logical_processors']} processors, {used}.",
    ]
    return "\n".join(lines) + "\n"


def ratio(item: dict[str, Any], name: str) -> float:
    """Return program over predicted of one figure."""
    if name == "weights":
        return float(item["weights_stored_bytes"] / item["weights_predicted_bytes"])
    return float(item[f"program_{name}bytes"] / item[f"predicted_{name}bytes"])


def span(values: list[float]) -> str:
    """Return the smallest and the largest of some ratios."""
    return f"{min(values):.4f} to {max(values):.4f}"


def main() -> None:
    """Export, compare and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--tiny", type=int, default=6, help="networks of tiny, each in both lowerings")
    parser.add_argument("--narrow", type=int, default=4, help="networks of snapgen_v's structure, in both lowerings")
    parser.add_argument("--full", type=int, default=0, help="networks of snapgen_v at full width (2 frames)")
    parser.add_argument("--packages", type=Path, help="folder to keep packages in and to take them from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    jobs = [(search_spaces.get("tiny"), TINY)] * options.tiny + [(narrow_space(), LARGE)] * options.narrow
    jobs += [(search_spaces.get("snapgen_v"), replace(LARGE, frames=2))] * options.full
    draws = {"tiny": random.Random(options.seed), "snapgen_v_narrow": random.Random(options.seed + 1)}
    reused = len(list(options.packages.glob("*.mlpackage"))) if options.packages else 0
    rows, peaks = [], []
    for space, scenario in jobs:
        chosen = random_options(space, draws.setdefault(space.name, random.Random(options.seed + 2)))
        for lowering in PREDICTED:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(row(space, chosen, scenario, lowering, options.packages or Path(folder)))
            print(rows[-1], flush=True)
        if space.name == "tiny":
            peaks.append(measured(space, chosen, scenario))
    result = {
        "schema": "nas/benchmark_program_memory/1",
        "command": f"python benchmarks/program_memory.py --tiny {options.tiny} --narrow {options.narrow} "
        f"--full {options.full}",
        "seed": options.seed,
        "reused": reused,
        "rows": rows,
        "measured": peaks,
        "cpu_seconds": time.process_time() - start,
        "versions": versions(),
        "host": {key: value for key, value in host().items() if key != "name"},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "program_memory.json", result)
    (options.out / "program_memory.md").write_text(markdown(result), encoding="utf-8")
    print(markdown(result))


if __name__ == "__main__":
    main()
