"""Export of a full-size network with every temporal kind: seconds and memory of build, export and reload.

    python benchmarks/export_full_size.py --out benchmarks/results

Writes ``export_full_size.json`` and ``export_full_size.md``. The package itself (1.1 GB) goes to a temporary folder
unless ``--keep`` names one. Weights are fresh except that zeros are filled, so that nothing folds away.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import search_spaces
from nas.core.architecture import Architecture
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, versions
from nas.core.scenario import Scenario

if TYPE_CHECKING:
    from nas.core.artefacts import ExportedModel

# slot: kind, width ratio, kernel or heads, layers; joint attention only where a clip has few pixels.
LAYERS: dict[str, tuple[str, float, int | None, int]] = {
    "down0.0": ("conv1d", 0.5, 3, 1),
    "down1.0": ("conv3d", 1.0, None, 1),
    "down2.0": ("conv3d", 1.0, None, 1),
    "mid.0": ("conv3d", 1.0, None, 1),
    "up0.0": ("conv3d", 1.0, None, 2),
    "up0.1": ("cross_attention_3d", 1.0, 8, 1),
    "up1.0": ("self_attention_3d", 1.0, 8, 1),
    "up1.1": ("cross_attention_1d", 1.0, 8, 2),
    "up2.0": ("conv1d", 1.0, 5, 1),
    "up2.1": ("self_attention_1d", 1.0, 4, 1),
}
SCENARIO = Scenario(frames=16, height=512, width=512, denoising_steps=4)


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--keep", type=Path, help="folder to keep the package in")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.out if options.out.is_dir() else None) as folder:
        result = measure(options.keep or Path(folder) / "export", threads=options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "export_full_size.json", result)
    write_text_atomically(options.out / "export_full_size.md", markdown(result))
    print(markdown(result))


def mixed_architecture() -> Architecture:
    """Return an architecture of ``snapgen_v`` with all six temporal kinds."""
    space = search_spaces.get("snapgen_v")
    choices: dict[str, Any] = {}
    for slot, (kind, width_ratio, detail, depth) in LAYERS.items():
        choices |= {f"{slot}.kind": kind, f"{slot}.width_ratio": width_ratio, f"{slot}.depth": depth}
        if detail is not None:
            choices[f"{slot}.kernel" if kind == "conv1d" else f"{slot}.heads"] = detail
    architecture = Architecture(space.identifier, choices)
    space.validate(architecture)
    return architecture


def measure(folder: Path, *, threads: int) -> dict[str, Any]:
    """Build, export and reload once in this process."""
    import torch

    from nas.export import export_denoiser, read_package
    from nas.export.denoiser import peak_rss_mb
    from nas.models.build import build_denoiser

    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    architecture = mixed_architecture()
    start = time.monotonic()
    torch.manual_seed(0)
    denoiser = build_denoiser(search_spaces.get("snapgen_v"), architecture)
    fill_zeros(denoiser)
    build_s, build_rss_mb = time.monotonic() - start, peak_rss_mb()
    clock = _Clock()
    model = export_denoiser(denoiser, SCENARIO, folder, lowering="gpu", parity=False, progress=clock)
    del denoiser
    start = time.monotonic()
    package = read_package(folder / model.packages[0])
    reload_s = time.monotonic() - start
    seconds = {"build": build_s, **clock.seconds(), "reload": reload_s}
    return {
        "schema": "nas/benchmark_export_full_size/1",
        "architecture": architecture.to_dict(),
        "digest": architecture.digest,
        "scenario": {"frames": SCENARIO.frames, "height": SCENARIO.height, "width": SCENARIO.width},
        "parameters": model.parameters,
        "package_bytes": model.package_bytes,
        "weight_bytes": package.weight_bytes,
        "operations": dict(model.operations),
        "checks": _checks(model),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "total_seconds": round(sum(seconds.values()), 1),
        "peak_rss_mb": {"after_build": round(build_rss_mb), "whole": round(peak_rss_mb())},
        "threads": threads,
        "load_average_before": round(load, 1),
        "versions": versions(),
        "host": {key: value for key, value in host().items() if key != "name"},
    }


def fill_zeros(denoiser: Any) -> None:
    """Give small random values to parameters that are all equal, so that no norm or bias folds away."""
    import torch

    with torch.no_grad():
        for parameter in denoiser.parameters():
            if bool(parameter.min() == parameter.max()):
                parameter.add_(torch.randn_like(parameter), alpha=0.02)


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a small page."""
    seconds, memory, scenario = result["seconds"], result["peak_rss_mb"], result["scenario"]
    rows = [f"| {name} | {value} |" for name, value in seconds.items()]
    checks = [
        f"| {item['name']} | {item['expected']} | {item['found']} | {item['passed']} |" for item in result["checks"]
    ]
    used = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    lines = [
        "# Export of a full-size network",
        "",
        f"Architecture `{result['digest']}` of `snapgen_v/1`: {result['parameters'] / 1e6:.1f} M parameters, all six",
        f"temporal kinds, {scenario['frames']} latent frames at {scenario['width']} x {scenario['height']} px.",
        f"Threads {result['threads']} of {result['host']['logical_processors']} logical processors, load average",
        f"{result['load_average_before']} before the start. Repeat: `python benchmarks/export_full_size.py --out .`",
        "",
        f"Total {result['total_seconds']} s; peak memory of the process {memory['whole'] / 1000:.2f} GB, of it",
        f"{memory['after_build'] / 1000:.2f} GB after the build; package {result['package_bytes'] / 1e6:,.1f} MB.",
        "",
        "| step | seconds |",
        "| --- | --- |",
        *rows,
        "",
        "| check of the reloaded package | expected | found | passed |",
        "| --- | --- | --- | --- |",
        *checks,
        "",
        f"Versions: {used}.",
    ]
    return "\n".join(lines) + "\n"


def _checks(model: ExportedModel) -> list[dict[str, Any]]:
    from nas.core.schema import to_data

    return list(to_data(model.checks))


class _Clock:
    """Notes when each step of the export began."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, float]] = []

    def update(self, done: int, total: int, message: str = "") -> None:  # noqa: ARG002  # meets Progress
        self._begun.append((message, time.monotonic()))
        print(f"{message} …", file=sys.stderr, flush=True)

    def seconds(self) -> dict[str, float]:
        pairs = zip(self._begun, self._begun[1:], strict=False)
        return {name: end - start for (name, start), (_, end) in pairs}


if __name__ == "__main__":
    main()
