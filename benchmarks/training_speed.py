"""Processor seconds and memory of a training step: our loop beside a plain accelerate loop on the same work.

    python benchmarks/training_speed.py --out benchmarks/results

The plain loop is what the training scripts of diffusers do: an accelerator, a data loader that shuffles,
``accumulate``, ``backward``, clipping at 1, AdamW, torch's cosine schedule, diffusers' ``EMAModel``, the loss read at
every step.
Both loops train the largest network of ``tiny/1`` and its captions by the same flow-matching loss on the same clips.
Ours also checks every loss and gradient, watches for divergence, writes metrics and TensorBoard events every 20 steps
and can resume at any checkpoint to the bit.

All loops of a seed live in one process, on one thread, and take turns of ``--turn`` steps in an order that changes, so
that other load on the machine falls on all; seconds are processor seconds. Memory is the most that tensors occupy
during a step beyond what they occupy before it, counted at every operation, with states of optimizer and average beside
it. Teacher outputs on disk are counted apart: distillation with fixed draws, with and without ``cache``.
Writes ``training_speed.json`` and ``training_speed.md``.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import search_spaces
from nas.core.files import write_json, write_text_atomically
from nas.core.protocols import SilentProgress
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.models.build import build_denoiser
from nas.training.data import LatentClips, drop_captions, make_latent_clips
from nas.training.distillation import distil
from nas.training.live_memory import LiveMemory
from nas.training.loop import Batch, Phase, TrainingRun
from nas.training.losses import flow_matching_loss
from nas.training.noise import add_noise, logit_normal_times
from nas.training.options import DistillationOptions, LoopOptions, NoiseOptions
from nas.training.sampling import predict_velocity
from nas.training.stage import Kit, make_kit
from nas.training.teacher import draw_noisy

NOISE = NoiseOptions(image_ratio=0.0)
PLAIN = "plain accelerate loop"
FUSED = "plain accelerate loop, fused AdamW and foreach average"
OURS = "ours (fused AdamW, one interpolation for the average)"


@dataclass(slots=True)
class Contestant:
    """A loop that is advanced step by step."""

    name: str
    step: Callable[[], None]
    parameters: list[nn.Parameter]
    seconds: list[float]
    bytes_over: int = 0


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn", type=int, default=6, help="steps of one turn")
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "taken_at": timestamp(),
        "host": host(),
        "versions": versions(),
        "arguments": {name: getattr(arguments, name) for name in ("seeds", "rounds", "turn", "batch")},
        "seeds": [measure(seed, arguments) for seed in range(arguments.seeds)],
        "caching": [measure_caching(seed, arguments.batch) for seed in range(arguments.seeds)],
    }
    write_json(arguments.out / "training_speed.json", result)
    text = markdown(result)
    write_text_atomically(arguments.out / "training_speed.md", text)
    print(text)


def measure(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step in every turn, and memory, of each loop."""
    with tempfile.TemporaryDirectory() as folder:
        base, data = make_task(seed)
        contestants = [
            plain(PLAIN, copy.deepcopy(base), data, arguments.batch, seed, fused=False),
            plain(FUSED, copy.deepcopy(base), data, arguments.batch, seed, fused=True),
            ours(copy.deepcopy(base), data, arguments.batch, seed, Path(folder)),
        ]
        for one in contestants:
            one.step()  # optimizer and average make their state
            one.bytes_over = memory_of(one)
        for turn in range(arguments.rounds):
            order = contestants[turn % 3 :] + contestants[: turn % 3]
            for one in order if turn % 2 else order[::-1]:
                start = time.process_time()
                for _ in range(arguments.turn):
                    one.step()
                one.seconds.append((time.process_time() - start) / arguments.turn)
    return {
        "seed": seed,
        "loops": {one.name: {"seconds": one.seconds, "bytes_over_state": one.bytes_over} for one in contestants},
    }


def make_task(seed: int) -> tuple[Kit, LatentClips]:
    """The largest network with its captions, and clips."""
    space = search_spaces.get("tiny")
    backbone = space.backbone
    torch.manual_seed(seed)
    kit = make_kit(
        build_denoiser(space, space.largest()),
        text_width=backbone.text_width,
        text_tokens=backbone.text_tokens,
        latent_channels=backbone.latent_channels,
        patch=backbone.latent_downsampling,
        seed=seed,
    )
    return kit, make_latent_clips(512, codec=kit.own_codec, captions=kit.captions, seed=seed)


def plain(name: str, kit: Kit, data: LatentClips, batch: int, seed: int, *, fused: bool) -> Contestant:
    """What a diffusers training script does."""
    from accelerate import Accelerator
    from diffusers.training_utils import EMAModel

    accelerator = Accelerator()
    captions: Any = kit.captions
    model = nn.ModuleDict({"denoiser": kit.denoiser, "captions": captions})
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=fused)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2400)
    rows = torch.utils.data.TensorDataset(data.latents, data.token_ids)
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(rows, batch_size=batch, shuffle=True, drop_last=True, generator=generator)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    average = EMAModel(model.parameters(), decay=0.99, foreach=fused)
    model.train()

    def endless() -> Any:
        while True:
            yield from loader

    batches = endless()
    losses: list[float] = []

    def step() -> None:
        clean, ids = next(batches)
        with accelerator.accumulate(model):
            empty = captions.empty_text(len(ids))
            text = drop_captions(ids, empty=empty, ratio=NOISE.text_dropout, generator=generator)
            times = logit_normal_times(len(clean), mean=NOISE.time_mean, std=NOISE.time_std, generator=generator)
            noise = torch.randn(clean.shape, generator=generator)
            with accelerator.autocast():
                tokens = captions(text).tokens
                predicted = predict_velocity(kit.denoiser, add_noise(clean, noise, times), times, tokens)
                loss = flow_matching_loss(predicted, noise - clean)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        average.step(model.parameters())
        losses.append(loss.item())

    return Contestant(name=name, step=step, parameters=list(model.parameters()), seconds=[])


def ours(kit: Kit, data: LatentClips, batch: int, seed: int, folder: Path) -> Contestant:
    """The project's loop, advanced from outside as its own ``run`` does it."""
    options = LoopOptions(steps=2400, batch_size=batch, checkpoint_every=10_000)
    captions: Any = kit.captions

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = draw_noisy(data, batch, NOISE, captions=kit.captions)
        tokens = kit.captions(drawn.text).tokens
        return flow_matching_loss(predict_velocity(kit.denoiser, drawn.noisy, drawn.times, tokens), drawn.target), {}

    run = TrainingRun(
        stage="teacher",
        folder=folder,
        metrics=folder / "metrics.jsonl",
        options=options,
        modules={"denoiser": kit.denoiser, "captions": captions},
        phases=[Phase(name="denoiser", trains=("denoiser", "captions"), loss=loss)],
        averaged=("denoiser", "captions"),
        num_items=len(data),
        streams=RandomStreams(seed),
        fingerprint="",
        events=folder / "events",
    )
    run._recorder.start(0)
    parameters = [*kit.denoiser.parameters(), *captions.parameters()]
    return Contestant(name=OURS, step=lambda: run._step_and_keep(SilentProgress()), parameters=parameters, seconds=[])


def memory_of(one: Contestant) -> int:
    """Most bytes alive during a step beyond those before it."""
    live = LiveMemory(one.parameters)
    live.ignore(one.parameters)
    with live:
        one.step()
    return live.peak_bytes


def measure_caching(seed: int, batch: int) -> dict[str, float]:
    """Processor seconds of a distillation that sees fixed draws, computed each time and read from disk."""
    options = DistillationOptions(loop=LoopOptions(steps=96, batch_size=batch, log_every=48), draws=1)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        base, data = make_task(seed)
        space = search_spaces.get("tiny")
        for name, cache in (("computed", None), ("filled", folder / "cache"), ("read", folder / "cache")):
            torch.manual_seed(seed)
            student = build_denoiser(space, space.smallest())
            kit = copy.deepcopy(base)
            start = time.process_time()
            distil(
                kit.with_denoiser(student),
                kit,
                data,
                options=replace(options, cache=cache is not None),
                folder=folder / name / "distillation",
                streams=RandomStreams(seed),
                cache=cache,
            )
            seconds[name] = (time.process_time() - start) / options.loop.steps
    return {"seed": seed, **seconds}


def ratio(result: dict[str, Any], base: str) -> list[float]:
    """Steps a second of ours over those of ``base``, one for every seed, from medians over turns."""
    return [
        statistics.median(one["loops"][base]["seconds"]) / statistics.median(one["loops"][OURS]["seconds"])
        for one in result["seeds"]
    ]


def markdown(result: dict[str, Any]) -> str:
    """The report."""
    names = list(result["seeds"][0]["loops"])
    rows = []
    for name in names:
        turns = [value for one in result["seeds"] for value in one["loops"][name]["seconds"]]
        memory = statistics.median(one["loops"][name]["bytes_over_state"] for one in result["seeds"]) / 1e6
        ratios = ratio(result, name)
        rows.append(
            f"| {name} | {statistics.median(turns):.4f} | {min(turns):.4f} | "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}) | {memory:.1f} |"
        )
    ways = ("computed", "filled", "read")
    caching = {name: statistics.median(one[name] for one in result["caching"]) for name in ways}
    given = result["arguments"]
    return f"""# Speed of training steps

Largest network of `tiny/1` and its captions, batch {given["batch"]}, one thread, {given["seeds"]} seeds,
{given["rounds"]} turns of {given["turn"]} steps each, loops taking turns in one process; processor
seconds. The ratio is steps a second of ours over those of the row, median and range over seeds: above 1, ours is
faster.

| loop | s a step, median | s a step, least | ours over this | peak MB in a step beyond state |
| --- | --- | --- | --- | --- |
{chr(10).join(rows)}

The first row against the last counts fused steps as ours; the second row has them too, so it compares the loops alone.

Distillation of the smallest network by the largest with fixed draws: {caching["computed"]:.4f} s a step where the
teacher answers every time, {caching["filled"]:.4f} where its answers are written to disk first, which is
counted in, and {caching["read"]:.4f} where they are there already. The losses are the same.

`python benchmarks/training_speed.py`, {result["taken_at"]}, {result["host"]}
"""


if __name__ == "__main__":
    main()
