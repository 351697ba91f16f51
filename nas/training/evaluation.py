"""Judging a denoiser by the clips it generates for held-out captions, and animated samples to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from nas.core.files import read_json, write_json
from nas.core.schema import check_schema, from_data, to_data, with_schema
from nas.training.clips import (
    CLIP_FRAMES,
    CLIP_SIZE,
    Attributes,
    all_attributes,
    draw_attributes,
    make_clips,
    render_clips,
)
from nas.training.judge import score_clips
from nas.training.sampling import Sampler, sample_euler, sample_renoise
from nas.training.video_files import write_gif as write_frames

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from nas.training.clip_features import ClipReference
    from nas.training.stage import Kit

_BATCH = 64
_FRAME_MS = 120
_MAGNIFY = 3
# Every metric of ``evaluate`` and which way is better. Attributes are shares of clips that the judge reads as their
# caption says; jitter is in pixels, flicker and its parts are spreads over frames of 0-1; ``frechet`` is on features,
# ``sliced_wasserstein`` and ``diversity`` on pixels. Diversity beyond that of real clips is no gain.
METRICS: dict[str, Literal["higher", "lower"]] = {
    **dict.fromkeys(("colour", "shape", "direction", "motion", "mean"), "higher"),
    **dict.fromkeys(("jitter", "flicker", "flicker_area", "flicker_colour", "flicker_background"), "lower"),
    **dict.fromkeys(("frechet", "sliced_wasserstein"), "lower"),
    "diversity": "higher",
}
# Places in the fixed list of held-out captions that the samples show: all colours, shapes and directions occur.
SAMPLE_CAPTIONS: tuple[int, ...] = (0, 4, 8, 9, 13, 17)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """One line of ``evaluation.json``: how a network was sampled and what the judge read in ``num_clips`` clips.

    ``calls`` are denoiser calls for one clip, twice the steps with guidance; 0 for real clips.
    """

    name: str
    stage: str
    steps: int
    guidance: float
    sampler: str
    calls: int
    metrics: dict[str, float]
    num_clips: int
    clip: str


@torch.no_grad()
def generate(
    kit: Kit, captions: Sequence[str], *, steps: int, guidance: float, seed: int, sampler: Sampler = "euler"
) -> NDArray[np.uint8]:
    """Generate one clip a caption: (N, T, 3, H, W) of uint8; equal arguments give equal clips.

    Args:
        kit: Denoiser, captions and codec.
        captions: Sentences of the vocabulary.
        steps: Denoising steps.
        guidance: Weight of classifier-free guidance; 1 is none.
        seed: Seed of the noise.
        sampler: ``euler``, or ``renoise`` at ``steps`` equally spaced times (no guidance).

    Raises:
        ValueError: ``renoise`` is asked for with guidance, or a caption has an unknown word.
    """
    if sampler == "renoise" and guidance != 1.0:
        raise ValueError(f"sampler 'renoise' works without guidance, got guidance {guidance}")
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for begin in range(0, len(captions), _BATCH):
        text = kit.captions.tokenize(captions[begin : begin + _BATCH])
        tokens = kit.captions(text.to(kit.captions.device)).tokens
        noise = torch.randn(len(tokens), *kit.latent_shape, generator=generator).to(tokens.device)
        if sampler == "renoise":
            times = tuple(1.0 - index / steps for index in range(steps))
            latents: Tensor = sample_renoise(kit.denoiser, noise, tokens, generator=generator, times=times)
        else:
            empty = kit.captions(kit.captions.empty_text(1)).tokens
            latents = sample_euler(kit.denoiser, noise, tokens, empty=empty, steps=steps, guidance=guidance)
        parts.append(kit.own_codec.decode_clips(latents))
    return np.concatenate(parts)


def evaluate(
    kit: Kit,
    *,
    steps: int,
    guidance: float,
    num_clips: int,
    seed: int,
    sampler: Sampler = "euler",
    reference: ClipReference | None = None,
) -> dict[str, float]:
    """Metrics over ``num_clips`` generated clips of held-out captions, all equally often.

    Those of ``score_clips``, and with a ``reference`` the distances from real clips; ``METRICS`` says which way is up.
    """
    wanted = held_out_attributes(num_clips, seed=seed)
    video = generate(kit, wanted.captions(), steps=steps, guidance=guidance, seed=seed, sampler=sampler)
    return measure(video, wanted, reference=reference)


def evaluate_real(
    *,
    num_clips: int,
    seed: int,
    frames: int = CLIP_FRAMES,
    size: int = CLIP_SIZE,
    reference: ClipReference | None = None,
) -> dict[str, float]:
    """The same metrics of real held-out clips: what a perfect network would score."""
    clips = make_clips(num_clips, seed=seed, split="held_out", frames=frames, size=size)
    return measure(clips.video, clips.attributes, reference=reference)


def measure(video: NDArray[np.uint8], shown: Attributes, *, reference: ClipReference | None) -> dict[str, float]:
    """What the judge reads in clips and, with a reference, how far they are from real ones."""
    return score_clips(video, shown) | (reference.distances(video, shown) if reference else {})


def held_out_attributes(num_clips: int, *, seed: int) -> Attributes:
    """Held-out captions in whole passes, so that ``num_clips`` a multiple of 18 has each equally often."""
    return draw_attributes(num_clips, rng=np.random.default_rng([seed, 1]), split="held_out")


def sample_attributes() -> Attributes:
    """The fixed captions of the animated samples."""
    every = all_attributes("held_out")
    rows = list(SAMPLE_CAPTIONS)
    return Attributes(colour=every.colour[rows], shape=every.shape[rows], motion=every.motion[rows])


def real_samples(*, seed: int, frames: int = CLIP_FRAMES, size: int = CLIP_SIZE) -> NDArray[np.uint8]:
    """Real clips of the fixed captions."""
    return render_clips(sample_attributes(), rng=np.random.default_rng(seed), frames=frames, size=size).video


def write_gif(path: Path, video: NDArray[np.uint8]) -> None:
    """Write clips (N, T, 3, H, W) side by side as one endless animated GIF, atomically.

    Raises:
        UnavailableError: The disk is full or the folder cannot be written.
    """
    count, frames, _, height, width = video.shape
    gap = 1
    sheet = np.full((frames, height + 2 * gap, count * (width + gap) + gap, 3), 255, dtype=np.uint8)
    for index in range(count):
        left = gap + index * (width + gap)
        sheet[:, gap : gap + height, left : left + width] = video[index].transpose(0, 2, 3, 1)
    sheet = sheet.repeat(_MAGNIFY, axis=1).repeat(_MAGNIFY, axis=2)
    write_frames(path, sheet.transpose(0, 3, 1, 2), frame_ms=_FRAME_MS)


def evaluate_row(
    kit: Kit,
    *,
    name: str,
    stage: str,
    steps: int,
    guidance: float,
    num_clips: int,
    seed: int,
    folder: Path,
    clip: str,
    sampler: Sampler = "euler",
    reference: ClipReference | None = None,
) -> EvaluationRow:
    """Evaluate a network, write its samples to ``folder / clip`` and return the line for ``evaluation.json``."""
    metrics = evaluate(
        kit, steps=steps, guidance=guidance, num_clips=num_clips, seed=seed, sampler=sampler, reference=reference
    )
    video = generate(kit, sample_attributes().captions(), steps=steps, guidance=guidance, seed=seed, sampler=sampler)
    write_gif(folder / clip, video)
    return EvaluationRow(
        name=name,
        stage=stage,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        calls=steps * (1 if guidance == 1.0 else 2),
        metrics=metrics,
        num_clips=num_clips,
        clip=clip,
    )


def real_row(
    *,
    num_clips: int,
    seed: int,
    folder: Path,
    clip: str = "samples/real.gif",
    frames: int = CLIP_FRAMES,
    size: int = CLIP_SIZE,
    reference: ClipReference | None = None,
) -> EvaluationRow:
    """The line for real clips."""
    write_gif(folder / clip, real_samples(seed=seed, frames=frames, size=size))
    return EvaluationRow(
        name="real clips",
        stage="real",
        steps=0,
        guidance=1.0,
        sampler="none",
        calls=0,
        metrics=evaluate_real(num_clips=num_clips, seed=seed, frames=frames, size=size, reference=reference),
        num_clips=num_clips,
        clip=clip,
    )


def write_evaluation(path: Path, rows: Sequence[EvaluationRow]) -> None:
    """Write ``evaluation.json``."""
    body: dict[str, Any] = {"captions": list(sample_attributes().captions()), "rows": to_data(list(rows))}
    write_json(path, with_schema("training_evaluation", 1, body))


def read_evaluation(path: Path) -> list[EvaluationRow]:
    """Read what ``write_evaluation`` wrote.

    Raises:
        InputError: The file is missing, damaged or of another version.
    """
    body = check_schema(read_json(path), "training_evaluation", 1, where=str(path))
    return [from_data(EvaluationRow, row, where=f"{path}: row") for row in body.get("rows", [])]
