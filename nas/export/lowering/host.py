"""The host's part of a denoiser call: the sinusoid of the time, which float16 cannot compute."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

MAX_PERIOD = 10_000.0  # SD v1.5's time embedding, as diffusers' ``Timesteps`` has it


def time_embedding(times: Tensor, width: int) -> Tensor:
    """Return the input ``time_embedding`` (B, width) of times (B,) on the scale 0 to 1000.

    Column ``i`` of the first half is ``cos(t f_i)``, of the second ``sin(t f_i)``, with
    ``f_i = exp(-ln(10000) i / (width / 2))``; computed in float64. In float16 the product ``t f_i`` loses the phase: an
    error of up to 0.03 of 0.35 behind the two layers that follow, against 2e-4.

    Raises:
        ValueError: ``width`` is odd.
    """
    if width % 2:
        raise ValueError(f"width of a time embedding must be even, got {width}")
    half = width // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float64) / half)
    angles = times.double().reshape(-1, 1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()
