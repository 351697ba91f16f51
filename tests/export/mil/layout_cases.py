"""Reductions, shapes, parts of tensors, images and quantisation."""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn import functional

from .cases import IMAGE, POSITIVE, ROWS, UNIT, Case, module, of, tensor

LAYOUT = [
    # Reductions
    *(
        of(f"reduce_{name}", function(IMAGE), axes=[1, -1], keep_dims=False)
        for name, function in (
            ("l1_norm", lambda x: np.abs(x).sum((1, 3))),
            ("l2_norm", lambda x: np.sqrt((x**2).sum((1, 3)))),
            ("log_sum_exp", lambda x: np.log(np.exp(x).sum((1, 3)))),
            ("max", lambda x: x.max((1, 3))),
            ("mean", lambda x: x.mean((1, 3))),
            ("min", lambda x: x.min((1, 3))),
            ("prod", lambda x: x.prod((1, 3))),
            ("sum", lambda x: x.sum((1, 3))),
            ("sum_square", lambda x: (x**2).sum((1, 3))),
        )
    ),
    of("reduce_mean", IMAGE.mean((1, 2), keepdims=True), axes=[1, 2], keep_dims=True),
    of("reduce_log_sum", np.log(POSITIVE.sum(1)), "p", axes=[1], keep_dims=False),
    of("reduce_argmax", IMAGE.argmax(1), axis=1, keep_dims=False),
    of("reduce_argmin", IMAGE.argmin(1), axis=1, keep_dims=False),
    of("argsort", np.argsort(-IMAGE, 1), axis=1),
    of("argsort", np.argsort(IMAGE, 1), axis=1, ascending=True),
    of("cumsum", np.cumsum(ROWS, 1), "r", axis=1),
    of("cumsum", np.cumsum(ROWS[:, ::-1], 1)[:, ::-1] - ROWS, "r", axis=1, reverse=True, exclusive=True),
    # Shapes
    of("reshape", IMAGE.reshape(2, 48, 4), shape=[2, -1, 4]),
    of("expand_dims", ROWS[:, None, :, None], "r", axes=[1, 3]),
    Case(lambda mb, _: mb.squeeze(x=mb.identity(x=ROWS[None, :, None]), axes=[0]), ROWS[:, None], "squeeze"),
    of("transpose", IMAGE.transpose(2, 0, 3, 1), perm=[2, 0, 3, 1]),
    of("reverse", IMAGE[:, ::-1, :, ::-1], axes=[1, 3]),
    Case(lambda mb, i: mb.concat(values=(i["r"], i["p"]), axis=1), np.concatenate([ROWS, POSITIVE], 1), "concat"),
    Case(
        lambda mb, i: mb.concat(values=(i["r"], i["p"]), axis=1, interleave=True),
        np.stack([ROWS, POSITIVE], 2).reshape(3, 10),
        "concat, interleaved",
    ),
    Case(lambda mb, i: mb.stack(values=(i["r"], i["p"]), axis=1), np.stack([ROWS, POSITIVE], 1), "stack"),
    Case(lambda mb, i: mb.split(x=i["x"], num_splits=2, axis=1)[1], IMAGE[:, 4:], "split"),
    Case(lambda mb, i: mb.split(x=i["x"], split_sizes=[3, 5], axis=1)[1], IMAGE[:, 3:], "split by sizes"),
    of("tile", np.tile(ROWS, (2, 3)), "r", reps=[2, 3]),
    of(
        "pad",
        np.pad(IMAGE, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=0.5),
        pad=[1, 0, 0, 2],
        constant_val=np.float32(0.5),
    ),
    of("pad", np.pad(IMAGE, ((0, 0), (0, 0), (1, 3), (0, 2)), mode="reflect"), pad=[1, 3, 0, 2], mode="reflect"),
    of("pad", np.pad(IMAGE, ((0, 0), (0, 0), (1, 3), (0, 2)), mode="edge"), pad=[1, 3, 0, 2], mode="replicate"),
    Case(lambda mb, _: mb.fill(shape=[2, 3], value=np.float32(0.3)), np.full((2, 3), 0.3), "fill"),
    Case(lambda mb, i: mb.fill_like(ref_tensor=i["r"], value=np.float32(0.3)), np.full((3, 5), 0.3), "fill_like"),
    Case(lambda mb, i: mb.shape(x=i["x"]), np.array([2, 8, 6, 4], np.int32), "shape"),
    Case(
        lambda mb, _: mb.range_1d(start=np.float32(1.0), end=np.float32(4.2), step=np.float32(0.5)),
        np.arange(1.0, 4.2, 0.5),
        "range_1d",
    ),
    of("band_part", np.tril(ROWS, 1) - np.tril(ROWS, -2), "r", lower=1, upper=1),
    # Parts
    of(
        "slice_by_index",
        IMAGE[:, 1:7:2, -3:, 2],
        begin=[0, 1, -3, 2],
        end=[0, 7, 0, 0],
        stride=[1, 2, 1, 1],
        begin_mask=[True, False, False, False],
        end_mask=[True, False, True, False],
        squeeze_mask=[False, False, False, True],
    ),
    of("slice_by_index", IMAGE[:, 6:1:-2], begin=[0, 6, 0, 0], end=[2, 1, 6, 4], stride=[1, -2, 1, 1]),
    of("slice_by_size", IMAGE[:, 2:5, 1:], begin=[0, 2, 1, 0], size=[2, 3, -1, 4]),
    Case(
        lambda mb, i: mb.slice_update(
            x=i["r"], update=mb.identity(x=POSITIVE[:2, :2]), begin=[1, 0], end=[3, 4], stride=[1, 2]
        ),
        np.vstack([ROWS[:1], np.stack([POSITIVE[:2, 0], ROWS[1:, 1], POSITIVE[:2, 1], ROWS[1:, 3], ROWS[1:, 4]], 1)]),
        "slice_update",
    ),
    of("gather", ROWS[:, [[4, 0], [2, 4]]], "r", indices=np.array([[4, 0], [2, -1]], np.int32), axis=1),
    of(
        "gather",
        np.stack([ROWS[0, [1, 2]], ROWS[1, [0, 0]], ROWS[2, [4, 3]]]),
        "r",
        indices=np.array([[1, 2], [0, 0], [4, 3]], np.int32),
        axis=1,
        batch_dims=1,
    ),
    of(
        "gather_along_axis",
        np.take_along_axis(ROWS, np.array([[1, 0], [2, 2], [4, 0]]), 1),
        "r",
        indices=np.array([[1, 0], [2, 2], [4, 0]], np.int32),
        axis=1,
    ),
    of("gather_nd", ROWS[[0, 2], [3, 1]], "r", indices=np.array([[0, 3], [2, 1]], np.int32)),
    Case(
        lambda mb, _: mb.one_hot(
            indices=np.array([2, 0], np.int32),
            one_hot_vector_size=4,
            on_value=np.float32(3.0),
            off_value=np.float32(-1.0),
        ),
        np.array([[-1, -1, 3, -1], [3, -1, -1, -1]], np.float32),
        "one_hot",
    ),
    # Images
    of("upsample_nearest_neighbor", IMAGE.repeat(2, 2).repeat(3, 3), scale_factor_height=2.0, scale_factor_width=3.0),
    of(
        "resize_nearest_neighbor",
        module(nn.Upsample((9, 5), mode="nearest"), IMAGE),
        target_size_height=9,
        target_size_width=5,
    ),
    *(
        of(
            "upsample_bilinear",
            functional.interpolate(tensor(IMAGE), scale_factor=2, mode="bilinear", align_corners=align),
            scale_factor_height=2.0,
            scale_factor_width=2.0,
            align_corners=align,
        )
        for align in (False, True)
    ),
    of(
        "resize_bilinear",
        functional.interpolate(tensor(IMAGE), size=(9, 5), mode="bilinear", align_corners=False),
        target_size_height=9,
        target_size_width=5,
        sampling_mode="UNALIGN_CORNERS",
    ),
    of("crop", IMAGE[:, :, 1:4, 2:3], crop_height=[1, 2], crop_width=[2, 1]),
    of("pixel_shuffle", module(nn.PixelShuffle(2), IMAGE), upscale_factor=2),
    of("pixel_unshuffle", module(nn.PixelUnshuffle(2), IMAGE), downscale_factor=np.uint32(2)),
    of(
        "depth_to_space", IMAGE.reshape(2, 2, 2, 2, 6, 4).transpose(0, 3, 4, 1, 5, 2).reshape(2, 2, 12, 8), block_size=2
    ),
    of("space_to_depth", np.concatenate([IMAGE[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)], 1), block_size=2),
    # Numbers made small
    Case(
        lambda mb, i: mb.quantize(
            input=i["x"],
            scale=np.full(8, 0.02, np.float32),
            zero_point=np.full(8, 5, np.int8),
            axis=1,
            output_dtype="int8",
        ),
        np.clip(np.round(IMAGE / np.float32(0.02)) + 5, -128, 127).astype(np.int32),
        "quantize",
    ),
    Case(
        lambda mb, i: mb.dequantize(
            input=mb.quantize(input=i["u"], scale=np.float32(0.01), output_dtype="int8"), scale=np.float32(0.03)
        ),
        np.round(UNIT / np.float32(0.01)) * 0.03,
        "dequantize",
    ),
]
