"""Settings of the quality estimators; without torch, so that a YAML loads fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from nas.training.options import LoopOptions, NoiseOptions, Ratio

Layers = Literal["all", "temporal"]
Sharing = Literal["kind", "attention"]
PathRule = Literal["fair", "sandwich", "filled_sandwich"]
# Times at which the loss is taken. Motion is decided where single frames say little: at 0.4 the empty and the largest
# network of `tiny` scored the same (0.130 and 0.131), at 0.6 and 0.8 they differed by 9 and 12 %.
MOTION_TIMES: tuple[float, ...] = (0.6, 0.75, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetOptions:
    """Options of ``train_supernet``; steps are set for the demo on two CPU cores.

    Attributes:
        loop: Steps and rates.
        noise: How samples are drawn.
        sharing: Which options of a slot share weights: those of a ``kind``, or those of all kinds of ``attention`` as
            well (ours), which ranked unseen networks with tau 0.73 and 0.77 instead of 0.57 and 0.63
            (benchmarks/results/quality_rank.md).
        rule: Which paths a step trains. ``fair``: one, every kind of a slot equally often (FairNAS, arXiv 1907.01845).
            ``sandwich``: the largest network, the empty one and ``random_paths`` others on one batch (BigNAS, arXiv
            2003.11142). ``filled_sandwich``: the same with a fair path without empty slots in the place of the largest
            network; ours, because kinds share no weights and the largest network's would be trained far more often.
        random_paths: Random paths a step of a sandwich (2: BigNAS).
        drop_ratio: Chance that a random or fair path leaves a slot empty, beside what the draw itself leaves empty:
            stochastic temporal blocks (robust training of SnapFusion, METHODS 3b; its own chances are unknown).
        distillation_ratio: Share of the largest (or filled) network's output in the target of a sandwich's other paths
            (in-place distillation; 1 in BigNAS).
        layers: Which weights are trained; ``temporal`` freezes the backbone, as SnapGen-V's search does (METHODS 1b).
        backbone_steps: Steps of the backbone without temporal layers that it starts from; 0 starts from nothing.
    """

    loop: LoopOptions = field(default_factory=lambda: LoopOptions(steps=1280, batch_size=16, threads=1))
    noise: NoiseOptions = field(default_factory=NoiseOptions)
    sharing: Sharing = "kind"
    rule: PathRule = "fair"
    random_paths: Annotated[int, Field(ge=0)] = 1
    drop_ratio: Ratio = 0.0
    distillation_ratio: Ratio = 0.0
    layers: Layers = "all"
    backbone_steps: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.layers == "temporal" and not self.backbone_steps:
            raise ValueError("layers 'temporal' freezes the backbone, which needs backbone_steps of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortTrainingOptions:
    """Options of ``ShortTraining``.

    Attributes:
        steps: Optimizer steps of one candidate.
        batch_size: Clips of one step.
        learning_rate: Peak rate.
        layers: Which weights of a candidate are trained; ``temporal`` freezes the backbone.
        backbone_steps: Steps of the backbone without temporal layers that all candidates start from.
        clips: Clips to learn from.
        held_out_clips: Clips to be judged on; a multiple of 18 shows each held-out caption equally often.
    """

    steps: int = 100
    batch_size: int = 16
    learning_rate: float = 2e-3
    layers: Layers = "all"
    backbone_steps: int = 800
    clips: int = 1024
    held_out_clips: int = 36

    @property
    def loop(self) -> LoopOptions:
        """How a candidate is trained; without checkpoints, since a broken one is trained afresh."""
        return LoopOptions(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=min(20, self.steps // 5),
            threads=1,
            checkpoint_every=self.steps,
            log_every=self.steps,
        )

    @property
    def backbone(self) -> LoopOptions:
        """How the backbone is trained."""
        return LoopOptions(steps=self.backbone_steps, batch_size=16, threads=1)
