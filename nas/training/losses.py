"""Losses as pure functions of tensors; every one is a scalar to minimise.

Sign convention of the adversarial losses, stated here once: the discriminator's score is high for real and low for
generated samples (SF-V's printed formulas have the opposite sign, METHODS 2c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # the customary name
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def flow_matching_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean square of v_theta - (e - x_0) over everything (TRAINING 3.1)."""
    return F.mse_loss(predicted, target)


def pseudo_huber(predicted: Tensor, target: Tensor, *, width: float) -> Tensor:
    """sqrt(|a - b|^2 + c^2) - c per clip with |.| the root mean square, then the mean (SF-V; METHODS 2c).

    SF-V uses the Euclidean norm; the mean over elements makes ``width`` independent of the clip's size.
    """
    square = (predicted - target).square().flatten(1).mean(dim=1)
    return (torch.sqrt(square + width**2) - width).mean()


def discriminator_hinge(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean over heads of E relu(1 - D(real)) + E relu(1 + D(fake))."""
    terms = [F.relu(1.0 - r).mean() + F.relu(1.0 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def gradient_penalty(scores: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """R1: mean over clips of half the squared gradient of the summed mean scores by what was judged.

    ``inputs`` want gradients and are what ``scores`` were computed from, each (B, ...). The graph of the gradient is
    kept, so the result can be minimised.

    Source:
        Mescheder et al. 2018 (arXiv 1801.04406); gamma of SF-V is not published.
    """
    total = torch.stack([score.flatten(1).mean(dim=1).sum() for score in scores]).sum()
    gradients = torch.autograd.grad(total, list(inputs), create_graph=True)
    return 0.5 * torch.stack([one.flatten(1).square().sum(dim=1).mean() for one in gradients]).sum()


def generator_hinge(fake: Sequence[Tensor]) -> Tensor:
    """Mean over heads of -E D(fake)."""
    return torch.stack([-score.mean() for score in fake]).mean()
