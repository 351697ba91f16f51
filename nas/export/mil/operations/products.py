"""Products of matrices and attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from nas.export.mil.operations.registry import Inputs, kernel

if TYPE_CHECKING:
    from torch import Tensor


@kernel("linear")
def _linear(inputs: Inputs) -> Tensor:
    return functional.linear(inputs.tensor("x"), inputs.tensor("weight"), inputs.optional("bias"))


@kernel("matmul")
def _matmul(inputs: Inputs) -> Tensor:
    x, y = inputs.tensor("x"), inputs.tensor("y")
    x = x.transpose(-1, -2) if inputs.flag("transpose_x") else x
    y = y.transpose(-1, -2) if inputs.flag("transpose_y") else y
    if min(x.ndim, y.ndim) >= 2:
        inputs.stated([*torch.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1]])
    return torch.matmul(x, y)


@kernel("einsum")
def _einsum(inputs: Inputs) -> Tensor:
    equation, values = inputs.text("equation", ""), inputs.tensors("values")
    left, arrow, right = equation.replace(" ", "").partition("->")
    if arrow and left.isascii() and left.replace(",", "").isalpha():
        sizes = {
            letter: size
            for letters, value in zip(left.split(","), values, strict=True)
            for letter, size in zip(letters, value.shape, strict=True)
        }
        inputs.stated([sizes[letter] for letter in right if letter in sizes])
    return torch.einsum(equation, *values)


@kernel("scaled_dot_product_attention")
def _attention(inputs: Inputs) -> Tensor:
    return functional.scaled_dot_product_attention(
        inputs.tensor("query"), inputs.tensor("key"), inputs.tensor("value"), attn_mask=inputs.optional("attn_mask")
    )
