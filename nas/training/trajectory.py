"""Stage 3: the guided teacher's way from noise to clip, regressed onto four fixed times without guidance.

The teacher's ways are collected once: Euler steps with guidance from pure noise, kept at the four times. The student
then learns, from each kept point, the mean velocity to the next. Its training inputs are so the very states that the
four-step sampler visits, and the targets are cached although every state is used many times (TRAINING 3.5 and 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.core.errors import CheckpointError
from nas.core.protocols import SilentProgress
from nas.models.tensors import read_tensors, write_tensors
from nas.training.loop import Batch, Phase
from nas.training.losses import pseudo_huber
from nas.training.noise import FIXED_TIMES
from nas.training.sampling import guided_velocity, predict_velocity
from nas.training.stage import Kit, StageResult, describe_structure, describe_weights, fingerprint_of, run_stage

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.training.data import TrainingClips
    from nas.training.options import CollectionOptions, TrajectoryOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectories:
    """The teacher's ways: ``states`` (N, S + 1, T, C, H, W) at ``times`` and 0; ``text`` (N, ...)."""

    states: Tensor
    text: Tensor
    times: tuple[float, ...]
    fingerprint: str

    @property
    def num_segments(self) -> int:
        """S, the number of fixed times."""
        return len(self.times)

    def __len__(self) -> int:
        """Number of (way, segment) pairs."""
        return len(self.states) * self.num_segments

    def segment(self, places: Tensor, *, device: torch.device) -> Segments:
        """The (way, segment) pairs at ``places`` (B,)."""
        way, index = places // self.num_segments, places % self.num_segments
        times = torch.tensor((*self.times, 0.0))
        begin, end = self.states[way, index], self.states[way, index + 1]
        here, there = times[index], times[index + 1]
        velocity = (end - begin) / (there - here).reshape(-1, 1, 1, 1, 1)
        parts = (item.to(device) for item in (begin, velocity, here, there, self.text[way]))
        return Segments(**dict(zip(Segments.__slots__, parts, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """B segments of ways: states ``begin`` at times ``here``, the mean ``velocity`` to times ``there``, text rows."""

    begin: Tensor
    velocity: Tensor
    here: Tensor
    there: Tensor
    text: Tensor


@torch.no_grad()
def collect_trajectories(
    teacher: Kit,
    data: TrainingClips,
    *,
    options: CollectionOptions,
    path: Path,
    streams: RandomStreams,
    times: tuple[float, ...] = FIXED_TIMES,
    progress: Progress | None = None,
) -> Trajectories:
    """Sample the guided teacher with the captions of ``data`` and keep the states at ``times``, those of the student.

    Written to ``path`` (safetensors) and read back from it when it is there.

    Raises:
        CheckpointError: ``path`` is damaged or holds the ways of another teacher.
    """
    progress = progress or SilentProgress()
    other = {} if times == FIXED_TIMES else {"times": times}
    fingerprint = fingerprint_of(
        options=options, seed=streams.seed, data=data.description, teacher=describe_weights(teacher.denoiser), **other
    )
    if path.exists():
        return _read(path, fingerprint=fingerprint, times=times)
    generator = torch.Generator().manual_seed(streams.integer("trajectories"))
    text = data.fetch_text(torch.randperm(len(data), generator=generator)[: options.num_clips])
    device = next(teacher.denoiser.parameters()).device
    empty = teacher.captions(teacher.captions.empty_text(1)).tokens
    parts = []
    for begin in range(0, len(text), options.batch_size):
        progress.update(begin, len(text), "trajectories of the teacher")
        rows = text[begin : begin + options.batch_size]
        noise = torch.randn(len(rows), *teacher.latent_shape, generator=generator).to(device)
        tokens = teacher.captions(rows.to(device)).tokens
        parts.append(_walk(teacher, noise, tokens, empty=empty, options=options, times=times))
    trajectories = Trajectories(states=torch.cat(parts), text=text, times=times, fingerprint=fingerprint)
    tensors = {"states": trajectories.states, "text": text}
    write_tensors(path, tensors, metadata={"kind": "trajectories", "fingerprint": fingerprint})
    progress.update(len(text), len(text), "trajectories of the teacher")
    return trajectories


def segment_loss(
    student: Kit, trajectories: Trajectories, indices: Tensor, *, huber_width: float, device: torch.device
) -> Tensor:
    """Pseudo-Huber distance of the student's velocity from the mean velocity of the teacher's segments.

    Args:
        student: The network trained.
        trajectories: The teacher's ways.
        indices: (B,) into the (way, segment) pairs.
        huber_width: Width of the pseudo-Huber loss.
        device: Where to compute.
    """
    segments = trajectories.segment(indices, device=device)
    with torch.no_grad():
        tokens = student.captions(segments.text).tokens
    predicted = predict_velocity(student.denoiser, segments.begin, segments.here, tokens)
    return pseudo_huber(predicted, segments.velocity, width=huber_width)


def distil_trajectory(
    student: Kit,
    trajectories: Trajectories,
    *,
    options: TrajectoryOptions,
    folder: Path,
    streams: RandomStreams,
    metrics: Path | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Train ``student.denoiser`` in place to follow the guided teacher in few steps without guidance.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The folder's files cannot be used.
    """
    student.captions.requires_grad_(False).eval()

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        value = segment_loss(student, trajectories, batch.indices, huber_width=options.huber_width, device=batch.device)
        return value, {}

    details = {
        "huber_width": options.huber_width,
        "trajectories": trajectories.fingerprint,
        "network": describe_structure(student.denoiser),
    }
    return run_stage(
        "trajectory",
        kit=student,
        folder=folder,
        metrics=metrics or folder.parent / "metrics.jsonl",
        options=options.loop,
        details=details,
        modules={"denoiser": student.denoiser},
        phases=[Phase(name="denoiser", trains=("denoiser",), loss=loss)],
        averaged=("denoiser",),
        num_items=len(trajectories),
        streams=streams,
        progress=progress or SilentProgress(),
    )


def _walk(
    teacher: Kit, noise: Tensor, tokens: Tensor, *, empty: Tensor, options: CollectionOptions, times: tuple[float, ...]
) -> Tensor:
    """States at ``times`` and at 0: (B, S + 1, T, C, H, W) on the CPU."""
    state, kept = noise, [noise]
    ends = (*times[1:], 0.0)
    for here, there in zip(times, ends, strict=True):
        width = (there - here) / options.substeps
        for index in range(options.substeps):
            t = torch.full((len(state),), here + index * width)
            move = guided_velocity(teacher.denoiser, state, t, tokens, empty=empty, guidance=options.guidance)
            state = state + width * move
        kept.append(state)
    return torch.stack(kept, dim=1).cpu()


def _read(path: Path, *, fingerprint: str, times: tuple[float, ...]) -> Trajectories:
    tensors, metadata = read_tensors(path)
    if metadata.get("fingerprint") != fingerprint or set(tensors) != {"states", "text"}:
        raise CheckpointError(
            f"{path}: holds the trajectories of another teacher or of other options",
            hint="remove the file to collect them again",
        )
    return Trajectories(states=tensors["states"], text=tensors["text"], times=times, fingerprint=fingerprint)
