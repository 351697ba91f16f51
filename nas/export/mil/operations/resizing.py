"""Images made larger or smaller, and pixels moved between channels and space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from nas.export.mil.operations.registry import Inputs, kernel

if TYPE_CHECKING:
    from torch import Tensor


@kernel("upsample_nearest_neighbor")
def _upsample_nearest(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    factors = inputs.number("scale_factor_height", 1.0), inputs.number("scale_factor_width", 1.0)
    return _nearest(x, [int(size * factor) for size, factor in zip(x.shape[-2:], factors, strict=True)], inputs)


@kernel("resize_nearest_neighbor")
def _resize_nearest(inputs: Inputs) -> Tensor:
    sizes = [inputs.integer("target_size_height"), inputs.integer("target_size_width")]
    return _nearest(inputs.tensor("x"), sizes, inputs)


@kernel("upsample_bilinear")
def _upsample_bilinear(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    factors = inputs.number("scale_factor_height", 1.0), inputs.number("scale_factor_width", 1.0)
    align = inputs.flag("align_corners", default=True)
    if not align and not inputs.flag("half_pixel_centers", default=True):
        raise inputs.unsupported("half_pixel_centers", False)
    return _bilinear(
        x, [int(size * factor) for size, factor in zip(x.shape[-2:], factors, strict=True)], inputs, align=align
    )


@kernel("resize_bilinear")
def _resize_bilinear(inputs: Inputs) -> Tensor:
    mode = inputs.text("sampling_mode", "DEFAULT")
    if mode not in {"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS"}:
        raise inputs.unsupported("sampling_mode", mode)
    sizes = [inputs.integer("target_size_height"), inputs.integer("target_size_width")]
    return _bilinear(inputs.tensor("x"), sizes, inputs, align=mode != "UNALIGN_CORNERS")


@kernel("crop")
def _crop(inputs: Inputs) -> Tensor:
    x = inputs.tensor("x")
    for axis, name in ((-2, "crop_height"), (-1, "crop_width")):
        begin, end = inputs.integers(name)
        x = x.narrow(axis, begin, x.shape[axis] - begin - end)
    return x


@kernel("pixel_shuffle")
def _pixel_shuffle(inputs: Inputs) -> Tensor:
    return functional.pixel_shuffle(inputs.tensor("x"), inputs.integer("upscale_factor"))


@kernel("pixel_unshuffle")
def _pixel_unshuffle(inputs: Inputs) -> Tensor:
    return functional.pixel_unshuffle(inputs.tensor("x"), inputs.integer("downscale_factor"))


@kernel("depth_to_space")
def _depth_to_space(inputs: Inputs) -> Tensor:
    x, block = inputs.tensor("x"), inputs.integer("block_size")
    batch, channels, height, width = x.shape
    # The block's place is the slow part of the channel here, the fast one in pixel_shuffle.
    x = x.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(batch, channels // block**2, height * block, width * block)


@kernel("space_to_depth")
def _space_to_depth(inputs: Inputs) -> Tensor:
    x, block = inputs.tensor("x"), inputs.integer("block_size")
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(batch, channels * block**2, height // block, width // block)


def _nearest(x: Tensor, sizes: list[int], inputs: Inputs) -> Tensor:
    inputs.stated([*x.shape[:-2], *sizes])
    for axis, size in zip((-2, -1), sizes, strict=True):
        # floor(i * old / new) in whole numbers; exact where a float factor is not.
        x = x.index_select(axis, torch.arange(size) * x.shape[axis] // size)
    return x


def _bilinear(x: Tensor, sizes: list[int], inputs: Inputs, *, align: bool) -> Tensor:
    inputs.stated([*x.shape[:-2], *sizes])
    image = x.reshape(1, -1, *x.shape[-2:])
    return functional.interpolate(image, size=sizes, mode="bilinear", align_corners=align).reshape(
        *x.shape[:-2], *sizes
    )
