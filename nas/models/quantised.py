"""A network with its weights rounded as a Core ML package would store them, to judge what the bits cost.

Only the values are rounded: the network computes in its own type. As by coremltools 9.0's defaults, weights of
convolutions and linear layers with more than 2048 elements are stored in fewer bits, all other parameters stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from nas.models.stored_forms import StoredForm

# coremltools.optimize.coreml: ``weight_threshold`` of every operation's configuration, version 9.0.
LEAST_ELEMENTS = 2048
_ROUNDS = 30


@torch.no_grad()
def quantise_(network: nn.Module, *, bits: int, form: StoredForm) -> int:
    """Round a network's weights in place; returns how many tensors were rounded. 16 bits leave it as it is."""
    if bits >= 16:
        return 0
    rounded = 0
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and module.weight.numel() > LEAST_ELEMENTS:
            weight = module.weight
            weight.copy_(linear(weight, bits=bits) if form == "linear" else palettised(weight, bits=bits))
            rounded += 1
    return rounded


def linear(weight: Tensor, *, bits: int) -> Tensor:
    """Round to whole multiples of a step, one step an output channel: symmetric, ``2**bits - 1`` levels.

    Source:
        coremltools 9.0, ``linear_quantize_weights`` with ``linear_symmetric`` and per-channel steps.
    """
    most = 2 ** (bits - 1) - 1
    largest = weight.flatten(1).abs().amax(dim=1).reshape(-1, *(1,) * (weight.dim() - 1))
    step = torch.where(largest > 0, largest / most, torch.ones_like(largest))
    return (weight / step).round().clamp(-most, most) * step


def palettised(weight: Tensor, *, bits: int) -> Tensor:
    """Replace every weight by the nearest of ``2**bits`` values, which k-means fits to the whole tensor.

    At most 30 of Lloyd's rounds: deterministic, and not quite the optimum that k-means over one dimension could find.
    They start where the values' density to the power 1/3 puts them, which is best for many values (Panter, Dite 1951):
    of neighbours a gap g apart the density is proportional to 1/g, so a gap weighs g ** (2/3).
    """
    values = weight.flatten().double().sort().values
    if len(values.unique()) <= 2**bits:
        return weight.clone()
    weights = values.diff().pow(2 / 3).cumsum(0)
    places = (torch.arange(2**bits, dtype=torch.float64, device=weight.device) + 0.5) / 2**bits
    centres = values[torch.searchsorted(weights, places * weights[-1])]
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    for _ in range(_ROUNDS):
        edges = torch.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        bounds = torch.cat([edges.new_zeros(1), edges, edges.new_full((1,), len(values))])
        counts = bounds[1:] - bounds[:-1]
        means = (sums[bounds[1:]] - sums[bounds[:-1]]) / counts.clamp(min=1)
        moved = torch.where(counts > 0, means, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    nearest = torch.searchsorted((centres[1:] + centres[:-1]) / 2, weight.flatten().double())
    return centres[nearest].reshape(weight.shape).to(weight.dtype)
