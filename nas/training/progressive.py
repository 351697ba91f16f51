"""Baseline: progressive distillation, which halves the steps again and again, from the guided teacher.

A student learns to do in one Euler step what its teacher does in two, from noisy real clips; then it is the teacher of
the next (Salimans and Ho 2022, arXiv 2202.00512). Guidance is folded in at the first halving, where the teacher's two
steps are guided and the student's one is not (a stage of its own in Meng et al. 2023, arXiv 2210.03142).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.core.protocols import SilentProgress
from nas.training.data import TrainingClips
from nas.training.loop import Batch, Phase
from nas.training.losses import pseudo_huber
from nas.training.noise import add_noise, gaussian_like
from nas.training.sampling import guided_velocity, predict_velocity
from nas.training.stage import Kit, StageResult, describe_structure, describe_weights, run_stage

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.training.options import ProgressiveOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class HalvingLoss:
    """Distance of the student's velocity over one step of ``steps`` from the teacher's mean over two half steps."""

    student: Kit
    teacher: Kit
    data: TrainingClips
    steps: int
    guidance: float
    huber_width: float

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch."""
        clean, text = self.data.fetch(batch.indices)
        place = torch.randint(1, self.steps + 1, (len(clean),), generator=batch.generator)
        here = (place / self.steps).to(batch.device)
        half = 0.5 / self.steps
        clean = clean.to(batch.device)
        noisy = add_noise(clean, gaussian_like(clean, generator=batch.generator), here)
        with torch.no_grad():
            tokens = self.teacher.captions(text.to(batch.device)).tokens
            first = self._teach(noisy, here, tokens)
            middle = noisy - half * first
            wanted = 0.5 * (first + self._teach(middle, here - half, tokens))
        predicted = predict_velocity(self.student.denoiser, noisy, here, tokens)
        return pseudo_huber(predicted, wanted, width=self.huber_width), {}

    def _teach(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        captions = self.teacher.captions
        empty = captions(captions.empty_text(1)).tokens
        return guided_velocity(self.teacher.denoiser, noisy, times, tokens, empty=empty, guidance=self.guidance)


def distil_progressively(
    student: Kit,
    teacher: Kit,
    data: TrainingClips,
    *,
    options: ProgressiveOptions,
    folder: Path,
    streams: RandomStreams,
    metrics: Path | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Train ``student.denoiser`` in place through every halving; the result is that of the last, in ``folder``.

    Earlier halvings keep ``folder / steps-<n>``. Each has ``options.loop.steps`` optimizer steps.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The folder's files cannot be used.
    """
    teacher.denoiser.requires_grad_(False).eval()
    student.captions.requires_grad_(False).eval()
    guide, guidance = teacher, options.guidance
    counts = options.student_steps
    for steps in counts:
        last = steps == counts[-1]
        result = run_stage(
            "progressive" if last else f"progressive-{steps}",
            kit=student,
            folder=folder if last else folder / f"steps-{steps}",
            metrics=metrics or folder.parent / "metrics.jsonl",
            options=options.loop,
            details={
                "steps": steps,
                "guidance": guidance,
                "huber_width": options.huber_width,
                "data": data.description,
                "network": describe_structure(student.denoiser),
                "start": describe_weights(student.denoiser),
                "teacher": describe_weights(guide.denoiser),
            },
            modules={"denoiser": student.denoiser},
            phases=[
                Phase(
                    name="denoiser",
                    trains=("denoiser",),
                    loss=HalvingLoss(
                        student=student,
                        teacher=guide,
                        data=data,
                        steps=steps,
                        guidance=guidance,
                        huber_width=options.huber_width,
                    ),
                )
            ],
            averaged=("denoiser",),
            num_items=len(data),
            streams=streams,
            progress=progress or SilentProgress(),
        )
        guide, guidance = student.with_denoiser(copy.deepcopy(student.denoiser)), 1.0
    return result
