"""Settings of the quality estimators; without torch, so that a YAML loads fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from nas.training.options import LoopOptions, NoiseOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetOptions:
    """Options of ``train_supernet``; steps are set for about 150 s on two CPU cores."""

    loop: LoopOptions = field(default_factory=lambda: LoopOptions(steps=1840, batch_size=16, threads=1))
    noise: NoiseOptions = field(default_factory=NoiseOptions)
