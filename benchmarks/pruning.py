"""Which choice of pruned blocks leaves the best image network: `--seeds 3 --out benchmarks/results/pruning`.

A toy image UNet of SD v1.5's layout learns single frames of captioned clips. For every seed it is trained robustly, its
blocks are scored by removal, and it is pruned to a share of its latency (roofline prior of a phone) by four rules:
greedy (two units a round) and exact (with 12 exchanges), smallest weights first, and at random. Each pruned network
starts from the robust weights and is distilled for the same steps. The folder --work keeps checkpoints.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

import latency_models
from nas.core.provenance import host, versions
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario
from nas.models.pruned import build_pruned, build_source
from nas.training.data import make_latent_clips
from nas.training.evaluation import evaluate, evaluate_real
from nas.training.importance import RemovalLoss
from nas.training.multi_level import clip_errors
from nas.training.options import (
    DistillationOptions,
    ImportanceOptions,
    LoopOptions,
    NoiseOptions,
    RobustOptions,
    TeacherOptions,
)
from nas.training.pruning import distil_pruned, train_robustly
from nas.training.pruning_choice import (
    Choice,
    Limit,
    LossRise,
    PruningProblem,
    choose_exactly,
    choose_greedily,
    exchange,
    score_units,
)
from nas.training.sampling import predict_velocity
from nas.training.stage import Kit, make_kit
from nas.training.teacher import train_teacher
from nas.training.teacher_targets import Drawn, FixedDraws
from search_spaces.pruning import (
    backbone_of,
    cost_by_block,
    full_layout,
    image_workload,
    layout_cost,
    layout_without,
    may_remove,
    parameter_table,
    possible_depths,
    removable_units,
)
from search_spaces.sources import TOY_SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.models.unet import VideoUNet
    from nas.training.data import LatentClips

IMAGES = NoiseOptions(image_ratio=1.0)
RULES = ("greedy", "exact", "smallest weights", "random")
SHOWN = ("rise", "output_loss", "task_loss", "colour", "shape")
DEVICE = "iphone16_pro_max"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="path without suffix; .json and .md are written")
    parser.add_argument("--work", type=Path, default=Path("runs/pruning"))
    parser.add_argument("--ratio", type=float, default=0.4, help="share of the latency that is left")
    parser.add_argument("--teacher-steps", type=int, default=800)
    parser.add_argument("--robust-steps", type=int, default=60)
    parser.add_argument("--steps", type=int, default=60, help="of distillation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    torch.manual_seed(0)
    kit = make_kit(
        build_source(TOY_SOURCE), text_width=64, text_tokens=12, latent_channels=16, patch=8, seed=0
    ).with_clips(frames=1, size=32)
    clips = make_latent_clips(8192, codec=kit.codec, captions=kit.captions, seed=1)
    held_out = make_latent_clips(256, codec=kit.codec, captions=kit.captions, seed=2, split="held_out")
    train_teacher(kit, clips, options=TeacherOptions(loop=loop(arguments.teacher_steps, 2e-3), noise=IMAGES),
                  folder=arguments.work / "teacher", streams=RandomStreams(0))  # fmt: skip
    problem = make_problem(arguments.ratio)
    rows = [{"rule": "unpruned", "seed": 0, "removed": [], "rise": 0.0, **left(problem, ()),
             **measured(kit, kit.denoiser, held_out)}]  # fmt: skip
    say(str(rows[0]), began)
    timings: dict[str, float] = {}
    for seed in range(arguments.seeds):
        rows += one_seed(seed, kit, clips, held_out, problem, arguments, began, timings)
        write(arguments, rows, timings, seconds=time.process_time() - began)


def one_seed(
    seed: int,
    kit: Kit,
    clips: LatentClips,
    held_out: LatentClips,
    problem: PruningProblem,
    arguments: argparse.Namespace,
    began: float,
    timings: dict[str, float],
) -> list[dict[str, Any]]:
    """Robust training, the four choices, and their distillation."""
    streams, folder = RandomStreams(seed), arguments.work / f"seed-{seed}"
    teacher = cast("VideoUNet", kit.denoiser)
    robust = build_pruned(teacher, TOY_SOURCE, full_layout(TOY_SOURCE), name="robust")
    train_robustly(kit.with_denoiser(robust), kit, TOY_SOURCE, clips, folder=folder / "robust", streams=streams,
                   options=RobustOptions(loop=loop(arguments.robust_steps, 1e-3)))  # fmt: skip
    loss = RemovalLoss(robust, kit, TOY_SOURCE, held_out, options=ImportanceOptions(batches=3, batch_size=32),
                       noise=IMAGES, streams=streams, journal=folder / "removals.jsonl")  # fmt: skip

    def timed(name: str, make: Callable[[], Choice]) -> Choice:
        start = time.process_time()
        choice = make()
        timings[f"{name}, seed {seed}"] = round(time.process_time() - start, 1)
        return choice

    scores = score_units(TOY_SOURCE, loss)
    choices = {
        "exact": timed("exact with 12 exchanges", lambda: exchange(
            problem, choose_exactly(problem, scores, loss), scores, loss, tries=12)),
        "greedy": timed("greedy", lambda: choose_greedily(problem, loss, per_round=2)),
        "smallest weights": by_order(problem, weight_order(teacher), loss),
        "random": by_order(problem, random_order(seed), loss),
    }  # fmt: skip
    rows = []
    for rule in RULES:
        choice = choices[rule]
        pruned = build_pruned(robust, TOY_SOURCE, layout_without(TOY_SOURCE, choice.removed), name="pruned")
        options = DistillationOptions(loop=loop(arguments.steps, 1e-3), noise=IMAGES, start_from_teacher=False)
        distil_pruned(kit.with_denoiser(pruned), kit, clips, options=options, streams=streams,
                      folder=folder / rule.replace(" ", "-") / "distillation")  # fmt: skip
        rows.append({"rule": rule, "seed": seed, "removed": sorted(choice.removed), "rise": choice.rise.mean,
                     "rise_error": choice.rise.standard_error, **left(problem, choice.removed),
                     **measured(kit, pruned, held_out)})  # fmt: skip
        say(json.dumps({key: value for key, value in rows[-1].items() if key != "removed"}), began)
    return rows


def make_problem(ratio: float) -> PruningProblem:
    """The limit: a share of the latency by the phone's uncalibrated prior, for single images."""
    predictor = latency_models.RooflinePredictor(latency_models.device(DEVICE))
    scenario = Scenario(frames=1, height=32, width=32, denoising_steps=1)
    table = {}
    for depth in possible_depths(TOY_SOURCE):
        spec = backbone_of(TOY_SOURCE, full_layout(TOY_SOURCE, depth=depth), name="toy")
        price = predictor.price(image_workload(spec, scenario))
        costs = {block.block: block.latency_ms for block in price.blocks} | {"call": price.overhead_ms}
        table[depth] = cost_by_block(spec, costs)
    whole = layout_cost(TOY_SOURCE, full_layout(TOY_SOURCE), table)
    return PruningProblem(source=TOY_SOURCE, limits=(Limit(name="latency_ms", table=table, most=ratio * whole),))


def by_order(problem: PruningProblem, order: list[str], loss: RemovalLoss) -> Choice:
    """Remove in a given order, what can go, until the limit holds."""
    removed: frozenset[str] = frozenset()
    for name in order:
        if not problem.excess(removed):
            break
        if name in {unit.name for unit in may_remove(TOY_SOURCE, removed)}:
            after = removed | {name}
            removed = after if problem.costs(after)["latency_ms"] < problem.costs(removed)["latency_ms"] else removed
    if problem.excess(removed):
        raise RuntimeError("the order ends above the limit")
    return Choice(method="order", removed=removed, rise=cast("LossRise", loss(removed)))


def weight_order(network: VideoUNet) -> list[str]:
    """Units by the mean absolute value of their weights, smallest first; a level by that of its blocks."""
    means = {}
    for unit in removable_units(TOY_SOURCE):
        prefixes = [f"{unit.name}."]
        if unit.kind == "block":
            prefixes.append(f"{unit.name.replace('.resnets.', '.attentions.')}.")
        if unit.kind == "level":
            prefixes = [f"down_blocks.{unit.index}.", f"up_blocks.{len(TOY_SOURCE.channels) - 1 - unit.index}."]
        found = [value for key, value in network.named_parameters() if key.startswith(tuple(prefixes))]
        total = sum(value.abs().sum().item() for value in found if value.dim() > 1)
        means[unit.name] = total / sum(value.numel() for value in found if value.dim() > 1)
    return sorted(means, key=lambda name: means[name])


def random_order(seed: int) -> list[str]:
    """Units in random order."""
    names = [unit.name for unit in removable_units(TOY_SOURCE)]
    random.Random(seed).shuffle(names)
    return names


def left(problem: PruningProblem, removed: Any) -> dict[str, float]:
    """Shares of latency and parameters that are left."""
    whole, layout = full_layout(TOY_SOURCE), layout_without(TOY_SOURCE, removed)
    tables = {"latency_ratio": problem.limits[0].table, "parameters_ratio": parameter_table(TOY_SOURCE)}
    return {
        name: layout_cost(TOY_SOURCE, layout, table) / layout_cost(TOY_SOURCE, whole, table)
        for name, table in tables.items()
    }


@torch.no_grad()
def measured(kit: Kit, network: torch.nn.Module, held_out: LatentClips) -> dict[str, float]:
    """Held-out errors against data and the unpruned network, and the judge's reading of 25 guided steps."""
    draws = FixedDraws(data=held_out, captions=kit.captions, options=NoiseOptions(text_dropout=0.0, image_ratio=1.0),
                       per_clip=4, streams=RandomStreams(11))  # fmt: skip
    task, output = [], []
    for number in range(4):
        for clips in torch.arange(len(held_out)).split(64):
            noisy = draws.make(
                Drawn(clips=clips, draws=torch.full_like(clips, number), images=True), torch.device("cpu")
            )
            tokens = kit.captions(noisy.text).tokens
            predicted = predict_velocity(network, noisy.noisy, noisy.times, tokens)
            wanted = predict_velocity(kit.denoiser, noisy.noisy, noisy.times, tokens)
            task.append(clip_errors(predicted, noisy.target).mean().item())
            output.append(clip_errors(predicted, wanted).mean().item())
    metrics = evaluate(kit.with_denoiser(network), steps=25, guidance=3.0, num_clips=54, seed=5)
    return {"task_loss": statistics.fmean(task), "output_loss": statistics.fmean(output),
            "colour": metrics["colour"], "shape": metrics["shape"]}  # fmt: skip


def loop(steps: int, rate: float) -> LoopOptions:
    """A loop of batches of 32 images on one thread."""
    return LoopOptions(steps=steps, learning_rate=rate, threads=1)


def write(
    arguments: argparse.Namespace, rows: list[dict[str, Any]], timings: dict[str, float], *, seconds: float
) -> None:
    """Write JSON and Markdown of the seeds finished so far."""
    seeds = len({row["seed"] for row in rows if row["rule"] != "unpruned"})
    machine = {**host(), "threads": 1, **versions()}
    command = (
        f"python benchmarks/pruning.py --seeds {seeds} --ratio {arguments.ratio} --teacher-steps "
        f"{arguments.teacher_steps} --robust-steps {arguments.robust_steps} --steps {arguments.steps} "
        "--out benchmarks/results/pruning"
    )
    real = evaluate_real(num_clips=54, seed=5, frames=1)
    body = {"schema": "nas/benchmark/1", "command": command, "machine": machine, "cpu_seconds": seconds,
            "cpu_seconds_of_choices": timings, "real": {name: real[name] for name in ("colour", "shape")},
            "rows": rows}  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(body, indent=1) + "\n")
    lines = [
        "# Pruning an image network",
        "",
        f"Command: `{command}`.",
        f"The toy image UNet ({len(removable_units(TOY_SOURCE))} units can go, 3.6 M parameters), pruned to at most "
        f"{arguments.ratio:.0%}",
        f"of its latency by the uncalibrated prior of {DEVICE}, then distilled for {arguments.steps} steps of 32;",
        f"mean over {seeds} seeds (robust training, choice and distillation; the unpruned network is shared), range in",
        "brackets. Rise: of the distillation loss before distillation. Losses after it: on 256 held-out images at four",
        "fixed noises each, against the unpruned network's output and against the data. Colour and shape: the judge's",
        "reading of 54 images of held-out captions, 25 steps, guidance 3 (real images: "
        f"{real['colour']:.2f} and {real['shape']:.2f};",
        "chance 0.17 and 0.33).",
        "",
        "| rule | latency left | parameters left | " + " | ".join(SHOWN) + " |",
        "| --- " * (len(SHOWN) + 3) + "|",
    ]
    for rule in ("unpruned", *RULES):
        found = [row for row in rows if row["rule"] == rule]
        cells = [
            f"{statistics.fmean(row[name] for row in found):.0%}" for name in ("latency_ratio", "parameters_ratio")
        ]
        for metric in SHOWN:
            values = [row[metric] for row in found]
            spread = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.3f}{spread}")
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    times = ", ".join(f"{name} {value:.1f}" for name, value in timings.items())
    lines += [
        "",
        f"CPU seconds of this start (what an earlier, interrupted one did is not in it): {seconds:.0f};",
        f"of the choices, once every unit was measured alone: {times}.",
        "",
        f"Machine: {', '.join(f'{key} {value}' for key, value in machine.items())}.",
        "",
    ]
    arguments.out.with_suffix(".md").write_text("\n".join(lines))


def say(text: str, began: float) -> None:
    """Print a line with the CPU time."""
    print(f"{time.process_time() - began:.0f} CPU s: {text}", flush=True)


if __name__ == "__main__":
    main()
