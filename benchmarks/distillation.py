"""Which scaling distils better, and when the teacher's answers on disk pay: `--out benchmarks/results/distillation`.

One larger teacher (wider, more blocks) is trained; students of the `tiny` space learn from it with the fixed weights
and with SnapGen's timestep-aware scaling, for the same steps and from the same weights, and are compared by held-out
losses. Filling and reading the cache are timed against computing every answer. The folder --work keeps checkpoints.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import search_spaces
from nas.core.architecture import Architecture
from nas.core.provenance import host, versions
from nas.core.rng import RandomStreams
from nas.core.schema import to_data
from nas.models.build import build_denoiser
from nas.models.unet import VideoUNet
from nas.training.data import make_latent_clips
from nas.training.distillation import distil
from nas.training.multi_level import clip_errors
from nas.training.options import DistillationOptions, LoopOptions, NoiseOptions, TeacherOptions
from nas.training.sampling import predict_velocity
from nas.training.stage import Kit, make_kit
from nas.training.teacher import train_teacher
from nas.training.teacher_cache import TeacherCache
from nas.training.teacher_targets import Drawn, FixedDraws, Teacher
from search_spaces.backbone import Level, pruned_unet_stages
from search_spaces.tiny import tiny_backbone

if TYPE_CHECKING:
    from nas.training.data import LatentClips
    from nas.training.stage import StageResult

SPACE = search_spaces.get("tiny")
STUDENT = {
    "down0.0": {"kind": "conv1d", "width_ratio": 1.0, "kernel": 3},
    "down1.0": {"kind": "self_attention_1d", "width_ratio": 1.0, "heads": 4},
    "mid.0": {"kind": "self_attention_3d", "width_ratio": 1.0, "heads": 4},
    "up0.0": {"kind": "conv3d", "width_ratio": 0.5},
    "up1.0": {"kind": "conv1d", "width_ratio": 1.0, "kernel": 3},
}
TEACHER = {
    "down0.1": {"kind": "conv1d", "width_ratio": 1.0, "kernel": 3},
    "down1.0": {"kind": "self_attention_1d", "width_ratio": 1.0, "heads": 4},
    "mid.0": {"kind": "self_attention_3d", "width_ratio": 1.0, "heads": 4},
    "up0.0": {"kind": "self_attention_1d", "width_ratio": 1.0, "heads": 4},
    "up1.1": {"kind": "conv1d", "width_ratio": 1.0, "kernel": 3},
}
SCALINGS = ("fixed", "timestep_aware")
CPU = torch.device("cpu")


def teacher_network() -> VideoUNet:
    """Wider than the student and with two blocks a stage at the top; its features need one adapter."""
    backbone = dataclasses.replace(
        tiny_backbone(),
        name="larger",
        stages=pruned_unet_stages(
            (
                Level(channels=64, down_blocks=(0, 1), up_blocks=(0, 2), up_attentions=(0,)),
                Level(channels=96, down_attentions=(0,), up_blocks=(0,), up_attentions=(0,)),
            ),
            source_levels=2,
        ),
    )
    choices: dict[str, Any] = {f"{slot}.kind": "none" for slot in backbone.slots}
    choices |= {f"{slot}.{name}": value for slot, setting in TEACHER.items() for name, value in setting.items()}
    return VideoUNet(space="larger/1", choices=choices, backbone=to_data(backbone))


def student_network(seed: int) -> VideoUNet:
    """A mixed student, one layer of each family, with fresh weights."""
    choices = {f"{slot}.{name}": value for slot, setting in STUDENT.items() for name, value in setting.items()}
    torch.manual_seed(seed)
    return build_denoiser(SPACE, Architecture(SPACE.identifier, choices))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="path without suffix; .json and .md are written")
    parser.add_argument("--work", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=250)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    torch.manual_seed(0)
    kit = make_kit(teacher_network(), text_width=64, text_tokens=12, latent_channels=16, patch=8, seed=0)
    data = make_latent_clips(8192, codec=kit.codec, captions=kit.captions, seed=1)
    held_out = make_latent_clips(256, codec=kit.codec, captions=kit.captions, seed=2, split="held_out")
    loop = LoopOptions(steps=arguments.teacher_steps, batch_size=16, threads=1)
    taught = train_teacher(
        kit, data, options=TeacherOptions(loop=loop), folder=arguments.work / "teacher", streams=RandomStreams(0)
    )
    say(f"teacher {taught.loss:.4f}", began)
    rows: list[dict[str, Any]] = [measured("teacher", 0, taught.kit.denoiser, taught, held_out)]
    for seed in range(arguments.seeds):
        for scaling in SCALINGS:
            student = student_network(seed)
            options = DistillationOptions(
                loop=LoopOptions(steps=arguments.steps, batch_size=16, learning_rate=1e-3, threads=1), scaling=scaling
            )
            folder = arguments.work / f"{scaling}-{seed}"
            distil(kit.with_denoiser(student), taught.kit, data, options=options, folder=folder / "distillation",
                   streams=RandomStreams(seed))  # fmt: skip
            rows.append(measured(scaling, seed, student, taught, held_out))
            say(f"{scaling} {seed}: {rows[-1]}", began)
    timing = time_cache(taught.kit, kit, arguments.work / "cache")
    write(arguments, rows, timing, seconds=time.process_time() - began)


@torch.no_grad()
def measured(
    name: str, seed: int, network: torch.nn.Module, taught: StageResult, held_out: LatentClips
) -> dict[str, Any]:
    """Held-out errors on fixed noise against data and teacher, over all times and by thirds of them."""
    kit = taught.kit.with_denoiser(network)
    draws = FixedDraws(
        data=held_out, captions=kit.captions, options=NoiseOptions(text_dropout=0.0, image_ratio=0.0), per_clip=4,
        streams=RandomStreams(11),
    )  # fmt: skip
    parts: list[torch.Tensor] = []
    for number in range(4):
        for clips in torch.arange(len(held_out)).split(64):
            noisy = draws.make(Drawn(clips=clips, draws=torch.full_like(clips, number), images=False), CPU)
            tokens = kit.captions(noisy.text).tokens
            predicted = predict_velocity(network, noisy.noisy, noisy.times, tokens)
            wanted = predict_velocity(taught.kit.denoiser, noisy.noisy, noisy.times, tokens)
            errors = clip_errors(predicted, noisy.target), clip_errors(predicted, wanted)
            parts.append(torch.stack([noisy.times, *errors]))
    times, task, output = torch.cat(parts, dim=1)
    row: dict[str, Any] = {"network": name, "seed": seed, "task_loss": task.mean().item()}
    row["output_loss"] = output.mean().item()
    for low, high in ((0.0, 0.4), (0.4, 0.7), (0.7, 1.0)):
        within = (times >= low) & (times < high)
        row[f"task_loss, t {low}-{high}"] = task[within].mean().item()
    return row


def time_cache(teacher: Kit, kit: Kit, folder: Path) -> dict[str, float]:
    """CPU seconds of the teacher's part of a step: computed, and read from a filled cache; and of filling it."""
    data = make_latent_clips(1024, codec=kit.codec, captions=kit.captions, seed=3)
    draws = FixedDraws(
        data=data, captions=kit.captions, options=NoiseOptions(image_ratio=0.0), per_clip=1, streams=RandomStreams(0)
    )
    asked = Teacher(denoiser=teacher.denoiser, captions=teacher.captions, features=(0, 1, 2))
    loop = LoopOptions(steps=1, batch_size=16)
    cache = TeacherCache(folder, asked, draws, loop=loop, device=CPU)
    began = time.process_time()
    rows = cache.fill()
    fill = (time.process_time() - began) / max(rows, 1)
    generator = torch.Generator().manual_seed(0)
    batches = [
        Drawn(clips=torch.randint(1024, (16,), generator=generator), draws=torch.zeros(16, dtype=torch.long),
              images=False) for _ in range(40)
    ]  # fmt: skip
    noisy = [draws.make(drawn, CPU) for drawn in batches]
    began = time.process_time()
    for item in noisy:
        asked.answer(item)
    compute = (time.process_time() - began) / (40 * 16)
    began = time.process_time()
    for drawn in batches:
        cache.read(drawn, CPU)
    read = (time.process_time() - began) / (40 * 16)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1024
    return {"compute_ms": 1e3 * compute, "fill_ms": 1e3 * fill, "read_ms": 1e3 * read, "kilobytes": size / 1024}


def write(
    arguments: argparse.Namespace, rows: list[dict[str, Any]], timing: dict[str, float], *, seconds: float
) -> None:
    """Write JSON and Markdown."""
    machine = {**host(), "threads": 1, **versions()}
    command = (
        f"python benchmarks/distillation.py --seeds {arguments.seeds} --teacher-steps {arguments.teacher_steps} "
        f"--steps {arguments.steps} --out benchmarks/results/distillation"
    )
    body = {"schema": "nas/benchmark/1", "command": command, "machine": machine, "cpu_seconds": seconds,
            "rows": rows, "cache": timing}  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(body, indent=1) + "\n")
    shown = [name for name in rows[0] if name not in ("network", "seed")]
    lines = [
        "# Distillation from a larger teacher",
        "",
        f"Command: `{command}`.",
        f"Students of `tiny` ({arguments.steps} steps of 16 clips; fresh weights but for what name and shape share",
        "with the teacher) learn from a wider teacher with more blocks. Losses are on 256 held-out clips at four fixed",
        "noises each, against the data and against the teacher's output; mean over seeds, range in brackets.",
        "",
        "| scaling | seeds | " + " | ".join(shown) + " |",
        "| --- " * (len(shown) + 2) + "|",
    ]
    for name in ("teacher", *SCALINGS):
        found = [row for row in rows if row["network"] == name]
        cells = []
        for metric in shown:
            values = [row[metric] for row in found]
            spread = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.3f}{spread}")
        lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    visits = timing["fill_ms"] / max(timing["compute_ms"] - timing["read_ms"], 1e-9)
    lines += [
        "",
        "## The teacher's answers on disk",
        "",
        f"CPU ms per clip: computing the answer {timing['compute_ms']:.2f}, filling the cache {timing['fill_ms']:.2f}, "
        f"reading it {timing['read_ms']:.2f}; {timing['kilobytes']:.0f} KB a clip and draw. The cache is faster once",
        f"every draw is asked for more than {visits:.1f} times: by one student in that many passes over the draws, or",
        "by as many students of one teacher in one pass each.",
        "",
        f"CPU seconds of this start (what an earlier, interrupted one did is not in it): {seconds:.0f}.",
        "",
        f"Machine: {', '.join(f'{key} {value}' for key, value in machine.items())}.",
        "",
    ]  # fmt: skip
    arguments.out.with_suffix(".md").write_text("\n".join(lines))


def say(text: str, began: float) -> None:
    """Print a line with the CPU time."""
    print(f"{time.process_time() - began:.0f} CPU s: {text}", flush=True)


if __name__ == "__main__":
    main()
