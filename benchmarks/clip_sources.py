"""What a batch costs from each source of clips, beside the training step that it feeds, and what encoding costs.

    OMP_NUM_THREADS=1 python benchmarks/clip_sources.py --out benchmarks/results

Processor seconds of one thread, the median of several rounds of random batches. Toy clips: kept in memory, drawn fresh
by their numbers, and out of eight float16 shards on disk; a step is that of the teacher of ``tiny/1`` with the same
batch. Full size: shards of random latents in the shapes of the 0.6 B network (16 frames of 4 x 64 x 64, 77 tokens of
768), which no CPU step can be held against. Writes ``clip_sources.json`` and ``clip_sources.md``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import search_spaces
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.core.rng import RandomStreams
from nas.models.build import build_denoiser
from nas.training.data import ProceduralClips, make_latent_clips
from nas.training.encoders import LearnedEncoders
from nas.training.options import LoopOptions, TeacherOptions
from nas.training.shard_writer import ShardOptions, encode_shards
from nas.training.shards import ShardedClips
from nas.training.sources import ProceduralSource, SourceClip
from nas.training.stage import make_kit
from nas.training.teacher import train_teacher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from nas.training.data import TrainingClips
    from nas.training.stage import Kit

BATCH, ROUNDS, BATCHES = 32, 7, 50
CLIPS, SHARDS = 2048, 8
STEPS = 30
FULL_CLIPS, FULL_BATCH = 48, 8


class FullSizeEncoders:
    """Random latents and text in the shapes of the full-size network, at no cost of encoding."""

    identity: Mapping[str, Any] = {"type": "random"}
    cell_size = 8

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def encode_video(self, video: NDArray[np.uint8]) -> torch.Tensor:
        """Random latents (B, 16, 4, 64, 64)."""
        return torch.randn(len(video), 16, 4, 64, 64, generator=self._generator)

    def encode_text(self, captions: Sequence[str]) -> torch.Tensor:
        """Random rows (B, 78, 768)."""
        return torch.randn(len(captions), 78, 768, generator=self._generator)

    def fault(self, caption: str) -> str | None:
        """Nothing is wrong with any caption."""

    def shortens(self, caption: str) -> bool:  # noqa: ARG002  # the protocol's
        """No caption is cut."""
        return False

    def save(self, folder: Path) -> None:
        """Nothing to keep."""


class EmptyClips(ProceduralSource):
    """Procedural clips whose pixels nobody draws, because their encoder looks at none."""

    def read(self, place: int) -> SourceClip:
        """A black clip of one cell."""
        return SourceClip(self.name(place), "a red circle standing still", np.zeros((16, 3, 8, 8), dtype=np.uint8))


def batch_ms(data: TrainingClips, *, batch: int) -> float:
    """Median over rounds of the mean processor milliseconds of a random batch."""
    generator = torch.Generator().manual_seed(0)
    rounds = []
    for _ in range(ROUNDS):
        chosen = torch.randint(len(data), (BATCHES, batch), generator=generator)
        begin = time.process_time()
        for indices in chosen:
            data.fetch(indices)
        rounds.append((time.process_time() - begin) / BATCHES * 1000)
    return median(rounds)


def seconds_of(work: Callable[[], object]) -> float:
    """Processor seconds of ``work``."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def teacher_seconds(kit: Kit, data: TrainingClips, steps: int, place: Path) -> float:
    """Processor seconds of training a teacher for ``steps``."""
    loop = LoopOptions(steps=steps, batch_size=BATCH, checkpoint_every=10**6, threads=1)
    folder = place / f"teacher-{steps}"
    options = TeacherOptions(loop=loop)
    return seconds_of(lambda: train_teacher(kit, data, options=options, folder=folder, streams=RandomStreams(0)))


def measure(place: Path) -> dict[str, Any]:
    """All figures; ``place`` is for files."""
    space = search_spaces.get("tiny")
    torch.manual_seed(0)
    backbone = space.backbone
    kit = make_kit(
        build_denoiser(space, space.largest()),
        text_width=backbone.text_width,
        text_tokens=backbone.text_tokens,
        latent_channels=backbone.latent_channels,
        patch=backbone.latent_downsampling,
        seed=0,
    )
    source = ProceduralSource(count=CLIPS, seed=0, frames=8, size=32)
    encoders = LearnedEncoders(kit.own_codec, kit.captions)
    options = ShardOptions(clips_per_shard=CLIPS // SHARDS)
    encoding = seconds_of(lambda: encode_shards(place / "toy", source, encoders, options=options))
    memory = make_latent_clips(CLIPS, codec=kit.own_codec, captions=kit.captions, seed=0)
    sources: dict[str, TrainingClips] = {
        "in memory": memory,
        "drawn fresh": ProceduralClips(count=CLIPS, codec=kit.own_codec, captions=kit.captions, seed=0),
        f"{SHARDS} shards": ShardedClips(place / "toy"),
    }
    toy = {name: batch_ms(data, batch=BATCH) for name, data in sources.items()}
    # The difference leaves out what a stage costs once.
    step = (teacher_seconds(kit, memory, 2 * STEPS, place) - teacher_seconds(kit, memory, STEPS, place)) / STEPS
    encode_shards(
        place / "full",
        EmptyClips(count=FULL_CLIPS, seed=0, frames=16, size=8),
        FullSizeEncoders(),
        options=ShardOptions(clips_per_shard=12),
    )
    full = ShardedClips(place / "full")
    clip_mb = sum(shard.bytes for shard in full.index.shards) / FULL_CLIPS / 1e6
    return {
        "toy_batch_ms": toy,
        "toy_step_ms": step * 1000,
        "toy_encode_ms_a_clip": encoding / CLIPS * 1000,
        "full_batch_ms": batch_ms(full, batch=FULL_BATCH),
        "full_mb_a_clip": clip_mb,
    }


def page(figures: dict[str, Any], facts: dict[str, Any]) -> str:
    """The figures as Markdown."""
    step = figures["toy_step_ms"]
    rows = "\n".join(
        f"| {name} | {value:.2f} | {100 * value / step:.1f} % |" for name, value in figures["toy_batch_ms"].items()
    )
    full, clip_mb = figures["full_batch_ms"], figures["full_mb_a_clip"]
    return f"""# Clips for training, by source

Processor milliseconds of one thread, median of {ROUNDS} rounds of {BATCHES} random batches. Toy clips
(8 frames of 32 px), {BATCH} a batch; a step of the teacher of tiny/1 with such a batch takes {step:.0f} ms.

| source | ms a batch | share of a step |
| --- | --- | --- |
{rows}

Drawing, encoding and writing a toy clip to float16 shards takes {figures["toy_encode_ms_a_clip"]:.2f} ms.

Shards in the shapes of the 0.6 B network, {clip_mb:.2f} MB a clip in float16, read from the page cache:
{full:.1f} ms for {FULL_BATCH} random clips, {FULL_BATCH * clip_mb / full:.2f} GB a processor second.

`{facts["command"]}`, load average {facts["load"]:.1f}, {facts["time"]}, {facts["host"]}.
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        figures = measure(Path(place))
    facts = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/clip_sources.py --out benchmarks/results",
        "seed": 0,
        "load": os.getloadavg()[0],
        "time": timestamp(),
        "host": host(),
        "versions": versions(),
    }
    write_json(out / "clip_sources.json", {**figures, **facts})
    write_text_atomically(out / "clip_sources.md", page(figures, facts))
    print(page(figures, facts))


if __name__ == "__main__":
    main()
