"""Batch, layer, instance and vector norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from nas.export.mil.operations.registry import Inputs, kernel

if TYPE_CHECKING:
    from torch import Tensor

# coremltools 9.0, ops/defs/iOS15/normalization.py
EPSILON, L2_EPSILON = 1e-5, 1e-6


@kernel("batch_norm")
def _batch_norm(inputs: Inputs) -> Tensor:
    return functional.batch_norm(
        inputs.tensor("x"),
        inputs.tensor("mean"),
        inputs.tensor("variance"),
        inputs.optional("gamma"),
        inputs.optional("beta"),
        eps=inputs.number("epsilon", EPSILON),
    )


@kernel("instance_norm")
def _instance_norm(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    return functional.instance_norm(
        x, weight=inputs.optional("gamma"), bias=inputs.optional("beta"), eps=inputs.number("epsilon", EPSILON)
    )


@kernel("layer_norm")
def _layer_norm(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    axes = sorted(axis % x.ndim for axis in inputs.integers("axes", list(range(x.ndim))))
    if axes == list(range(axes[0], x.ndim)):
        sizes = x.shape[axes[0] :]
        gamma, beta = (
            item if item is None else item.reshape(sizes) for item in map(inputs.optional, ("gamma", "beta"))
        )
        return functional.layer_norm(x, sizes, gamma, beta, inputs.number("epsilon", EPSILON))
    variance, mean = torch.var_mean(x, dim=axes, correction=0, keepdim=True)
    normed = (x - mean) * torch.rsqrt(variance + inputs.number("epsilon", EPSILON))
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    gamma, beta = inputs.optional("gamma"), inputs.optional("beta")
    if gamma is not None:
        normed = normed * gamma.reshape(shape)
    return normed if beta is None else normed + beta.reshape(shape)


@kernel("l2_norm")
def _l2_norm(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    return x * torch.rsqrt(x.square().sum(dim=(-3, -2, -1), keepdim=True) + inputs.number("epsilon", L2_EPSILON))
