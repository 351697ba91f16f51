"""Text encoders and decoders of real sizes as packages: CPU seconds, memory, and agreement with PyTorch.

    python benchmarks/bundle_coders.py --out benchmarks/results

CLIP ViT-L/14's text model (Stable Diffusion 1.5), its VAE decoder and the tiny autoencoder's decoder, with random
weights: agreement then says that the packages compute the same, not how good pictures are. Needs transformers; with
Core AI installed, its interpreter computes each network too. Writes ``bundle_coders.json`` and ``bundle_coders.md``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, versions
from nas.core.schema import to_data

if TYPE_CHECKING:
    from nas.export.component import Component

# The VAE is computed on 128 px frames (16 x 16 latents) four times; at 512 px that is 16 times the arithmetic.
NETWORKS = {"CLIP ViT-L/14 text": 77, "AutoencoderKL decoder": 16, "AutoencoderTiny decoder": 32}


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--only", choices=tuple(NETWORKS), action="append", help="measure these")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    for name in options.only or NETWORKS:
        # A process each: its peak memory is its own.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measure, (name,)))
        print(row_text(rows[-1]), flush=True)
    result = {
        "schema": "nas/benchmark_bundle_coders/1",
        "rows": rows,
        "seed": 0,
        "threads": 1,
        "load_average_before": round(load, 1),
        "host": host(),
        "versions": versions(),
        "command": "python benchmarks/bundle_coders.py --out .",
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "bundle_coders.json", result)
    write_text_atomically(options.out / "bundle_coders.md", markdown(result))


def component_of(name: str) -> Component:
    """Build a network with random weights."""
    import torch

    from nas.export.decoder import vae_component
    from nas.export.text_encoder import clip_component

    torch.manual_seed(0)
    size = NETWORKS[name]
    if name.startswith("CLIP"):
        from transformers import CLIPTextConfig, CLIPTextModel

        # openai/clip-vit-large-patch14, config.json of its text model.
        config = CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=size,
        )
        ids = torch.randint(49408, (1, size), generator=torch.Generator().manual_seed(0))
        return clip_component(CLIPTextModel(config).eval(), ids)
    from diffusers import AutoencoderKL, AutoencoderTiny

    channels = (128, 256, 512, 512)  # Stable Diffusion 1.5, vae/config.json
    vae = (
        AutoencoderTiny()
        if "Tiny" in name
        else AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    )
    return vae_component(vae.eval(), frames=1, latent_size=(size, size))


def measure(name: str) -> dict[str, Any]:
    """Convert, check and compute one network in this process."""
    import torch

    from nas.export.coreai import export_coreai
    from nas.export.denoiser import peak_rss_mb
    from nas.export.metadata import ExportMetadata
    from nas.export.parts import write_part

    torch.set_num_threads(1)
    component = component_of(name)
    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        start = time.process_time()
        part = write_part(component, Path(folder), metadata=ExportMetadata(), lowering="gpu", calls="", parity=True)
        seconds["convert, check and compute"] = round(time.process_time() - start, 1)
        peak_mb = round(peak_rss_mb())
        opinion = None
        if find_spec("coreai_torch") is not None:
            start = time.process_time()
            opinion = to_data(export_coreai(component, Path(folder) / "network.aimodel"))
            seconds["Core AI"] = round(time.process_time() - start, 1)
    return {
        "network": name,
        "parameters": sum(item.numel() for item in component.module.parameters()),
        "input": [port.shape for port in component.inputs],
        "package_bytes": part.packages[0].file.num_bytes,
        "cpu_seconds": seconds,
        "peak_rss_mb": peak_mb,
        "checks_passed": sum(check.passed for check in part.checks),
        "parity": to_data(part.parity),
        "core_ai": opinion,
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the table."""
    lines = [
        "# Text encoders and decoders of real sizes as packages",
        "",
        f"Random weights, seed {result['seed']}, {result['threads']} thread, load average "
        f"{result['load_average_before']} before the start, so seconds are CPU time. `{result['command']}`",
        "",
        "| network | input | parameters | MB | CPU seconds | peak MB | PSNR float32 / float16 | Core AI, relative |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row_text(row) for row in result["rows"]),
    ]
    return "\n".join(lines) + "\n"


def row_text(row: dict[str, Any]) -> str:
    """Return a network's line of the table."""
    against = [item for item in row["parity"]["rows"] if item["reference"] == "torch, weights as trained"]
    psnr = " / ".join(f"{item['psnr_db']:.1f} dB" for item in against)
    opinion = row["core_ai"]
    other = f"{opinion['max_relative']:.1e}" if opinion else "not installed"
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in row["cpu_seconds"].items())
    size = f"{row['parameters'] / 1e6:.1f} M | {row['package_bytes'] / 1e6:.1f}"
    return f"| {row['network']} | {row['input'][0]} | {size} | {seconds} | {row['peak_rss_mb']:,} | {psnr} | {other} |"


if __name__ == "__main__":
    main()
