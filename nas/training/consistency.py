"""Baseline: consistency distillation of the guided teacher (latent consistency models), for flow matching.

f(x_t, t) = x_t - t v(x_t, t) predicts the end of the way from any of its points, and is x_0 itself at t = 0: the
boundary condition holds by construction, with no skip weights to choose. One guided Euler step of the teacher leads
from a noisy real clip to the point before it; the student's prediction at the one is drawn to that of a running average
of itself, the target network, at the other. Sampled by predicting and adding noise again.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.core.protocols import SilentProgress
from nas.training.loop import Batch, Phase
from nas.training.losses import pseudo_huber
from nas.training.noise import add_noise, broadcast_times, clean_from_velocity, gaussian_like
from nas.training.sampling import guided_velocity, predict_velocity
from nas.training.stage import Kit, StageResult, describe_structure, describe_weights, run_stage

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.training.data import TrainingClips
    from nas.training.options import ConsistencyOptions


class ConsistencyLoss:
    """Distance of the student's prediction from the target network's, one guided teacher step further.

    The target network follows the student at the first call of every step. It is among the stage's modules, so a
    checkpoint holds it as it was before that, and a resumed run repeats the same.

    Args:
        student: The network trained.
        teacher: The guided teacher, frozen.
        target: A copy of the student that becomes its running average.
        data: Real clips.
        options: Grid, guidance and decay.
    """

    def __init__(
        self, student: Kit, teacher: Kit, target: nn.Module, data: TrainingClips, options: ConsistencyOptions
    ) -> None:
        self._student = student
        self._teacher = teacher
        self._target = target
        self._data = data
        self._options = options
        self._followed = 0

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch."""
        options = self._options
        self._follow(batch.step)
        clean, text = self._data.fetch(batch.indices)
        place = torch.randint(1, options.grid_steps + 1, (len(clean),), generator=batch.generator)
        here, there = (place / options.grid_steps).to(batch.device), ((place - 1) / options.grid_steps).to(batch.device)
        clean = clean.to(batch.device)
        noisy = add_noise(clean, gaussian_like(clean, generator=batch.generator), here)
        with torch.no_grad():
            captions = self._teacher.captions
            tokens, empty = captions(text.to(batch.device)).tokens, captions(captions.empty_text(1)).tokens
            move = guided_velocity(self._teacher.denoiser, noisy, here, tokens, empty=empty, guidance=options.guidance)
            nearer = noisy + broadcast_times(there - here, noisy) * move
            wanted = clean_from_velocity(nearer, predict_velocity(self._target, nearer, there, tokens), there)
        predicted = clean_from_velocity(noisy, predict_velocity(self._student.denoiser, noisy, here, tokens), here)
        return pseudo_huber(predicted, wanted, width=options.huber_width), {}

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        if step == self._followed:
            return
        self._followed = step
        share = 1.0 - self._options.target_decay
        for mine, theirs in zip(self._target.parameters(), self._student.denoiser.parameters(), strict=True):
            mine.lerp_(theirs, share)


def distil_consistency(
    student: Kit,
    teacher: Kit,
    data: TrainingClips,
    *,
    options: ConsistencyOptions,
    folder: Path,
    streams: RandomStreams,
    metrics: Path | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Train ``student.denoiser`` in place as a consistency model of the guided teacher; captions stay as they are.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The folder's files cannot be used.
    """
    teacher.denoiser.requires_grad_(False).eval()
    student.captions.requires_grad_(False).eval()
    target = copy.deepcopy(student.denoiser).requires_grad_(False)
    details = {
        **{name: getattr(options, name) for name in type(options).__slots__ if name != "loop"},
        "sampler": "renoise",
        "data": data.description,
        "network": describe_structure(student.denoiser),
        "start": describe_weights(student.denoiser),
        "teacher": describe_weights(teacher.denoiser),
    }
    return run_stage(
        "consistency",
        kit=student,
        folder=folder,
        metrics=metrics or folder.parent / "metrics.jsonl",
        options=options.loop,
        details=details,
        modules={"denoiser": student.denoiser, "target": target},
        phases=[
            Phase(
                name="denoiser",
                trains=("denoiser",),
                loss=ConsistencyLoss(student, teacher, target, data, options),
            )
        ],
        averaged=("denoiser",),
        num_items=len(data),
        streams=streams,
        progress=progress or SilentProgress(),
    )
