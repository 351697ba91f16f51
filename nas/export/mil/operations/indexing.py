"""Slices, gathers and updates of parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nas.core.errors import VerificationError
from nas.export.mil.operations.registry import Inputs, kernel

if TYPE_CHECKING:
    from torch import Tensor


def _places(inputs: Inputs, x: Tensor) -> tuple[list[range], list[bool]]:
    """Return the places that a slice takes from every axis, and which axes it drops."""
    begin, end = inputs.integers("begin"), inputs.integers("end")
    stride = inputs.integers("stride", [1] * x.ndim)
    begin_mask, end_mask, squeeze = (inputs.flags(f"{name}_mask", x.ndim) for name in ("begin", "end", "squeeze"))
    ranges = []
    for axis, size in enumerate(x.shape):
        if squeeze[axis]:
            at = begin[axis] % size
            ranges.append(range(at, at + 1))
            continue
        whole = slice(None if begin_mask[axis] else begin[axis], None if end_mask[axis] else end[axis], stride[axis])
        ranges.append(range(*whole.indices(size)))
    return ranges, squeeze


@kernel("slice_by_index")
def _slice_by_index(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    ranges, squeeze = _places(inputs, x)
    for axis, places in enumerate(ranges):
        if places.step == 1:
            x = x.narrow(axis, places.start, len(places))
        else:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.long))
    dropped = tuple(axis for axis, drop in enumerate(squeeze) if drop)
    return x.squeeze(dropped) if dropped else x


@kernel("slice_by_size")
def _slice_by_size(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    for axis, (begin, size) in enumerate(zip(inputs.integers("begin"), inputs.integers("size"), strict=True)):
        start = begin % x.shape[axis]
        x = x.narrow(axis, start, x.shape[axis] - start if size == -1 else size)
    return x


@kernel("slice_update")
def _slice_update(inputs: Inputs) -> Tensor:
    x, update = inputs.tensor("x").clone(), inputs.tensor("update")
    ranges, squeeze = _places(inputs, x)
    sizes = [len(places) for places in ranges]
    grids = torch.meshgrid([torch.tensor(list(places), dtype=torch.long) for places in ranges], indexing="ij")
    kept = [size for size, drop in zip(sizes, squeeze, strict=True) if not drop]
    x[grids] = update.expand(kept).reshape(sizes)
    return x


@kernel("gather")
def _gather(inputs: Inputs) -> Tensor:
    x, indices, axis = inputs.tensor("x"), inputs.tensor("indices").long(), inputs.integer("axis", 0)
    axis %= x.ndim
    shared = inputs.integer("batch_dims", 0)
    indices = _wrapped(indices, x.shape[axis], inputs)
    if shared == 0:
        taken = x.index_select(axis, indices.reshape(-1))
        return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    rows = x.reshape(-1, *x.shape[shared:])
    places = indices.reshape(-1, *indices.shape[shared:])
    axis -= shared
    taken = torch.stack([row.index_select(axis, place.reshape(-1)) for row, place in zip(rows, places, strict=True)])
    own = x.shape[shared:]
    return taken.reshape(*x.shape[:shared], *own[:axis], *indices.shape[shared:], *own[axis + 1 :])


@kernel("gather_along_axis")
def _gather_along_axis(inputs: Inputs) -> Tensor:
    x, axis = inputs.tensor("x"), inputs.integer("axis", 0)
    return torch.gather(x, axis, _wrapped(inputs.tensor("indices").long(), x.shape[axis], inputs))


@kernel("gather_nd")
def _gather_nd(inputs: Inputs) -> Tensor:
    x, indices = inputs.tensor("x"), inputs.tensor("indices").long()
    if inputs.integer("batch_dims", 0):
        raise inputs.unsupported("batch_dims", inputs.integer("batch_dims"))
    places = tuple(_wrapped(place, size, inputs) for place, size in zip(indices.unbind(-1), x.shape, strict=False))
    return x[places]


@kernel("one_hot")
def _one_hot(inputs: Inputs) -> Tensor:
    indices, size, axis = (
        inputs.tensor("indices").long(),
        inputs.integer("one_hot_vector_size"),
        inputs.integer("axis", -1),
    )
    shape = list(indices.shape)
    shape.insert(axis % (indices.ndim + 1), size)
    inputs.stated(shape)
    on, off = inputs.optional("on_value"), inputs.optional("off_value")
    hot = (indices.unsqueeze(-1) == torch.arange(size)).movedim(-1, axis)
    one = torch.tensor(1, dtype=torch.int32) if on is None else on.reshape(())
    return torch.where(hot, one, torch.zeros_like(one) if off is None else off.reshape(()))


def _wrapped(indices: Tensor, size: int, inputs: Inputs) -> Tensor:
    """Return indices counted from the front.

    Raises:
        VerificationError: One is outside; on a device the result would be undefined.
    """
    if indices.numel() and (int(indices.min()) < -size or int(indices.max()) >= size):
        raise VerificationError(
            f"{inputs.location}: index {int(indices.min())} to {int(indices.max())} outside an axis of {size}"
        )
    return torch.where(indices < 0, indices + size, indices)
