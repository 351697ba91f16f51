"""Compressed packages: size, error and time of every form, and mixed plans against uniform ones of equal size.

    python benchmarks/compression.py --out benchmarks/results [--package TRAINED.mlpackage]

Writes ``compression.json`` and ``compression.md``. Without ``--package`` only the mid-size network is compressed: it
has the shape of ``snapgen_v`` in a fifth of its width and random weights. A package of a trained network is compressed
beside it. Packages go to a temporary folder, or to ``--work``, where a repeated run finds its look-up tables.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, versions
from nas.core.scenario import Scenario
from nas.export.compression import CompressionRecord, CompressionSettings, compress_package, noise_inputs
from nas.export.denoiser import export_denoiser
from nas.export.mil import execute, read_program
from nas.export.mil.compare import compare_tensors
from nas.export.shims import repaired_coremltools
from nas.models.build import build_denoiser
from search_spaces.backbone import BackboneSpec, Level, pruned_unet_stages
from search_spaces.temporal import TemporalSpace

SEED = 0
SCENARIO = Scenario(frames=4, height=128, width=128, denoising_steps=4)
UNIFORM: dict[str, dict[str, Any]] = {
    "palettize 8": {"type": "palettize", "bits": 8},
    "palettize 6": {"type": "palettize", "bits": 6},
    "palettize 4": {"type": "palettize", "bits": 4},
    "palettize 4 per 16 channels": {"type": "palettize", "bits": 4, "group_size": 16},
    "palettize 3": {"type": "palettize", "bits": 3},
    "palettize 2": {"type": "palettize", "bits": 2},
    "linear 8": {"type": "linear", "bits": 8},
    "linear 4 per 32 inputs": {"type": "linear", "bits": 4, "block_size": 32},
    "sparse 50%": {"type": "sparse", "bits": 8},
}
# Uniform forms whose size mixed plans are given.
MATCHED = ("palettize 6", "palettize 4", "palettize 3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One compressed package; errors of the float32 computation against the float16 package, worst output."""

    network: str
    form: str
    package_mb: float
    ratio: float
    psnr_db: float
    relative_rms: float
    predicted_rms: float | None
    cpu_seconds: float
    origin: str = "measured"


def main() -> None:
    """Compress, compare and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--package", type=Path, help="float16 package of a trained network")
    parser.add_argument("--work", type=Path, help="folder for packages and caches")
    parser.add_argument("--skip-coremltools", action="store_true", help="leave out coremltools' own k-means")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        networks = {"mid-size, random weights": mid_size(work / "mid_size")}
        if arguments.package:
            networks["trained toy network"] = arguments.package
        rows, facts = [], {}
        for name, package in networks.items():
            rows += table(name, package, work / name.split(",")[0].replace(" ", "_"), arguments.skip_coremltools)
            facts[name] = package_facts(package)
    body = {
        "command": " ".join(["python benchmarks/compression.py", *(item for item in sys.argv[1:] if "/" not in item)]),
        "host": host(),
        "versions": versions(),
        "seed": SEED,
        "networks": facts,
        "rows": [asdict(row) for row in rows],
    }
    write_json(arguments.out / "compression.json", body)
    write_text_atomically(arguments.out / "compression.md", markdown(body, rows))


def mid_size(folder: Path) -> Path:
    """Export a network of snapgen_v's shape with random weights, unless it is there."""
    package = folder / "denoiser.mlpackage"
    if package.exists():
        return package
    stages = pruned_unet_stages(
        (
            Level(channels=64, up_blocks=(0,), up_attentions=(0,)),
            Level(channels=128, down_attentions=(0,), up_blocks=(0,), up_attentions=(0,)),
            Level(channels=256, down_attentions=(0,), up_blocks=(0,)),
        ),
        source_levels=3,
    )
    backbone = BackboneSpec(
        name="mid_size",
        latent_channels=4,
        latent_downsampling=8,
        text_width=128,
        text_tokens=16,
        max_frames=16,
        norm_groups=8,
        attention_heads=4,
        time_width=256,
        width_multiple=8,
        stages=stages,
    )
    space = TemporalSpace("mid_size", 1, backbone, width_ratios=(0.5, 1.0), kernels=(3, 5), heads=(2, 4))
    generator = np.random.default_rng(SEED)
    architecture = space.from_options([int(generator.integers(1, len(space.options(slot)))) for slot in space.slots()])
    torch.manual_seed(SEED)
    denoiser = build_denoiser(space, architecture)
    with torch.no_grad():
        for parameter in denoiser.parameters():  # heavy tails, and output channels of different size
            if parameter.ndim > 1:
                tails = torch.distributions.StudentT(6.0).sample(parameter.shape)
                channels = torch.exp(0.3 * torch.randn(parameter.shape[0], *(1,) * (parameter.ndim - 1)))
                parameter.copy_(tails * channels * 0.6 / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    export_denoiser(denoiser.eval(), SCENARIO, folder, lowering="gpu", parity=False)
    return package


def table(name: str, package: Path, work: Path, skip_coremltools: bool) -> list[Row]:
    """Compress one package in every form, by coremltools' own k-means, and to mixed plans."""
    rows, cache = [], work / "cache"
    sizes: dict[str, float] = {}
    for form, settings in UNIFORM.items():
        record = compressed(package, work, CompressionSettings(**settings), cache)
        sizes[form] = record.package_bytes / 1e6
        rows.append(row_of(name, form, record))
        print(rows[-1], flush=True)
    for bits in () if skip_coremltools else (6, 4):
        rows.append(coremltools_row(name, package, bits, rows[0]))
        print(rows[-1], flush=True)
    for form in MATCHED:
        for sensitivity in ("layer", "output"):
            settings = CompressionSettings(type="mixed", package_mb=sizes[form], sensitivity=sensitivity)
            record = compressed(package, work, settings, cache)
            rows.append(row_of(name, f"mixed, at most the size of {form}, sensitivity by {sensitivity}", record))
            print(rows[-1], flush=True)
    return rows


def compressed(package: Path, work: Path, settings: CompressionSettings, cache: Path) -> CompressionRecord:
    """Compress into a folder that is emptied afterwards."""
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        return compress_package(package, Path(folder) / "small.mlpackage", settings, cache=cache)


def row_of(name: str, form: str, record: CompressionRecord) -> Row:
    """Return the float32 row of a record."""
    errors = [row for row in record.errors if row.precision == "float32"]
    return Row(
        network=name,
        form=form,
        package_mb=record.package_bytes / 1e6,
        ratio=record.source_bytes / record.package_bytes,
        psnr_db=min(row.psnr_db or float("inf") for row in errors),
        relative_rms=max(row.relative_rms for row in errors),
        predicted_rms=None if record.predicted_noise is None else record.predicted_noise**0.5,
        cpu_seconds=record.cpu_seconds,
    )


def coremltools_row(name: str, package: Path, bits: int, plain: Row) -> Row:
    """Palettize with coremltools' own k-means, and compute the result on the same inputs."""
    program = read_program(package)
    inputs = noise_inputs(program).inputs
    expected = execute(program, inputs)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder, repaired_coremltools() as coremltools:
        from coremltools.optimize import coreml as optimize

        settings = optimize.OptimizationConfig(global_config=optimize.OpPalettizerConfig(mode="kmeans", nbits=bits))
        model = coremltools.models.MLModel(str(package), skip_model_load=True)
        target = Path(folder) / "small.mlpackage"
        optimize.palettize_weights(model, settings).save(str(target))
        found = execute(read_program(target), inputs)
        size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file()) / 1e6
    seconds = time.process_time() - started
    errors = {key: compare_tensors(key, value, found[key]) for key, value in expected.items()}
    rms = max(float((found[key] - value).norm() / value.norm()) for key, value in expected.items())
    return Row(
        network=name,
        form=f"palettize {bits}, coremltools' own k-means",
        package_mb=size,
        ratio=plain.ratio * plain.package_mb / size,
        psnr_db=min(error.psnr_db for error in errors.values()),
        relative_rms=rms,
        predicted_rms=None,
        cpu_seconds=seconds,
    )


def package_facts(package: Path) -> dict[str, Any]:
    """Return size and operations of a package."""
    size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    return {"package_mb": size / 1e6, "operations": len(read_program(package).function().operations)}


def markdown(body: dict[str, Any], rows: list[Row]) -> str:
    """Return the tables, and what they say of mixed plans."""
    machine = body["host"]
    parts = [
        "# Compressed packages",
        f"`{body['command']}`; {machine['processor']}, {machine['logical_processors']} logical processors, one thread; "
        f"seed {SEED}. CPU seconds are of the whole call: measuring layers, fitting tables that are not in the cache "
        "yet, writing the package, computing it in float32 and float16. The first form pays for what later ones find.",
        "PSNR and relative RMS are of the float32 computation against the float16 package, on standard normal inputs. "
        "Predicted is the root of the sum of the layers' noise; for plans by `output` each layer's noise is weighed by "
        "what of it reaches the output (measured), which the others take as 1.",
    ]
    for name, facts in body["networks"].items():
        parts += [f"## {name}", f"{facts['package_mb']:.2f} MB in float16, {facts['operations']} operations."]
        lines = [
            "| form | MB | ratio | PSNR dB | relative RMS | predicted | CPU s | origin |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for row in rows:
            if row.network == name:
                predicted = "" if row.predicted_rms is None else f"{row.predicted_rms:.4f}"
                lines.append(
                    f"| {row.form} | {row.package_mb:.2f} | {row.ratio:.2f} | {row.psnr_db:.1f} | "
                    f"{row.relative_rms:.4f} | {predicted} | {row.cpu_seconds:.1f} | {row.origin} |"
                )
        parts += ["\n".join(lines), verdict(name, rows)]
    return "\n\n".join(parts) + "\n"


def verdict(name: str, rows: list[Row]) -> str:
    """Say by how much mixed plans are better or worse than uniform ones of their size."""
    own = {row.form: row for row in rows if row.network == name}
    lines = []
    for form in MATCHED:
        for sensitivity in ("layer", "output"):
            mixed = own[f"mixed, at most the size of {form}, sensitivity by {sensitivity}"]
            gain = mixed.psnr_db - own[form].psnr_db
            word = "better" if gain > 0 else "worse"
            lines.append(f"- mixed by `{sensitivity}` at the size of {form}: {abs(gain):.1f} dB {word}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
