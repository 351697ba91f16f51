"""Stage 2: the student learns the teacher's output and encoder features, beside the task itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.core.protocols import SilentProgress
from nas.training.loop import Batch, Phase
from nas.training.losses import feature_loss, flow_matching_loss
from nas.training.sampling import velocity_and_features
from nas.training.stage import Kit, StageResult, describe_structure, describe_weights, run_stage
from nas.training.teacher import draw_noisy

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.training.data import TrainingClips
    from nas.training.options import DistillationOptions

logger = logging.getLogger(__name__)


def distil(
    student: Kit,
    teacher: Kit,
    data: TrainingClips,
    *,
    options: DistillationOptions,
    folder: Path,
    streams: RandomStreams,
    metrics: Path | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Train ``student.denoiser`` in place against the frozen teacher; captions are the teacher's and stay as they are.

    Student and teacher have the same backbone, so features are compared block by block with no adapters.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The folder's files cannot be used.
        ValueError: The two networks' features differ in shape.
    """
    teacher.denoiser.requires_grad_(False).eval()
    captions = teacher.captions.requires_grad_(False).eval()
    student = teacher.with_denoiser(student.denoiser)
    if options.start_from_teacher:
        copied = copy_matching_weights(teacher.denoiser, student.denoiser)
        logger.info("student starts with %d weight tensors of the teacher", len(copied))

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = draw_noisy(data, batch, options.noise, captions=captions)
        with torch.no_grad():
            tokens = captions(drawn.text).tokens
            wanted, wanted_features = velocity_and_features(teacher.denoiser, drawn.noisy, drawn.times, tokens)
        predicted, features = velocity_and_features(student.denoiser, drawn.noisy, drawn.times, tokens)
        task = flow_matching_loss(predicted, drawn.target)
        output = flow_matching_loss(predicted, wanted)
        blocks = feature_loss(features, wanted_features)
        total = options.task_weight * task + options.output_weight * output + options.feature_weight * blocks
        return total, {"task_loss": task, "output_loss": output, "feature_loss": blocks}

    details = {
        "noise": options.noise,
        "start_from_teacher": options.start_from_teacher,
        "weights": [options.task_weight, options.output_weight, options.feature_weight],
        "data": data.description,
        "network": describe_structure(student.denoiser),
        "teacher": describe_weights(teacher.denoiser),
    }
    return run_stage(
        "distillation",
        kit=student,
        folder=folder,
        metrics=metrics or folder.parent / "metrics.jsonl",
        options=options.loop,
        details=details,
        modules={"denoiser": student.denoiser},
        phases=[Phase(name="denoiser", trains=("denoiser",), loss=loss)],
        averaged=("denoiser",),
        num_items=len(data),
        streams=streams,
        progress=progress or SilentProgress(),
    )


@torch.no_grad()
def copy_matching_weights(source: nn.Module, target: nn.Module) -> tuple[str, ...]:
    """Copy every weight of ``source`` whose name and shape ``target`` shares; returns the names copied."""
    mine, theirs = target.state_dict(), source.state_dict()
    names = tuple(name for name, value in mine.items() if name in theirs and theirs[name].shape == value.shape)
    for name in names:
        mine[name].copy_(theirs[name])
    return names
