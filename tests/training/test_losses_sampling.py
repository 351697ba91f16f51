"""Flow-matching algebra, losses against closed forms, samplers on fields whose solution is known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from nas.training.losses import discriminator_hinge, generator_hinge, pseudo_huber
from nas.training.noise import add_noise, clean_from_velocity, logit_normal_times, velocity
from nas.training.sampling import guided_velocity, sample_euler, sample_renoise, sampling_times

SHAPE = (3, 2, 4, 2, 2)


class Field(nn.Module):
    """Velocity towards a clip that depends on the text: the exact denoiser of data that is one clip a caption."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, float]] = []

    def forward(self, sample: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        self.calls.append((len(sample), float(timestep[0])))
        target = tokens.mean(dim=(1, 2)).reshape(-1, 1, 1, 1, 1)
        return (sample - target) / (timestep.reshape(-1, 1, 1, 1, 1) / 1000)


@pytest.fixture
def tokens() -> Tensor:
    return torch.arange(3.0).reshape(3, 1, 1).expand(3, 5, 4)


def test_clean_clip_is_recovered_from_the_true_velocity() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)
    times = torch.tensor([0.1, 0.5, 1.0])
    noisy = add_noise(clean, noise, times)
    assert torch.allclose(clean_from_velocity(noisy, velocity(clean, noise), times), clean, atol=1e-6)
    assert torch.equal(noisy[2], noise[2])


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.0, 0.5)])
def test_times_follow_the_logit_normal_distribution(mean: float, std: float) -> None:
    times = logit_normal_times(20000, mean=mean, std=std, generator=torch.Generator().manual_seed(1))
    for quantile in (0.1, 0.5, 0.9):
        wanted = 1 / (1 + math.exp(-(mean + std * norm.ppf(quantile))))
        assert float(times.quantile(quantile)) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_euler_reaches_the_clip_of_its_caption(tokens: Tensor, steps: int) -> None:
    # The true path of one-clip data is straight, so that every number of steps is exact.
    field = Field()
    result = sample_euler(field, torch.randn(SHAPE), tokens, empty=tokens[:1] * 0, steps=steps)
    assert torch.allclose(result, tokens.mean(dim=(1, 2)).reshape(-1, 1, 1, 1, 1).expand(SHAPE), atol=1e-4)
    assert [batch for batch, _ in field.calls] == [3] * steps


def test_renoising_reaches_the_clip_of_its_caption_in_four_calls(tokens: Tensor) -> None:
    field = Field()
    result = sample_renoise(field, torch.randn(SHAPE), tokens, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(result, tokens.mean(dim=(1, 2)).reshape(-1, 1, 1, 1, 1).expand(SHAPE), atol=1e-4)
    assert [round(time) for _, time in field.calls] == [1000, 750, 500, 250]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guidance_extrapolates_from_the_empty_caption(tokens: Tensor, guidance: float) -> None:
    sample, times, empty = torch.zeros(SHAPE), torch.ones(3), torch.full((1, 5, 4), 10.0)
    found = guided_velocity(Field(), sample, times, tokens, empty=empty, guidance=guidance)
    with_text = -tokens.mean(dim=(1, 2))
    wanted = -10.0 + guidance * (with_text + 10.0)
    assert torch.allclose(found[:, 0, 0, 0, 0], wanted, atol=1e-5)


def test_guided_step_is_one_call_of_twice_the_batch(tokens: Tensor) -> None:
    field = Field()
    sample_euler(field, torch.randn(SHAPE), tokens, empty=tokens[:1] * 0, steps=2, guidance=3.0)
    assert [batch for batch, _ in field.calls] == [6, 6]


def test_sampling_times_run_from_noise_to_data() -> None:
    assert sampling_times(4) == (1.0, 0.75, 0.5, 0.25, 0.0)


def test_zero_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one step, got 0"):
        sampling_times(0)


def test_hinge_sign_rewards_high_scores_for_real_clips() -> None:
    high, low = [torch.full((2, 3), 2.0)], [torch.full((2, 3), -2.0)]
    assert discriminator_hinge(high, low).item() == 0.0
    assert discriminator_hinge(low, high).item() == pytest.approx(6.0)
    assert generator_hinge(high).item() < generator_hinge(low).item()


def test_pseudo_huber_is_quadratic_near_and_linear_far() -> None:
    zero = torch.zeros(1, 4)
    near, far = (pseudo_huber(torch.full((1, 4), value), zero, width=1.0).item() for value in (0.01, 100.0))
    assert near == pytest.approx(0.5 * 0.01**2, rel=1e-2)
    assert far == pytest.approx(99.0, abs=0.01)
