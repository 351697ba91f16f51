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
    return torch.matmul(
        x.transpose(-1, -2) if inputs.flag("transpose_x") else x,
        y.transpose(-1, -2) if inputs.flag("transpose_y") else y,
    )


@kernel("einsum")
def _einsum(inputs: Inputs) -> Tensor:
    return torch.einsum(inputs.text("equation", ""), *inputs.tensors("values"))


@kernel("scaled_dot_product_attention")
def _attention(inputs: Inputs) -> Tensor:
    return functional.scaled_dot_product_attention(
        inputs.tensor("query"), inputs.tensor("key"), inputs.tensor("value"), attn_mask=inputs.optional("attn_mask")
    )
