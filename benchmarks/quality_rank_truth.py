"""The truth that quality estimators are held against: toy architectures trained fully, some of them from two seeds.

There are two sets of them. What estimators are and how they are put together was chosen on the first, for ``tuning``;
the second, for ``validation``, was drawn for the verdict and trained while the choice was made, unseen by it.

Full training starts for every architecture from one trained backbone without temporal layers, whose weights are trained
on with the temporal layers': flow matching on the same clips with the same noise (``ShortTraining``, only longer).
Every network is then judged on held-out clips: by the velocity loss over more times and clips than any estimator sees,
and by what the analytic judge reads in clips that it generates.

A line of ``truth.jsonl`` is one training, so that an interrupted benchmark goes on; its weights are kept beside it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import search_spaces
from nas.core.files import JsonLines
from nas.core.rng import RandomStreams
from nas.models.tensors import write_tensors
from nas.quality.held_out_loss import clip_losses, make_held_out_batch
from nas.quality.options import ShortTrainingOptions
from nas.quality.short_training import SharedStart, ShortTraining, trained_start
from nas.training.data import make_latent_clips
from nas.training.evaluation import evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.core.architecture import Architecture

SPACE = search_spaces.get("tiny")
FULL = ShortTrainingOptions(steps=300, backbone_steps=800, clips=4096)
SEED = 0
# How many architectures of a set have how many temporal layers; the first set has the empty and the largest as well.
LAYERS: dict[str, dict[int, int]] = {
    "tuning": {1: 3, 2: 4, 3: 5, 4: 5, 5: 5},
    "validation": {1: 3, 2: 4, 3: 5, 4: 6, 5: 6},
}
SET_SEEDS = {"tuning": 0, "validation": 1}
TRUTH_TIMES = (0.3, 0.45, 0.6, 0.75, 0.9)
TRUTH_CLIPS, TRUTH_SEED = 144, 20_261_121
GENERATED_CLIPS, GENERATION_STEPS, GUIDANCE = 54, 10, 3.0


def architectures() -> tuple[Architecture, ...]:
    """Both sets, one after the other; a training's index is its place here."""
    return (SPACE.smallest(), SPACE.largest(), *_drawn("tuning"), *_drawn("validation"))


def set_of(index: int) -> str:
    """Return the set that place ``index`` is of."""
    return "tuning" if index < 2 + sum(LAYERS["tuning"].values()) else "validation"


def _drawn(name: str) -> list[Architecture]:
    """Draw a set, in an order that any first part covers the space.

    The number of layers is as ``LAYERS`` says; in every slot the kinds come in turn, in random order, and what else a
    kind leaves open is drawn.
    """
    rng = np.random.default_rng(SET_SEEDS[name])
    slots, layers = SPACE.slots(), LAYERS[name]
    kinds = [sorted({str(option[f"{slot}.kind"]) for option in SPACE.options(slot)} - {"none"}) for slot in slots]
    counts = rng.permutation(np.repeat(list(layers), list(layers.values())))
    turns = [np.concatenate([rng.permutation(len(kinds[place])) for _ in range(4)]) for place in range(len(slots))]
    used = [0] * len(slots)
    drawn = []
    for count in counts:
        options = [0] * len(slots)
        for place in sorted(_scarcest(used, int(count), rng)):
            kind = kinds[place][turns[place][used[place]]]
            used[place] += 1
            fitting = [
                index
                for index, option in enumerate(SPACE.options(slots[place]))
                if option[f"{slots[place]}.kind"] == kind
            ]
            options[place] = int(rng.choice(fitting))
        drawn.append(SPACE.from_options(options))
    return drawn


def _scarcest(used: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """Return ``count`` slots, those filled least often so far first."""
    order = rng.permutation(len(used))
    return [int(place) for place in sorted(order, key=lambda place: used[place])[:count]]


def make_start(folder: Path) -> SharedStart:
    """Train the common backbone, or read it from ``folder``."""
    return trained_start(SPACE, FULL, folder=folder / "backbone", streams=RandomStreams(SEED))


def train_truth(work: Path, *, replicates: int) -> list[dict[str, Any]]:
    """Train what ``truth.jsonl`` does not hold yet: every architecture, then the first ``replicates`` once more."""
    done = JsonLines(work / "truth.jsonl")
    start = make_start(work)
    every = architectures()
    plan = [(index, 0) for index in range(len(every))]
    # Replicates early: after a third of the truth it shows whether differences exceed the luck of the seed.
    plan[8:8] = [(index, 1) for index in range(replicates)]
    known = {(row["index"], row["replicate"]) for row in done.read()}
    for index, replicate in plan:
        if (index, replicate) not in known:
            row = train_one(every[index], start, replicate=replicate, weights=work / "weights" / f"{index}-{replicate}")
            done.append({"index": index, "replicate": replicate, **row})
            print(index, replicate, row, flush=True)
    return done.read()


def train_one(architecture: Architecture, start: SharedStart, *, replicate: int, weights: Path) -> dict[str, Any]:
    """Train one architecture fully and judge it."""
    began = time.process_time()
    own = replace(start, seed=start.seed + 1000 * replicate)
    network = ShortTraining(SPACE, own, FULL.loop).trained(architecture)
    trained = time.process_time()
    write_tensors(weights.with_suffix(".safetensors"), network.state_dict(), metadata={"kind": "denoiser"})
    kit = start.kit.with_denoiser(network.eval())
    clips = make_latent_clips(
        TRUTH_CLIPS, codec=kit.own_codec, captions=kit.captions, seed=TRUTH_SEED, split="held_out"
    )
    losses = clip_losses(network, make_held_out_batch(clips, kit.captions, seed=TRUTH_SEED, times=TRUTH_TIMES))
    metrics = evaluate(kit, steps=GENERATION_STEPS, guidance=GUIDANCE, num_clips=GENERATED_CLIPS, seed=TRUTH_SEED)
    return {
        "digest": architecture.digest,
        "options": SPACE.to_options(architecture),
        "training_cpu_s": trained - began,
        "judging_cpu_s": time.process_time() - trained,
        "loss": float(losses.mean()),
        "loss_at": {f"{moment:g}": float(loss) for moment, loss in zip(TRUTH_TIMES, losses.mean(dim=1), strict=True)},
        **{name: metrics[name] for name in ("colour", "shape", "direction", "motion", "mean", "jitter", "flicker")},
    }


def load_threads() -> None:
    """Run torch on one thread, as all figures here are of one."""
    torch.set_num_threads(1)
