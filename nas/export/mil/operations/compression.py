"""Compressed weights made dense, and values made small and large again.

Formulas: coremltools 9.0, ops/defs/iOS16/constexpr_ops.py, iOS17/quantization_ops.py and iOS18/compression.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from nas.export.mil.operations.registry import Inputs, kernel
from nas.export.mil.values import ELEMENT_TYPES, unpack_bits

if TYPE_CHECKING:
    from torch import Tensor


@kernel("constexpr_cast")
def _cast(inputs: Inputs) -> Tensor:
    return inputs.tensor("source_val")


@kernel("constexpr_affine_dequantize")
def _affine_dequantize(inputs: Inputs) -> Tensor:
    data, axis = inputs.tensor("quantized_data"), inputs.integer("axis")
    return _along(inputs.tensor("scale"), data, axis) * (data - _along(inputs.tensor("zero_point"), data, axis))


@kernel("constexpr_lut_to_dense")
def _lut_to_dense(inputs: Inputs) -> Tensor:
    indices, lut = inputs.tensor("indices"), inputs.tensor("lut")
    if not inputs.has("shape"):
        return _looked_up(indices, lut, inputs)
    shape = inputs.stated(inputs.integers("shape"))  # iOS 16: one table, packed indices
    packed = indices.to(torch.uint8).numpy()
    numbers = unpack_bits(packed, bits=int(math.log2(lut.numel())), count=math.prod(shape))
    return lut.index_select(0, torch.from_numpy(numbers).int()).reshape(shape)


@kernel("constexpr_sparse_to_dense")
def _sparse_to_dense(inputs: Inputs) -> Tensor:
    mask = inputs.tensor("mask")
    if inputs.has("shape"):  # iOS 16: packed bits
        shape = inputs.stated(inputs.integers("shape"))
        bits = unpack_bits(mask.to(torch.uint8).numpy(), bits=1, count=math.prod(shape))
        mask = torch.from_numpy(bits).reshape(shape)
    return _dense(mask, inputs.tensor("nonzero_data"))


@kernel("constexpr_blockwise_shift_scale")
def _blockwise_shift_scale(inputs: Inputs) -> Tensor:
    return _shifted(inputs.tensor("data"), inputs)


@kernel("constexpr_sparse_blockwise_shift_scale")
def _sparse_blockwise_shift_scale(inputs: Inputs) -> tuple[Tensor, Tensor]:
    mask = inputs.tensor("data_mask")
    return mask, _shifted(_dense(mask, inputs.tensor("nonzero_data")), inputs)[mask != 0]


@kernel("constexpr_lut_to_sparse")
def _lut_to_sparse(inputs: Inputs) -> tuple[Tensor, Tensor]:
    mask, lut = inputs.tensor("indices_mask"), inputs.tensor("lut")
    values = _looked_up(_dense(mask, inputs.tensor("indices_nonzero_data")), lut, inputs)
    if lut.shape[-1] > 1:
        mask = mask.repeat_interleave(lut.shape[-1], dim=inputs.integer("vector_axis"))
    return mask, values[mask != 0]


@kernel("quantize")
def _quantize(inputs: Inputs) -> Tensor:
    x, axis = inputs.tensor("input"), inputs.integer("axis", 0)
    scaled = torch.round(x / _along(inputs.tensor("scale"), x, axis))
    if inputs.has("zero_point"):
        scaled = scaled + _along(inputs.tensor("zero_point"), x, axis)
    element = ELEMENT_TYPES[inputs.outputs[0].element.name]
    low, high = (-128, 127) if element.name == "int8" else (0, 255)
    return scaled.clamp(low, high).to(element.compute)


@kernel("dequantize")
def _dequantize(inputs: Inputs) -> Tensor:
    x, axis = inputs.tensor("input"), inputs.integer("axis", 0)
    zero = _along(inputs.tensor("zero_point"), x, axis) if inputs.has("zero_point") else 0
    return (x - zero) * _along(inputs.tensor("scale"), x, axis)


def _along(vector: Tensor, data: Tensor, axis: int) -> Tensor:
    """Return a scalar as it is, a vector in the shape that broadcasts along ``axis`` of ``data``."""
    if vector.ndim == 0:
        return vector
    shape = [1] * data.ndim
    shape[axis] = -1
    return vector.reshape(shape)


def _dense(mask: Tensor, values: Tensor) -> Tensor:
    kept = mask != 0
    if int(kept.sum()) != values.numel():
        raise ValueError(f"the mask keeps {int(kept.sum())} values, given are {values.numel()}")
    return torch.zeros(mask.shape, dtype=values.dtype).masked_scatter_(kept, values)


def _shifted(data: Tensor, inputs: Inputs) -> Tensor:
    """Scale blocks of ``data``; a block's size is the ratio of the shapes of ``data`` and ``scale``."""
    scale, offset = inputs.tensor("scale"), inputs.optional("offset")
    if any(size % count for size, count in zip(data.shape, scale.shape, strict=True)):
        raise ValueError(f"scales of {tuple(scale.shape)} do not divide data of {tuple(data.shape)}")
    pairs = [(count, size // count) for size, count in zip(data.shape, scale.shape, strict=True)]
    blocks = data.reshape([length for pair in pairs for length in pair])
    once = [length for count, _ in pairs for length in (count, 1)]
    if offset is not None:
        blocks = blocks - offset.reshape(once)
    return (blocks * scale.reshape(once)).reshape(data.shape)


def _looked_up(indices: Tensor, lut: Tensor, inputs: Inputs) -> Tensor:
    """Return table entries: ``lut`` is (groups along each axis of ``indices``..., entries, vector)."""
    groups, (entries, vector) = lut.shape[:-2], lut.shape[-2:]
    grouped = [axis for axis, count in enumerate(groups) if count > 1]
    if len(groups) != indices.ndim or any(size % count for size, count in zip(indices.shape, groups, strict=True)):
        raise ValueError(f"tables of {tuple(lut.shape)} do not divide indices of {tuple(indices.shape)}")
    if len(grouped) > 1:  # tables along several axes: one axis after the other
        axis = grouped[0]
        pairs = zip(indices.split(indices.shape[axis] // groups[axis], dim=axis), lut.split(1, dim=axis), strict=True)
        return torch.cat([_looked_up(part, tables, inputs) for part, tables in pairs], dim=axis)
    axis = grouped[0] if grouped else 0
    tables = lut.reshape(-1, entries, vector)
    parts = indices.split(indices.shape[axis] // len(tables), dim=axis) if indices.numel() else (indices,)
    found = torch.cat(
        [
            table.index_select(0, part.reshape(-1)).reshape(*part.shape, vector)
            for table, part in zip(tables, parts, strict=True)
        ],
        dim=axis,
    )  # (indices..., vector)
    if vector == 1:
        return found.squeeze(-1)
    axis = inputs.integer("vector_axis") % indices.ndim
    return found.movedim(-1, axis + 1).flatten(axis, axis + 1)
