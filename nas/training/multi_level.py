"""Losses of multi-level distillation: per clip, on outputs and on features, and SnapGen's timestep-aware scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.training.noise import broadcast_times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search_spaces.backbone import BackboneSpec

_LEAST = 1e-6  # keeps a ratio finite where a loss or a feature vanishes


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePair:
    """Places in the lists that ``VideoUNet.encode`` gives of student and teacher, and their channels."""

    stage: str
    student: int
    teacher: int
    student_channels: int
    teacher_channels: int


def pair_features(student: BackboneSpec, teacher: BackboneSpec) -> tuple[FeaturePair, ...]:
    """Pair the stages that lie at the same resolution: down stages by number, the middle when depths are equal.

    Number of blocks and widths may differ.
    """
    mine, theirs = _encoder_stages(student), _encoder_stages(teacher)
    names = [stage for stage in mine if stage in theirs]
    if len(mine) != len(theirs):
        names.remove("mid")
    return tuple(
        FeaturePair(
            stage=name,
            student=list(mine).index(name),
            teacher=list(theirs).index(name),
            student_channels=mine[name],
            teacher_channels=theirs[name],
        )
        for name in names
    )


def make_adapters(pairs: Sequence[FeaturePair], *, seed: int) -> nn.ModuleDict:
    """1x1 convolutions from the student's to the teacher's channels, for the pairs where they differ.

    They are trained with the student and dropped afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.ModuleDict(
            {
                pair.stage: nn.Conv2d(pair.student_channels, pair.teacher_channels, kernel_size=1)
                for pair in pairs
                if pair.student_channels != pair.teacher_channels
            }
        )


def adapt_features(features: Sequence[Tensor], pairs: Sequence[FeaturePair], adapters: nn.ModuleDict) -> list[Tensor]:
    """The student's features (B, T, C, H, W) of every pair, in the teacher's channels."""
    adapted = []
    for pair in pairs:
        feature = features[pair.student]
        if pair.stage in adapters:
            feature = adapters[pair.stage](feature.flatten(0, 1)).unflatten(0, feature.shape[:2])
        adapted.append(feature)
    return adapted


def clip_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean square of the difference, one value a clip (B,)."""
    return (predicted - target).square().flatten(1).mean(dim=1)


def clip_feature_errors(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over blocks of |f_s - f_t|^2 / |f_t|^2, one value a clip (B,): no block dominates (TRAINING 3.2).

    Raises:
        ValueError: The lists differ in length or a pair differs in shape.
    """
    if len(student) != len(teacher) or any(a.shape != b.shape for a, b in zip(student, teacher, strict=True)):
        shapes = [tuple(item.shape) for item in student], [tuple(item.shape) for item in teacher]
        raise ValueError(f"features to distil must match in number and shape: student {shapes[0]}, teacher {shapes[1]}")
    terms = [
        clip_errors(mine, theirs) / theirs.square().flatten(1).mean(dim=1).clamp_min(_LEAST)
        for mine, theirs in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean(dim=0)


def task_shares(times: Tensor) -> Tensor:
    """w_t of ``scale_by_time``: the density of the logit-normal(0, 1) at t over its peak, so within 0-1.

    SnapGen (METHODS 5c) takes the weight "from the density"; that reaches 1.6, and the weight of the other term is
    one minus it, so dividing by the peak at t = 1/2 is ours. Near 0 and 1 the teacher is trusted, between them the
    data.
    """
    times = times.clamp(_LEAST, 1.0 - _LEAST)
    return torch.exp(-0.5 * torch.logit(times).square()) / (4.0 * times * (1.0 - times))


def scale_by_time(task: Tensor, distillation: Tensor, times: Tensor) -> Tensor:
    """S(a, b) = E_t[w_t a + (1 - w_t) (|a| / |b|) b], SnapGen's timestep-aware scaling (METHODS 5c).

    The ratio of magnitudes is a number, without gradient, clip by clip: a clip has one time, so this is the ratio at
    its time.

    Args:
        task: Loss on the data, one value a clip (B,).
        distillation: Loss against the teacher, the same.
        times: Times (B,) in 0-1.
    """
    shares = broadcast_times(task_shares(times), task)
    ratio = task.detach() / distillation.detach().clamp_min(_LEAST)
    return (shares * task + (1.0 - shares) * ratio * distillation).mean()


def _encoder_stages(spec: BackboneSpec) -> dict[str, int]:
    return {stage.name: stage.out_channels for stage in spec.stages if not stage.name.startswith("up")}
