"""Settings of the quality estimators; without torch, so that a YAML loads fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from nas.training.options import LoopOptions, NoiseOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetOptions:
    """Options of ``train_supernet``; steps are set for the demo on two CPU cores."""

    loop: LoopOptions = field(default_factory=lambda: LoopOptions(steps=1280, batch_size=16, threads=1))
    noise: NoiseOptions = field(default_factory=NoiseOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortTrainingOptions:
    """Options of ``ShortTraining``.

    Attributes:
        steps: Optimizer steps of one candidate.
        batch_size: Clips of one step.
        learning_rate: Peak rate.
        backbone_steps: Steps of the backbone without temporal layers that all candidates start from.
        clips: Clips to learn from.
        held_out_clips: Clips to be judged on; a multiple of 18 shows each held-out caption equally often.
    """

    steps: int = 100
    batch_size: int = 16
    learning_rate: float = 2e-3
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
            threads=1,
            checkpoint_every=self.steps,
            log_every=self.steps,
        )

    @property
    def backbone(self) -> LoopOptions:
        """How the backbone is trained."""
        return LoopOptions(steps=self.backbone_steps, batch_size=16, threads=1)
