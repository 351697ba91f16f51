"""Stage 2: the student learns the teacher's output and encoder features, beside the task itself.

The teacher may be larger: other widths and numbers of blocks, and more levels. Where a feature's width differs, a 1x1
convolution takes the student's to the teacher's; it is trained along, kept in checkpoints and dropped at the end.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from nas.core.protocols import SilentProgress
from nas.training.acceleration import training_device
from nas.training.compatibility import require_same_world
from nas.training.loop import Batch, Phase
from nas.training.multi_level import (
    adapt_features,
    clip_errors,
    clip_feature_errors,
    make_adapters,
    pair_features,
    scale_by_time,
)
from nas.training.processes import main_first
from nas.training.sampling import velocity_and_features
from nas.training.stage import Kit, StageResult, describe_structure, describe_weights, run_stage
from nas.training.teacher_cache import TeacherCache
from nas.training.teacher_targets import FixedDraws, Teacher, TeacherTargets

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.models.unet import VideoUNet
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
    cache: Path | None = None,
    stage: str = "distillation",
) -> StageResult:
    """Train ``student.denoiser`` in place against the frozen teacher; captions are the teacher's and stay as they are.

    ``cache`` is the folder of the teacher's answers where ``options.cache`` asks for them; several students of one
    teacher may share it. Without it they go to ``teacher_cache`` beside ``folder``.

    Raises:
        ConfigError: Teacher and student do not take the same latents and text.
        TrainingError: The loss is not finite.
        CheckpointError: The folder's or the cache's files cannot be used.
    """
    require_same_world(student.denoiser, teacher.denoiser)
    teacher.denoiser.requires_grad_(False).eval()
    captions = teacher.captions.requires_grad_(False).eval()
    student = teacher.with_denoiser(student.denoiser)
    if options.start_from_teacher:
        copied = copy_matching_weights(teacher.denoiser, student.denoiser)
        logger.info("student starts with %d weight tensors of the teacher", len(copied))
    pairs = pair_features(cast("VideoUNet", student.denoiser).spec, cast("VideoUNet", teacher.denoiser).spec)
    adapters = make_adapters(pairs, seed=streams.integer(f"{stage}/adapters"))
    frozen = Teacher(
        denoiser=teacher.denoiser,
        captions=captions,
        features=tuple(pair.teacher for pair in pairs),
    )
    details = {
        "noise": options.noise,
        "start_from_teacher": options.start_from_teacher,
        "weights": [options.task_weight, options.output_weight, options.feature_weight],
        "scaling": options.scaling,
        "draws": options.draws,
        "data": data.description,
        "network": describe_structure(student.denoiser),
        "teacher": describe_weights(teacher.denoiser),
    }
    progress = progress or SilentProgress()
    finished = (folder / "stage.json").exists()
    device = training_device()
    frozen.to(device)
    draws, stored = None, None
    if options.draws is not None:
        draws = FixedDraws(data=data, captions=captions, options=options.noise, per_clip=options.draws, streams=streams)
        if options.cache and not finished:
            place = cache or folder.parent / "teacher_cache"
            with main_first():
                stored = TeacherCache(place, frozen, draws, loop=options.loop, device=device)
                stored.fill(progress)
    targets = TeacherTargets(data, frozen, options.noise, draws=draws, stored=stored)

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        drawn, wanted = targets.take(batch)
        with torch.no_grad():
            tokens = captions(drawn.text).tokens
        predicted, features = velocity_and_features(student.denoiser, drawn.noisy, drawn.times, tokens)
        task = clip_errors(predicted, drawn.target)
        output = clip_errors(predicted, wanted.velocity)
        blocks = clip_feature_errors(adapt_features(features, pairs, adapters), wanted.features)
        total = _total(task, output, blocks, drawn.times, options)
        return total, {"task_loss": task.mean(), "output_loss": output.mean(), "feature_loss": blocks.mean()}

    trained: dict[str, nn.Module] = {"denoiser": student.denoiser}
    if len(adapters):
        trained["adapters"] = adapters
    return run_stage(
        stage,
        kit=student,
        folder=folder,
        metrics=metrics or folder.parent / "metrics.jsonl",
        options=options.loop,
        details=details,
        modules=trained,
        phases=[Phase(name="denoiser", trains=tuple(trained), loss=loss)],
        averaged=("denoiser",),
        num_items=len(data),
        streams=streams,
        progress=progress,
    )


def _total(task: Tensor, output: Tensor, blocks: Tensor, times: Tensor, options: DistillationOptions) -> Tensor:
    if options.scaling == "timestep_aware":
        return scale_by_time(task, output, times) + scale_by_time(task, blocks, times)
    parts = (options.task_weight, task), (options.output_weight, output), (options.feature_weight, blocks)
    return torch.stack([weight * part.mean() for weight, part in parts]).sum()


@torch.no_grad()
def copy_matching_weights(source: nn.Module, target: nn.Module) -> tuple[str, ...]:
    """Copy every weight of ``source`` whose name and shape ``target`` shares; returns the names copied."""
    mine, theirs = target.state_dict(), source.state_dict()
    names = tuple(name for name, value in mine.items() if name in theirs and theirs[name].shape == value.shape)
    for name in names:
        mine[name].copy_(theirs[name])
    return names
