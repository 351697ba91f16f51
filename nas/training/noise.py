"""Times and noise of flow matching: t = 1 is noise, t = 0 is data, x_t = (1 - t) x_0 + t e, velocity v = e - x_0."""

from __future__ import annotations

import torch
from torch import Tensor

# Diffusers' sinusoidal time features are made for 0-1000.
TIME_SCALE = 1000.0
# The four times of the few-step student; ours, SnapGen-V does not publish its own (METHODS 1f).
FIXED_TIMES: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
# SF-V's grid of discriminator noise (METHODS 2c): T_d points between SVD's smallest and largest sigma, rho of Karras.
NOISE_LEVELS = 1000
SIGMA_RANGE = (0.002, 700.0)
KARRAS_RHO = 7.0


def few_step_times(steps: int) -> tuple[float, ...]:
    """Equal steps from 1 for a student of ``steps`` calls; ``FIXED_TIMES`` for four.

    Raises:
        ValueError: Less than one step.
    """
    if steps < 1:
        raise ValueError(f"a student needs at least one step, got {steps}")
    return tuple(1.0 - index / steps for index in range(steps))


def logit_normal_times(count: int, *, mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Draw times (B,) in 0-1: sigmoid of a normal variable (Stable Diffusion 3, arXiv 2403.03206, section 3.1)."""
    return torch.sigmoid(mean + std * torch.randn(count, generator=generator))


def log_normal_levels(*, mean: float, std: float, levels: int = NOISE_LEVELS) -> tuple[Tensor, Tensor]:
    """Times (levels,) in 0-1, rising, and the probability of each: SF-V's discretised log-normal (METHODS 2c).

    The noise levels s are the grid of Karras et al. 2022 (arXiv 2206.00364, equation 5) with SVD's range, and
    p(s_i) is proportional to erf((log s_i - mean) / (sqrt(2) std)) - erf((log s_(i-1) - mean) / (sqrt(2) std)). There
    a sample is x_0 + s e; in flow matching the same ratio of noise to signal is at t = s / (1 + s).
    """
    place = torch.linspace(0.0, 1.0, levels + 1, dtype=torch.float64)
    low, high = SIGMA_RANGE[0] ** (1 / KARRAS_RHO), SIGMA_RANGE[1] ** (1 / KARRAS_RHO)
    sigmas = (low + place * (high - low)) ** KARRAS_RHO
    heights = torch.erf((sigmas.log() - mean) / (2**0.5 * std))
    probabilities = heights.diff()
    return (sigmas[1:] / (1.0 + sigmas[1:])).float(), (probabilities / probabilities.sum()).float()


def log_normal_times(count: int, *, mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Draw times (B,) from ``log_normal_levels``."""
    times, probabilities = log_normal_levels(mean=mean, std=std)
    return times[torch.multinomial(probabilities, count, replacement=True, generator=generator)]


def gaussian_like(sample: Tensor, *, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape of ``sample``, drawn on the generator's device and moved."""
    noise = torch.randn(sample.shape, generator=generator, device=generator.device)
    return noise.to(device=sample.device, dtype=sample.dtype)


def add_noise(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """x_t = (1 - t) x_0 + t e for clips (B, T, C, H, W) and times (B,)."""
    t = broadcast_times(times, clean)
    return (1.0 - t) * clean + t * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """The target v = e - x_0."""
    return noise - clean


def clean_from_velocity(noisy: Tensor, predicted: Tensor, times: Tensor) -> Tensor:
    """x_0 = x_t - t v."""
    return noisy - broadcast_times(times, noisy) * predicted


def broadcast_times(times: Tensor, sample: Tensor) -> Tensor:
    """Times (B,) with the axes of ``sample``."""
    return times.to(device=sample.device, dtype=sample.dtype).reshape(-1, *(1,) * (sample.dim() - 1))
