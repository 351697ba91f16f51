"""Activations and softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from nas.export.mil.operations.registry import KERNELS, Inputs, kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
}
# Of one tensor x and the numbers alpha and beta: coremltools 9.0, ops/defs/iOS15/activation.py.
WITH_NUMBERS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "clamped_relu": lambda x, alpha, beta: torch.where(x >= 0, x, alpha * x).clamp(max=beta),
    "elu": lambda x, alpha, _: functional.elu(x, alpha),
    "leaky_relu": lambda x, alpha, _: torch.where(x >= 0, x, alpha * x),
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "thresholded_relu": lambda x, alpha, _: torch.where(x >= alpha, x, torch.zeros_like(x)),
}


def _plain(function: Callable[[Tensor], Tensor]) -> Callable[[Inputs], Tensor]:
    return lambda inputs: function(inputs.tensor("x"))


def _with_numbers(function: Callable[[Tensor, float, float], Tensor]) -> Callable[[Inputs], Tensor]:
    return lambda inputs: function(inputs.tensor("x"), inputs.number("alpha"), inputs.number("beta", 0.0))


KERNELS.update({name: _plain(function) for name, function in PLAIN.items()})
KERNELS.update({name: _with_numbers(function) for name, function in WITH_NUMBERS.items()})


@kernel("prelu")
def _prelu(inputs: Inputs) -> Tensor:
    return functional.prelu(inputs.tensor("x"), inputs.tensor("alpha"))


@kernel("gelu")
def _gelu(inputs: Inputs) -> Tensor:
    x, mode = inputs.tensor("x"), inputs.text("mode", "EXACT")
    if mode == "EXACT":
        return functional.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return functional.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise inputs.unsupported("mode", mode)


@kernel("softmax")
def _softmax(inputs: Inputs) -> Tensor:
    return torch.softmax(inputs.tensor("x"), dim=inputs.integer("axis", -1))
