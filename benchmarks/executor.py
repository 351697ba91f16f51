"""The MIL executor beside torch: errors on random networks of both spaces and others, time and memory on a larger one.

    python benchmarks/executor.py --out benchmarks/results --state STATE.jsonl [--networks 25] [--full]

Every network is exported to a float16 package, which the executor computes in float32 and in float16; torch computes
the same network in float32 with its weights rounded to float16. One line per network goes to ``--state`` at once, and
those in it are not computed again. Times are CPU seconds of this process, one thread. ``--full`` adds 0.6 B parameters.
Writes ``executor.json`` and ``executor.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.func import functional_call

import search_spaces
from benchmarks.executor_networks import (
    NARROW,
    OTHERS,
    TOY,
    narrow_space,
    other_component,
    random_component,
    trained,
)
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.core.scenario import Scenario
from nas.export.component import denoiser_component, example_inputs
from nas.export.coreml import convert, save
from nas.export.denoiser import peak_rss_mb
from nas.export.mil import compare_outputs, execute, read_program
from nas.export.mil.ranges import seeded_inputs
from nas.export.trace import as_tuple, evaluating, trace
from nas.models.build import build_denoiser
from search_spaces.operators import sample

if TYPE_CHECKING:
    from nas.export.component import Component
    from nas.export.lowering import Lowering

MIDDLE = Scenario(frames=4, height=256, width=256, denoising_steps=4)
FULL = Scenario(frames=16, height=512, width=512, denoising_steps=4)
LIMITS = {"float32": 1e-3, "float16": 1e-2}
FORMS = ("gpu", "neural_engine")
MAX_TIME_RATIO, REPEATS = 3.0, 2


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the JSON and Markdown")
    parser.add_argument("--state", type=Path, help="JSON Lines that grow with every network; they are not done again")
    parser.add_argument("--networks", type=int, default=25, help="random networks of each space")
    parser.add_argument("--full", action="store_true", help="time a network of 0.6 B parameters too")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(json.dumps(memory_of(options.memory_of)))
        return
    lines = options.state.read_text(encoding="utf-8").splitlines() if options.state.is_file() else []
    rows = {row["name"]: row for row in map(json.loads, lines)}
    for name in names(options.networks, full=options.full):
        if name not in rows:
            rows[name] = timed_row(name) if name in TIMED else error_row(name)
            with options.state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[name]) + "\n")
            print(json.dumps(rows[name]), file=sys.stderr, flush=True)
    wanted = [rows[name] for name in names(options.networks, full=options.full)]
    result = {
        "schema": "nas/benchmark_executor/1",
        "created_at": timestamp(),
        "command": f"python benchmarks/executor.py --networks {options.networks}{' --full' if options.full else ''}",
        "limits": LIMITS,
        "networks": wanted,
        "versions": versions(),
        "host": {key: value for key, value in host().items() if key != "name"},
    }
    write_json(options.out / "executor.json", result)
    write_text_atomically(options.out / "executor.md", markdown(result))
    print(markdown(result))


def names(count: int, *, full: bool) -> list[str]:
    """Return the networks: random ones of each space alternating, the others, and those that are timed."""
    forms = [FORMS[seed % 2] for seed in range(count)]
    drawn = [f"{space}, {form} {seed}" for seed, form in enumerate(forms) for space in ("tiny", "snapgen_v narrow")]
    return [*OTHERS, "timed middle", *drawn, *(["timed full"] if full else [])]


def component_of(name: str) -> tuple[Component, tuple[str, ...]]:
    """Build a network by its name; also its temporal kinds."""
    if name in OTHERS:
        return other_component(name), ()
    space_name, form, seed = name.replace(",", "").rsplit(" ", 2)
    space, scenario = (search_spaces.get("tiny"), TOY) if space_name == "tiny" else (narrow_space(), NARROW)
    return random_component(space, scenario, int(seed), lowering=cast("Lowering", form))


def error_row(name: str) -> dict[str, Any]:
    """Export one network and compare the executor with torch."""
    begun = time.process_time()
    component, kinds = component_of(name)
    inputs = example_inputs(component)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.mlpackage"
        save(convert(trace(component), component), path)
        converted = time.process_time()
        expected = stored_outputs(component, inputs)
        program = read_program(path)
        errors = {
            precision: compare_outputs(expected, execute(program, inputs, precision=precision))  # type: ignore[arg-type]  # two words
            for precision in LIMITS
        }
    return {
        "name": name,
        "kinds": kinds,
        "parameters": sum(item.numel() for item in component.module.parameters()),
        "operations": sorted({item.type for item in program.function().operations} - {"const"}),
        "max_relative": {key: max(item.max_relative for item in found) for key, found in errors.items()},
        "psnr_db": {key: min(item.psnr_db for item in found) for key, found in errors.items()},
        "export_cpu_s": round(converted - begun, 1),
        "compute_cpu_s": round(time.process_time() - converted, 2),
    }


def stored_outputs(component: Component, inputs: dict[str, Any]) -> dict[str, Any]:
    """Compute a network in torch with its weights rounded to float16."""
    with evaluating(component.module):
        rounded = {name: item.detach().half().float() for name, item in component.module.named_parameters()}
        found = as_tuple(functional_call(component.module, rounded, tuple(inputs.values())))
    return {port.name: item for port, item in zip(component.outputs, found, strict=True)}


def _middle() -> Component:
    space = narrow_space(divisor=2)
    torch.manual_seed(0)
    return denoiser_component(trained(build_denoiser(space, sample(space, Random(0)))), MIDDLE, lowering="gpu")


def _full() -> Component:
    from benchmarks.export_size import ALL_KINDS, read_architecture

    torch.manual_seed(0)
    network = trained(build_denoiser(search_spaces.get("snapgen_v"), read_architecture(ALL_KINDS)))
    return denoiser_component(network, FULL, lowering="gpu")


TIMED = {"timed middle": (_middle, REPEATS), "timed full": (_full, 1)}


def timed_row(name: str) -> dict[str, Any]:
    """Export one larger network and time torch and the executor, turn by turn; memory in a process of its own."""
    make, repeats = TIMED[name]
    begun = time.process_time()
    component = make()
    inputs = example_inputs(component)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.mlpackage"
        save(convert(trace(component), component), path)
        converted = time.process_time()
        program = read_program(path)
        seconds: dict[str, list[float]] = {"torch": [], "float32": [], "float16": []}
        found: dict[str, Any] = {}
        for _ in range(repeats):
            for kind, times in seconds.items():
                start = time.process_time()
                found[kind] = (
                    stored_outputs(component, inputs) if kind == "torch" else execute(program, inputs, precision=kind)  # type: ignore[arg-type]  # two words
                )
                times.append(time.process_time() - start)
        errors = {key: compare_outputs(found["torch"], found[key]) for key in LIMITS}
        command = [sys.executable, __file__, "--memory-of", str(path)]
        memory = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        "name": name,
        "parameters": sum(item.numel() for item in component.module.parameters()),
        "max_relative": {key: max(item.max_relative for item in items) for key, items in errors.items()},
        "psnr_db": {key: min(item.psnr_db for item in items) for key, items in errors.items()},
        "export_cpu_s": round(converted - begun, 1),
        "cpu_s": {key: [round(item, 2) for item in times] for key, times in seconds.items()},
        "ratio": {key: round(min(seconds[key]) / min(seconds["torch"]), 2) for key in LIMITS},
        "memory": memory,
    }


def memory_of(path: Path) -> dict[str, float]:
    """Compute a package in this process, which holds nothing else, and return its resident memory in MB."""
    program = read_program(path)
    inputs, _ = seeded_inputs([program])
    before = _peak_resident_mb()
    execute(program, inputs)
    return {"before_mb": round(before), "peak_mb": round(_peak_resident_mb())}


def _peak_resident_mb() -> float:
    """Peak of this program's own memory; ``getrusage`` would give that of the process it was started by, if larger."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_rss_mb()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a small page."""
    rows = result["networks"]
    drawn = [row for row in rows if row["name"] not in TIMED]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in drawn:
        groups.setdefault(row["name"] if row["name"] in OTHERS else row["name"].rpartition(" ")[0], []).append(row)
    used = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    lines = [
        "# The MIL executor beside torch",
        "",
        "Each network is exported to a float16 package; the executor computes the saved package in float32 and in",
        "float16 (results rounded after every operation), torch the network in float32, its weights rounded to",
        "float16.",
        "Maximum relative error: largest absolute difference of an output over the largest absolute value of torch's;",
        f"limits {LIMITS['float32']:g} in float32 and {LIMITS['float16']:g} in float16. Random architectures and",
        "weights, seeds 0, 1, ..., exported in turn in the form for the GPU and for the Neural Engine;",
        "`snapgen_v narrow` is `snapgen_v` with a tenth of every width, the same slots and kinds.",
        "",
        "| networks | count | parameters | worst float32 | worst float16 | median float16 | within the limits |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_group_line(name, items) for name, items in groups.items()),
        "",
        _kinds_line(drawn),
        f"MIL operations they use: {', '.join(sorted({item for row in drawn for item in row['operations']}))}.",
        "",
        "## Time and memory",
        "",
        "CPU seconds of one forward pass, one thread, turn by turn; memory is the peak of a process that only reads",
        "and computes the package.",
        "",
        "| network | parameters | torch | executor float32 | float16 | ratio float32 | ratio float16 | peak memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_timed_line(row) for row in rows if row["name"] in TIMED),
        "",
        f"Asked are at most {MAX_TIME_RATIO:g} times torch's time, and 8 GiB for 0.6 B parameters.",
        "",
        f"Repeat: `{result['command']} --out DIR --state FILE`. {result['created_at'][:10]}; "
        f"{result['host']['processor']}, {result['host']['logical_processors']} logical processors, {used}.",
    ]
    return "\n".join(lines) + "\n"


def _group_line(name: str, rows: list[dict[str, Any]]) -> str:
    errors = {key: sorted(row["max_relative"][key] for row in rows) for key in LIMITS}
    inside = sum(all(row["max_relative"][key] <= limit for key, limit in LIMITS.items()) for row in rows)
    sizes = sorted(row["parameters"] / 1e6 for row in rows)
    size = f"{sizes[0]:.2f} M" if len(rows) == 1 else f"{sizes[0]:.2f} to {sizes[-1]:.2f} M"
    worst, half = errors["float32"][-1], errors["float16"]
    middle = half[len(half) // 2]
    return f"| {name} | {len(rows)} | {size} | {worst:.1e} | {half[-1]:.1e} | {middle:.1e} | {inside} of {len(rows)} |"


def _kinds_line(rows: list[dict[str, Any]]) -> str:
    counts = Counter(kind for row in rows for kind in row["kinds"] if kind != "none")
    found = ", ".join(f"{kind} in {count}" for kind, count in sorted(counts.items()))
    return f"Temporal kinds, in how many of the random networks: {found}."


def _timed_line(row: dict[str, Any]) -> str:
    least = {key: min(times) for key, times in row["cpu_s"].items()}
    return (
        f"| {row['name'].removeprefix('timed ')} | {row['parameters'] / 1e6:.1f} M | {least['torch']:.1f} s | "
        f"{least['float32']:.1f} s | {least['float16']:.1f} s | {row['ratio']['float32']:.2f} | "
        f"{row['ratio']['float16']:.2f} | {row['memory']['peak_mb'] / 1000:.2f} GB "
        f"({row['memory']['before_mb'] / 1000:.2f} GB before) |"
    )


if __name__ == "__main__":
    main()
