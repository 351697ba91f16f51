"""Reductions over axes, running sums and orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nas.export.mil.operations.registry import KERNELS, Inputs, kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # the table's one signature
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(dim=axis, keepdim=keep)
    return x


REDUCTIONS: dict[str, Reduction] = {
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "reduce_log_sum_exp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
    "reduce_max": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "reduce_min": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "reduce_prod": _product,
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
}


def _reduction(function: Reduction) -> Callable[[Inputs], Tensor]:
    def reduce(inputs: Inputs) -> Tensor:
        x = inputs.tensor("x")
        return function(x, inputs.integers("axes", list(range(x.ndim))), inputs.flag("keep_dims"))

    return reduce


KERNELS.update({name: _reduction(function) for name, function in REDUCTIONS.items()})


@kernel("reduce_argmax")
def _argmax(inputs: Inputs) -> Tensor:
    return inputs.tensor("x").argmax(dim=inputs.integer("axis", -1), keepdim=inputs.flag("keep_dims"))


@kernel("reduce_argmin")
def _argmin(inputs: Inputs) -> Tensor:
    return inputs.tensor("x").argmin(dim=inputs.integer("axis", -1), keepdim=inputs.flag("keep_dims"))


@kernel("argsort")
def _argsort(inputs: Inputs) -> Tensor:
    x, down = inputs.tensor("x"), not inputs.flag("ascending")
    return torch.argsort(x, dim=inputs.integer("axis", -1), descending=down, stable=True)


@kernel("cumsum")
def _cumsum(inputs: Inputs) -> Tensor:
    x, axis = inputs.tensor("x"), inputs.integer("axis", 0)
    backwards = inputs.flag("reverse")
    x = x.flip(axis) if backwards else x
    total = x.cumsum(axis, dtype=x.dtype)
    total = total - x if inputs.flag("exclusive") else total
    return total.flip(axis) if backwards else total
