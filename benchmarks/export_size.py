"""Export of a 0.6 B network with every temporal kind: seconds, memory and package of one form, each step by itself.

    python benchmarks/export_size.py --lowering neural_engine --frames 2 --size 256 --out benchmarks/results

Writes ``export_size_<lowering>.json`` and prints it. The packages go to a temporary folder unless ``--keep`` names one.
Weights are fresh except that zeros are filled, so that nothing folds away; they are rounded to float16, so that the
comparison of outputs shows the conversion alone. Without ``--compute`` nothing is computed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import search_spaces
from nas.core.architecture import Architecture
from nas.core.files import read_json, write_json
from nas.core.provenance import host, versions
from nas.core.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

# All six temporal kinds; joint attention only where a clip has few pixels.
ALL_KINDS = Path(__file__).resolve().parent / "snapgen_v_all_kinds.json"


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lowering", choices=("neural_engine", "gpu"), required=True)
    parser.add_argument("--architecture", type=Path, default=ALL_KINDS, help="JSON with space and choices")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=512, help="height and width of the video in pixels")
    parser.add_argument("--chunks", type=int, choices=(1, 2), default=1)
    parser.add_argument("--compute", action="store_true", help="one pass of network and package in float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON")
    parser.add_argument("--keep", type=Path, help="folder to keep the packages in")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, options.keep or Path(folder))
    write_json(options.out / f"export_size_{options.lowering}.json", result)
    print(json.dumps(result, indent=2))


def read_architecture(path: Path) -> Architecture:
    """Return the architecture of a JSON file with its space and choices, checked by the space."""
    body = read_json(path)
    architecture = Architecture(body["space"], body["choices"])
    search_spaces.get(architecture.space.partition("/")[0]).validate(architecture)
    return architecture


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build, lower, trace, convert, save, read, check, and where asked for cut and compute, in this process."""
    import torch

    from nas.export.checks import check_package
    from nas.export.chunks import split_package
    from nas.export.component import denoiser_component
    from nas.export.coreml import convert, save
    from nas.export.denoiser import folder_bytes
    from nas.export.package import read_package
    from nas.export.trace import trace
    from nas.models.build import build_denoiser

    torch.set_num_threads(options.threads)
    clock = Clock()
    architecture = read_architecture(options.architecture)
    space = search_spaces.get(architecture.space.partition("/")[0])
    scenario = Scenario(frames=options.frames, height=options.size, width=options.size, denoising_steps=4)
    load = os.getloadavg()[0]
    with clock.step("build"):
        torch.manual_seed(0)
        denoiser = build_denoiser(space, architecture).eval()
        fill_zeros(denoiser)
    with clock.step("lower"):
        component = denoiser_component(denoiser, scenario, lowering=options.lowering)
    with clock.step("trace"):
        program = trace(component)
    with clock.step("convert"):
        model = convert(program, component)
        del program
        gc.collect()
    path = folder / "denoiser.mlpackage"
    folder.mkdir(parents=True, exist_ok=True)
    with clock.step("save"):
        save(model, path)
        del model
        gc.collect()
    with clock.step("read and check"):
        package = read_package(path)
        checks = check_package(package, component)
    outputs = compute(component, path, clock) if options.compute else None
    paths: tuple[Path, ...] = (path,)
    if options.chunks == 2:
        with clock.step("cut in two"):
            paths = split_package(path)
    return {
        "schema": "nas/benchmark_export_size/1",
        "command": f"python benchmarks/export_size.py {' '.join(sys.argv[1:])}",
        "architecture": {"space": architecture.space, "choices": dict(architecture.choices)},
        "parameters": sum(item.numel() for item in denoiser.parameters()),
        "lowering": options.lowering,
        "scenario": {"frames": options.frames, "height": options.size, "width": options.size},
        "seed": 0,
        "steps": clock.rows,
        "to_saved": {
            "seconds": round(sum(row["seconds"] for row in clock.rows[:5]), 1),
            "cpu_seconds": round(sum(row["cpu_seconds"] for row in clock.rows[:5]), 1),
            "peak_rss_mb": clock.rows[4]["peak_rss_mb"],
        },
        "package_bytes": {item.name: folder_bytes(item) for item in paths},
        "operations": package.operations,
        "largest_rank": package.largest_rank,
        "failed_checks": [check.name for check in checks if not check.passed],
        "outputs": outputs,
        "threads": options.threads,
        "load_average_before": round(load, 1),
        "versions": versions(),
        "host": {key: value for key, value in host().items() if key != "name"},
    }


def compute(component: Any, path: Path, clock: Clock) -> dict[str, Any]:
    """Compute network and package in float32 on the component's example and compare."""
    from nas.export.component import example_inputs
    from nas.export.mil.compare import compare_tensors
    from nas.export.mil.executor import execute
    from nas.export.mil.program import read_program
    from nas.export.parity import torch_outputs

    inputs = example_inputs(component)
    with clock.step("torch in float32"):
        (expected,) = torch_outputs(component, inputs).values()
    with clock.step("package in float32"):
        (found,) = execute(read_program(path), inputs).values()
    error = compare_tensors("velocity", expected, found)
    return {"psnr_db": error.psnr_db, "max_relative": error.max_relative, "cosine": error.cosine}


def fill_zeros(denoiser: Any) -> None:
    """Give small random values to parameters that are all equal, and round every weight to float16."""
    import torch

    with torch.no_grad():
        for parameter in denoiser.parameters():
            if bool(parameter.min() == parameter.max()):
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
            parameter.copy_(parameter.half())


class Clock:
    """Wall seconds, CPU seconds and the process's peak memory so far, step by step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        print(f"{name} …", file=sys.stderr, flush=True)
        wall, cpu = time.monotonic(), time.process_time()
        yield
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.rows.append(
            {
                "step": name,
                "seconds": round(time.monotonic() - wall, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "peak_rss_mb": round((peak if sys.platform == "darwin" else peak * 1024) / 1e6),
            }
        )
        print(self.rows[-1], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
