"""Convolutions, transposed convolutions and pooling over one to three axes."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from nas.export.mil.operations.registry import Inputs, kernel

if TYPE_CHECKING:
    from torch import Tensor

# By number of spatial axes.
CONVOLUTIONS: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED: dict[int, Any] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
MAXIMA: dict[int, Any] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
MEANS: dict[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}

Pads = list[tuple[int, int]]
# An image that padding makes this many times larger is no network's wish but a damaged number.
MAX_GROWTH = 64


@kernel("conv")
def _conv(inputs: Inputs) -> Tensor:
    x, weight = inputs.tensor("x"), inputs.tensor("weight")
    axes = weight.ndim - 2
    strides = inputs.integers("strides", [1] * axes)
    dilations = inputs.integers("dilations", [1] * axes)
    pads = _pads(inputs, x, list(weight.shape[2:]), strides, dilations)
    spatial = zip(x.shape[2:], pads, weight.shape[2:], strides, dilations, strict=True)
    sizes = [(size + sum(pad) - (length - 1) * d - 1) // stride + 1 for size, pad, length, stride, d in spatial]
    inputs.stated([x.shape[0], weight.shape[0], *sizes])
    padding = [begin for begin, _ in pads]
    if any(begin != end for begin, end in pads):
        x, padding = _padded(x, pads, 0.0), [0] * axes
    convolve = CONVOLUTIONS[axes]
    result: Tensor = convolve(
        x, weight, inputs.optional("bias"), strides, padding, dilations, inputs.integer("groups", 1)
    )
    return result


@kernel("conv_transpose")
def _conv_transpose(inputs: Inputs) -> Tensor:
    x, weight = inputs.tensor("x"), inputs.tensor("weight")
    axes = weight.ndim - 2
    strides = inputs.integers("strides", [1] * axes)
    dilations = inputs.integers("dilations", [1] * axes)
    kernel_sizes = list(weight.shape[2:])
    full = [
        (size - 1) * stride + (length - 1) * dilation + 1
        for size, stride, length, dilation in zip(x.shape[2:], strides, kernel_sizes, dilations, strict=True)
    ]
    kind = inputs.text("pad_type", "valid")
    if kind.startswith("same"):
        sizes = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        begins = [
            _halves(max(0, one - size), lower=kind == "same_lower")[0] for one, size in zip(full, sizes, strict=True)
        ]
    else:
        pads = _pairs(inputs.integers("pad", [0] * 2 * axes)) if kind == "custom" else [(0, 0)] * axes
        begins = [begin for begin, _ in pads]
        sizes = [one - begin - end for one, (begin, end) in zip(full, pads, strict=True)]
    if inputs.has("output_shape"):
        sizes = inputs.integers("output_shape")[-axes:]
    inputs.stated([x.shape[0], weight.shape[1] * inputs.integer("groups", 1), *sizes])
    extra = [max(0, begin + size - one) for begin, size, one in zip(begins, sizes, full, strict=True)]
    result: Tensor = TRANSPOSED[axes](
        x, weight, inputs.optional("bias"), strides, 0, extra, inputs.integer("groups", 1), dilations
    )
    for axis, (begin, size) in enumerate(zip(begins, sizes, strict=True), start=2):
        result = result.narrow(axis, begin, size)
    return result


@kernel("max_pool")
def _max_pool(inputs: Inputs) -> Tensor:
    x, lengths, strides, pads = _pooling(inputs)
    result: Tensor = MAXIMA[len(lengths)](_padded(x, pads, float("-inf")), lengths, strides)
    return result


@kernel("avg_pool")
def _avg_pool(inputs: Inputs) -> Tensor:
    x, lengths, strides, pads = _pooling(inputs)
    pool = MEANS[len(lengths)]
    mean: Tensor = pool(_padded(x, pads, 0.0), lengths, strides)
    if not inputs.flag("exclude_padding_from_average"):
        return mean
    share: Tensor = pool(_padded(torch.ones_like(x), pads, 0.0), lengths, strides)
    return mean / share


def _pooling(inputs: Inputs) -> tuple[Tensor, list[int], list[int], Pads]:
    x, lengths = inputs.tensor("x"), inputs.integers("kernel_sizes")
    strides = inputs.integers("strides", [1] * len(lengths))
    if inputs.flag("ceil_mode"):
        raise inputs.unsupported("ceil_mode", True)
    return x, lengths, strides, _pads(inputs, x, lengths, strides, [1] * len(lengths))


def _pads(inputs: Inputs, x: Tensor, lengths: list[int], strides: list[int], dilations: list[int]) -> Pads:
    """Return what is added before and after each spatial axis.

    Source:
        ``pad_type``, coremltools 9.0, ops/defs/iOS15/conv.py: ``same`` puts the odd one behind, ``same_lower`` before.
    """
    kind = inputs.text("pad_type", "valid")
    if kind == "valid":
        return [(0, 0)] * len(lengths)
    if kind == "custom":
        return _pairs(inputs.integers("pad", [0] * 2 * len(lengths)))
    if kind not in {"same", "same_lower"}:
        raise inputs.unsupported("pad_type", kind)
    pads = []
    for size, length, stride, dilation in zip(x.shape[2:], lengths, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (length - 1) * dilation + 1 - size)
        pads.append(_halves(total, lower=kind == "same_lower"))
    return pads


def _halves(total: int, *, lower: bool) -> tuple[int, int]:
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def _pairs(flat: list[int]) -> Pads:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _padded(x: Tensor, pads: Pads, value: float) -> Tensor:
    if not any(map(any, pads)):
        return x
    sizes = [size + sum(pad) for size, pad in zip(x.shape[2:], pads, strict=True)]
    if math.prod(sizes) > MAX_GROWTH * math.prod(size + 1 for size in x.shape[2:]):
        raise ValueError(f"padding {pads} for an image of {tuple(x.shape[2:])}")
    return functional.pad(x, list(chain.from_iterable(reversed(pads))), value=value)
