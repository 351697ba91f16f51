"""Pruning an image network: robust training with blocks left out at random, then the choice, then distillation.

SnapFusion (METHODS 3b) trains with stochastic depth so that a block's removal can be judged without training again.
Here the network in training also learns the unpruned one's output and features, which is the loss that importance is
measured in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from nas.core.protocols import SilentProgress
from nas.training.acceleration import training_device
from nas.training.distillation import distil
from nas.training.loop import Batch, Phase
from nas.training.multi_level import clip_errors, clip_feature_errors
from nas.training.noise import TIME_SCALE
from nas.training.stage import StageResult, describe_structure, describe_weights, run_stage
from nas.training.teacher_targets import Teacher, TeacherTargets
from search_spaces.pruning import SourceUNet, Unit, kept_depth, may_remove, skipped_parts

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.models.unet import VideoUNet
    from nas.training.data import TrainingClips
    from nas.training.options import DistillationOptions, RobustOptions
    from nas.training.stage import Kit


def train_robustly(
    student: Kit,
    teacher: Kit,
    source: SourceUNet,
    data: TrainingClips,
    *,
    options: RobustOptions,
    folder: Path,
    streams: RandomStreams,
    metrics: Path | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Train ``student.denoiser`` in place with units left out at random, against the frozen whole network.

    Every unit is left out with ``options.skip_ratio``, drawn for each step; what would empty a stage stays. Residual
    paths remain, so shapes do not change. Blocks that change the width are never left out.

    Args:
        student: A copy of the source network.
        teacher: The source network.
        source: Names the units.
        data: The clips; single frames of them are used.
        options: Steps, rates, ratio.
        folder: The stage's folder.
        streams: Source of randomness.
        metrics: The ``metrics.jsonl``; beside the folder when left out.
        progress: Told of every step.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The folder's files cannot be used.
    """
    network = cast("VideoUNet", student.denoiser)
    levels = len(source.channels)
    frozen = Teacher(
        denoiser=teacher.denoiser.requires_grad_(False).eval(),
        captions=teacher.captions.requires_grad_(False).eval(),
        features=tuple(range(levels + 1)),
    )
    frozen.to(training_device())
    targets = TeacherTargets(data, frozen, options.noise)

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        removed = draw_removal(source, ratio=options.skip_ratio, generator=batch.shared or batch.generator)
        drawn, wanted = targets.take(batch)
        with torch.no_grad():
            tokens = frozen.captions(drawn.text).tokens
        predicted, features = network.forward_with_features(
            drawn.noisy, drawn.times * TIME_SCALE, tokens, skipped=skipped_parts(source, removed)
        )
        depth = kept_depth(source, removed)
        same = depth if depth < levels else depth + 1
        task = clip_errors(predicted, drawn.target).mean()
        output = clip_errors(predicted, wanted.velocity).mean()
        blocks = clip_feature_errors(features[:same], wanted.features[:same]).mean()
        total = options.task_weight * task + options.output_weight * output + options.feature_weight * blocks
        return total, {"task_loss": task, "output_loss": output, "feature_loss": blocks}

    return run_stage(
        "robust",
        kit=student,
        folder=folder,
        metrics=metrics or folder.parent / "metrics.jsonl",
        options=options.loop,
        details={
            "noise": options.noise,
            "skip_ratio": options.skip_ratio,
            "weights": [options.task_weight, options.output_weight, options.feature_weight],
            "data": data.description,
            "network": describe_structure(network),
            "start": describe_weights(teacher.denoiser),
        },
        modules={"denoiser": network},
        phases=[Phase(name="denoiser", trains=("denoiser",), loss=loss)],
        averaged=("denoiser",),
        num_items=len(data),
        streams=streams,
        progress=progress or SilentProgress(),
    )


def draw_removal(source: SourceUNet, *, ratio: float, generator: torch.Generator) -> frozenset[str]:
    """Draw which units one step leaves out: each with ``ratio``, in order, as long as it may go."""
    removed: frozenset[str] = frozenset()
    # Levels first: a dropped level's blocks are gone anyway.
    units = sorted(may_remove(source, removed), key=_levels_first)
    drawn = torch.rand(len(units), generator=generator) < ratio
    for unit, gone in zip(units, drawn.tolist(), strict=True):
        if gone and unit.name in {free.name for free in may_remove(source, removed)}:
            removed = removed | {unit.name}
    return removed


def distil_pruned(
    pruned: Kit,
    teacher: Kit,
    data: TrainingClips,
    *,
    options: DistillationOptions,
    folder: Path,
    streams: RandomStreams,
    metrics: Path | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Distil the unpruned network's output and features into the pruned one; see ``distil``.

    ``options.start_from_teacher`` must be off: kept blocks are numbered anew, and ``build_pruned`` has copied them.

    Raises:
        ValueError: It is on.
    """
    if options.start_from_teacher:
        raise ValueError("a pruned network starts with the weights it kept: start_from_teacher must be false")
    return distil(
        pruned, teacher, data, options=options, folder=folder, streams=streams, metrics=metrics, progress=progress
    )


def _levels_first(unit: Unit) -> int:
    return 0 if unit.kind == "level" else 1
