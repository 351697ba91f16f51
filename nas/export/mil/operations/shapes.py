"""Shapes: reshape, transpose, join, split, repeat, pad, fill."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from nas.export.mil.operations.registry import Inputs, kernel

if TYPE_CHECKING:
    from torch import Tensor


@kernel("reshape")
def _reshape(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    # 0 keeps the axis of x at that place.
    shape = [x.shape[place] if size == 0 else size for place, size in enumerate(inputs.integers("shape"))]
    return x.reshape(shape)


@kernel("expand_dims")
def _expand_dims(inputs: Inputs) -> Tensor:
    x, axes = inputs.tensor("x"), inputs.integers("axes")
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@kernel("squeeze")
def _squeeze(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    return x.squeeze(tuple(inputs.integers("axes"))) if inputs.has("axes") else x.squeeze()


@kernel("transpose")
def _transpose(inputs: Inputs) -> Tensor:
    return inputs.tensor("x").permute(inputs.integers("perm"))


@kernel("reverse")
def _reverse(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    return x.flip(inputs.integers("axes", list(range(x.ndim))))


@kernel("shape")
def _shape(inputs: Inputs) -> Tensor:
    return torch.tensor(inputs.tensor("x").shape, dtype=torch.int32)


@kernel("concat")
def _concat(inputs: Inputs) -> Tensor:
    values, axis = inputs.tensors("values"), inputs.integer("axis")
    if not inputs.flag("interleave"):
        return torch.cat(values, dim=axis)
    axis %= values[0].ndim
    return torch.stack(values, dim=axis + 1).flatten(axis, axis + 1)


@kernel("stack")
def _stack(inputs: Inputs) -> Tensor:
    return torch.stack(inputs.tensors("values"), dim=inputs.integer("axis"))


@kernel("split")
def _split(inputs: Inputs) -> tuple[Tensor, ...]:
    x, axis = inputs.tensor("x"), inputs.integer("axis")
    if inputs.has("split_sizes"):
        return torch.split(x, inputs.integers("split_sizes"), dim=axis)
    parts = inputs.integer("num_splits")
    if parts != len(inputs.outputs):
        raise ValueError(f"num_splits {parts} for {len(inputs.outputs)} results")
    return torch.tensor_split(x, parts, dim=axis)


@kernel("tile")
def _tile(inputs: Inputs) -> Tensor:
    x, reps = inputs.tensor("x"), inputs.integers("reps")
    inputs.stated([size * times for size, times in zip(x.shape, reps, strict=True)])
    return x.repeat(reps)


@kernel("pad")
def _pad(inputs: Inputs) -> Tensor:
    x, flat, mode = inputs.tensor("x"), inputs.integers("pad"), inputs.text("mode", "constant")
    pairs = list(zip(flat[::2], flat[1::2], strict=True))  # of the last axes, in order
    kept = x.ndim - len(pairs)
    inputs.stated([*x.shape[:kept], *(size + sum(pair) for size, pair in zip(x.shape[kept:], pairs, strict=True))])
    if mode == "constant":
        backwards = [size for pair in reversed(pairs) for size in pair]
        return functional.pad(x, backwards, value=inputs.number("constant_val", 0.0))
    if mode not in {"reflect", "replicate"}:
        raise inputs.unsupported("mode", mode)
    for axis, (begin, end) in enumerate(pairs, start=kept):
        size = x.shape[axis]
        places = torch.arange(-begin, size + end)
        places = places.abs() if mode == "reflect" else places.clamp(0, size - 1)
        if mode == "reflect":
            places = torch.where(places >= size, 2 * (size - 1) - places, places)
        x = x.index_select(axis, places)
    return x


@kernel("fill")
def _fill(inputs: Inputs) -> Tensor:
    value = inputs.optional("value")
    shape = inputs.stated(inputs.integers("shape"))
    return torch.zeros(shape) if value is None else value.reshape(()).expand(shape)


@kernel("fill_like")
def _fill_like(inputs: Inputs) -> Tensor:
    value = inputs.optional("value")
    shape = inputs.tensor("ref_tensor").shape
    return torch.zeros(shape) if value is None else value.reshape(()).expand(shape)


@kernel("range_1d")
def _range(inputs: Inputs) -> Tensor:
    start, end, step = (inputs.tensor(name).reshape(()) for name in ("start", "end", "step"))
    count = max(0, math.ceil((float(end) - float(start)) / float(step)))
    inputs.stated([count])
    return start + step * torch.arange(count, dtype=start.dtype)


@kernel("band_part")
def _band_part(inputs: Inputs) -> Tensor:
    x, lower, upper = inputs.tensor("x"), inputs.integer("lower", -1), inputs.integer("upper", -1)
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
    inside = ((rows - columns <= lower) | (lower < 0)) & ((columns - rows <= upper) | (upper < 0))
    return torch.where(inside, x, torch.zeros_like(x))
