"""Train the toy pipeline over several seeds and write what each stage scores: `--seeds 3 --out benchmarks/results/x`.

One supernet and one teacher (seed 0) are shared; distillation, trajectory and adversarial stages and their evaluation
are repeated with every seed. The folder given by --work keeps checkpoints: an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import search_spaces
from nas.core.architecture import Architecture
from nas.core.rng import RandomStreams
from nas.core.schema import to_data
from nas.quality.options import SupernetOptions
from nas.quality.supernet import Supernet, make_supernet, train_supernet
from nas.training.data import make_latent_clips
from nas.training.options import LoopOptions, RecipeOptions
from nas.training.recipe import train_student
from nas.training.teacher import train_teacher

if TYPE_CHECKING:
    from nas.training.evaluation import EvaluationRow

SPACE = search_spaces.get("tiny")
# A mixed student, one of each family; a search chooses its own.
STUDENT = {
    "down0.0": {"kind": "conv1d", "width_ratio": 1.0, "kernel": 3},
    "down1.0": {"kind": "self_attention_1d", "width_ratio": 1.0, "heads": 4},
    "mid.0": {"kind": "self_attention_3d", "width_ratio": 1.0, "heads": 4},
    "up0.0": {"kind": "conv3d", "width_ratio": 0.5},
    "up1.0": {"kind": "conv1d", "width_ratio": 1.0, "kernel": 3},
}
SHOWN = ("colour", "shape", "direction", "motion", "mean", "jitter", "flicker")


class Printer:
    """Progress as lines, at most one every twenty seconds."""

    def __init__(self) -> None:
        self._last = 0.0

    def update(self, done: int, total: int, message: str = "") -> None:
        """Print now and then."""
        if time.monotonic() - self._last > 20 or done == total:
            self._last = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {done}/{total} {message} ({time.process_time():.0f} CPU s)", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="path without suffix; .json and .md are written")
    parser.add_argument("--work", type=Path, default=Path("runs/training_toy"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the steps of every stage")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    progress = Printer()
    shared = RandomStreams(0)
    kit = make_supernet(SPACE, seed=0)
    data = make_latent_clips(8192, codec=kit.codec, captions=kit.captions, seed=1)
    seconds: dict[str, float] = {}

    def timed(name: str, began: float) -> None:
        seconds[name] = round(time.process_time() - began, 1)

    began = time.process_time()
    options = SupernetOptions()
    options = dataclasses.replace(options, loop=scaled(options.loop, arguments.scale))
    train_supernet(kit, data, options=options, folder=arguments.work / "supernet", streams=shared, progress=progress)
    timed("supernet", began)
    supernet = kit.denoiser
    assert isinstance(supernet, Supernet)
    recipe = scaled_recipe(RecipeOptions(), arguments.scale)
    began = time.process_time()
    taught = train_teacher(
        kit.with_denoiser(supernet.extract(SPACE.largest())),
        data,
        options=recipe.teacher,
        folder=arguments.work / "teacher",
        streams=shared,
        progress=progress,
    )
    timed("teacher", began)
    runs = []
    for seed in range(arguments.seeds):
        began = time.process_time()
        result = train_student(
            taught,
            supernet.extract(student_architecture()),
            data,
            options=recipe,
            folder=arguments.work / f"seed-{seed}",
            streams=RandomStreams(seed),
            progress=progress,
        )
        runs.append({row.name: row for row in result.rows})
        timed(f"student stages and evaluation, seed {seed}", began)
        write(arguments, recipe, runs, seconds)


def student_architecture() -> Architecture:
    """The student of this benchmark."""
    choices = {f"{slot}.{name}": value for slot, setting in STUDENT.items() for name, value in setting.items()}
    return Architecture(SPACE.identifier, choices)


def scaled(loop: LoopOptions, scale: float) -> LoopOptions:
    """The same loop with more or fewer steps."""
    return dataclasses.replace(loop, steps=max(1, round(loop.steps * scale)))


def scaled_recipe(recipe: RecipeOptions, scale: float) -> RecipeOptions:
    """The same recipe with more or fewer steps in every stage."""
    names = ("teacher", "distillation", "trajectory", "adversarial")
    stages = {name: getattr(recipe, name) for name in names}
    changed = {name: dataclasses.replace(stage, loop=scaled(stage.loop, scale)) for name, stage in stages.items()}
    return dataclasses.replace(recipe, **changed)


def write(
    arguments: argparse.Namespace,
    recipe: RecipeOptions,
    runs: list[dict[str, EvaluationRow]],
    seconds: dict[str, float],
) -> None:
    """Write JSON and Markdown of the seeds finished so far."""
    body = {
        "schema": "nas/benchmark/1",
        "seeds": len(runs),
        "cpu_seconds": seconds,
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": arguments.threads,
            "system": platform.platform(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "numpy", "accelerate")},
        },
        "student": to_data(student_architecture()),
        "options": to_data(recipe),
        "runs": [[to_data(row) for row in run.values()] for run in runs],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(body, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(markdown(body, runs, seconds))


def markdown(body: dict[str, Any], runs: list[dict[str, EvaluationRow]], seconds: dict[str, float]) -> str:
    """The table: mean over seeds, and the range over seeds for the mean accuracy."""
    lines = [
        "# Training the toy pipeline",
        "",
        f"Command: `python benchmarks/training_toy.py --seeds {len(runs)}`. Mean over {len(runs)} seeds of the student",
        "stages (supernet and teacher: seed 0, shared), with the range over seeds for the mean of colour, shape and",
        "direction. Held-out captions; clips per line and seed as stated. Chance is 0.17 for colour, 0.33 for shape,",
        "0.25 for direction and 0.11 for motion.",
        "",
        "| network | clips | " + " | ".join(SHOWN) + " |",
        "| --- " * (len(SHOWN) + 2) + "|",
    ]
    for name, row in runs[0].items():
        values = {metric: [run[name].metrics[metric] for run in runs] for metric in SHOWN}
        cells = [f"{statistics.fmean(values[metric]):.2f}" for metric in SHOWN]
        place = SHOWN.index("mean")
        cells[place] += f" ({min(values['mean']):.2f}-{max(values['mean']):.2f})"
        lines.append(f"| {name} | {row.num_clips} | " + " | ".join(cells) + " |")
    machine = ", ".join(f"{key} {value}" for key, value in body["machine"].items())
    times = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    return "\n".join(
        [
            *lines,
            "",
            f"CPU seconds of this start (what an earlier, interrupted start did is not in it): {times}.",
            "",
            f"Machine: {machine}.",
            "",
        ]
    )


def processor() -> str:
    """Name of the processor, as far as the system tells it."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
