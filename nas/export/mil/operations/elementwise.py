"""Elementwise operations of one, two and three tensors, and casts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nas.export.mil.operations.registry import KERNELS, Inputs, kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "identity": lambda x: x,
    "logical_not": torch.logical_not,
    "round": torch.round,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "sub": torch.sub,
}
# The defaults of epsilon: coremltools 9.0, ops/defs/iOS15/elementwise_unary.py.
LOG_EPSILON, RSQRT_EPSILON, INVERSE_EPSILON = 1e-45, 1e-12, 1e-4


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Inputs], Tensor]:
    return lambda inputs: function(inputs.tensor("x"))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Inputs], Tensor]:
    def compute(inputs: Inputs) -> Tensor:
        x, y = inputs.tensor("x"), inputs.tensor("y")
        if x.shape != y.shape:
            inputs.stated(torch.broadcast_shapes(x.shape, y.shape))
        return function(x, y)

    return compute


KERNELS.update({name: _unary(function) for name, function in UNARY.items()})
KERNELS.update({name: _binary(function) for name, function in BINARY.items()})


@kernel("real_div")
def _real_div(inputs: Inputs) -> Tensor:
    x, y = inputs.tensor("x"), inputs.tensor("y")
    # Whole numbers stay whole, towards zero.
    return torch.true_divide(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


@kernel("clip")
def _clip(inputs: Inputs) -> Tensor:
    return inputs.tensor("x").clamp(inputs.number("alpha"), inputs.number("beta"))


@kernel("threshold")
def _threshold(inputs: Inputs) -> Tensor:
    return inputs.tensor("x").clamp(min=inputs.number("alpha"))


@kernel("log")
def _log(inputs: Inputs) -> Tensor:
    return torch.log(inputs.tensor("x") + inputs.number("epsilon", LOG_EPSILON))


@kernel("rsqrt")
def _rsqrt(inputs: Inputs) -> Tensor:
    return torch.rsqrt(inputs.tensor("x") + inputs.number("epsilon", RSQRT_EPSILON))


@kernel("inverse")
def _inverse(inputs: Inputs) -> Tensor:
    return torch.reciprocal(inputs.tensor("x") + inputs.number("epsilon", INVERSE_EPSILON))


@kernel("select")
def _select(inputs: Inputs) -> Tensor:
    return torch.where(inputs.tensor("cond").bool(), inputs.tensor("a"), inputs.tensor("b"))


@kernel("cast")
def _cast(inputs: Inputs) -> Tensor:
    x, element = inputs.tensor("x"), inputs.outputs[0].element
    if element.is_float or element.name == "bool":
        return x.to(element.compute)
    bits, signed = element.bits, element.name.startswith("int")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    # Towards zero; what does not fit is held at the limits.
    return x.to(torch.float64).trunc().clamp(low, high).to(element.compute)
