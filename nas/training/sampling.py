"""Sampling: Euler steps with guidance, and the few-step sampler that predicts the clip and adds noise again."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from nas.training.noise import FIXED_TIMES, TIME_SCALE, add_noise, clean_from_velocity, gaussian_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.models.unet import VideoUNet

Sampler = Literal["euler", "renoise"]


def predict_velocity(denoiser: nn.Module, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
    """One denoiser call at times (B,) in 0-1."""
    predicted: Tensor = denoiser(noisy, times.to(noisy.device) * TIME_SCALE, tokens)
    return predicted


def velocity_and_features(
    denoiser: nn.Module, noisy: Tensor, times: Tensor, tokens: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """``predict_velocity`` and the encoder's features, in one pass of a ``VideoUNet``."""
    network = cast("VideoUNet", denoiser)
    return network.forward_with_features(noisy, times.to(noisy.device) * TIME_SCALE, tokens)


def guided_velocity(
    denoiser: nn.Module, noisy: Tensor, times: Tensor, tokens: Tensor, *, empty: Tensor, guidance: float
) -> Tensor:
    """v_empty + w (v_text - v_empty) in one call of twice the batch; w = 1 leaves the empty half out."""
    if guidance == 1.0:
        return predict_velocity(denoiser, noisy, times, tokens)
    both = torch.cat([tokens, empty.expand_as(tokens)])
    with_text, without = predict_velocity(denoiser, torch.cat([noisy, noisy]), torch.cat([times, times]), both).chunk(2)
    return without + guidance * (with_text - without)


def sampling_times(steps: int) -> tuple[float, ...]:
    """``steps`` equal steps from 1 down to 0, both ends included."""
    if steps < 1:
        raise ValueError(f"sampling needs at least one step, got {steps}")
    return (*tuple(1.0 - index / steps for index in range(steps)), 0.0)


@torch.no_grad()
def sample_euler(
    denoiser: nn.Module, noise: Tensor, tokens: Tensor, *, empty: Tensor, steps: int, guidance: float = 1.0
) -> Tensor:
    """Integrate from noise (B, T, C, H, W) to clips; ``guidance`` 1 is one call a step, anything else two.

    Args:
        denoiser: The network.
        noise: Standard normal start.
        tokens: Caption features (B, N, D).
        empty: Features of the empty caption (1, N, D); used with guidance only.
        steps: Number of steps.
        guidance: Weight w of classifier-free guidance.
    """
    sample = noise
    times = sampling_times(steps)
    for here, there in itertools.pairwise(times):
        t = torch.full((len(sample),), here)
        predicted = guided_velocity(denoiser, sample, t, tokens, empty=empty, guidance=guidance)
        sample = sample + (there - here) * predicted
    return sample


@torch.no_grad()
def sample_renoise(
    denoiser: nn.Module,
    noise: Tensor,
    tokens: Tensor,
    *,
    generator: torch.Generator,
    times: Sequence[float] = FIXED_TIMES,
) -> Tensor:
    """Predict x_0 at each time, then add fresh noise for the next (TRAINING section 2); no guidance."""
    sample = noise
    for index, here in enumerate(times):
        t = torch.full((len(sample),), here)
        clean = clean_from_velocity(sample, predict_velocity(denoiser, sample, t, tokens), t)
        if index + 1 == len(times):
            return clean
        following = torch.full((len(sample),), times[index + 1])
        sample = add_noise(clean, gaussian_like(clean, generator=generator), following)
    return sample
