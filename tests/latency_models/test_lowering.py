"""What each unit makes of an operation, in closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from latency_models.lowering import (
    LOWERINGS,
    OperationFeatures,
    attention_scratch_bytes,
    lower,
    padded_bytes,
    scratch_bytes,
    work_kind,
)

SPLIT, CHUNKED, GPU, TORCH = (LOWERINGS[name] for name in ("split_einsum", "split_einsum_v2", "fused_sdpa", "torch"))


def attention(batch: int, tokens: int, *, keys: int | None = None, width: int = 320, heads: int = 8) -> Any:
    keys = tokens if keys is None else keys
    key = (batch, keys, width)
    return OperationFeatures(
        kind="attention",
        flops=4 * batch * tokens * keys * width,
        weight_bytes=0,
        moved_bytes=2 * batch * width * 2 * (tokens + keys),
        inputs=((batch, tokens, width), key, key),
        output=(batch, tokens, width),
        element_bytes=2,
        options=(("heads", heads),),
    )


def conv(kernel: tuple[int, ...], stride: int = 1) -> OperationFeatures:
    options = {"in_channels": 4, "out_channels": 6, "stride": stride, "groups": 1}
    options |= {f"kernel_{axis}": length for axis, length in enumerate(kernel)}
    return OperationFeatures(
        kind="conv3d" if len(kernel) == 3 else "conv2d",
        flops=100,
        weight_bytes=10,
        moved_bytes=20,
        inputs=((1, 4, *(8 for _ in kernel)),),
        output=(1, 6, *(8 for _ in kernel)),
        element_bytes=2,
        options=tuple(sorted(options.items())),
    )


def test_decomposed_scores_of_eight_frames_at_32_by_32_take_134_mb() -> None:
    # 8 frames x 8 heads x 1024^2 scores x 2 bytes; at 64 x 64 it is 2.1 GB.
    assert attention_scratch_bytes(attention(8, 1024), SPLIT) == 8 * 8 * 1024**2 * 2
    assert attention_scratch_bytes(attention(8, 4096), SPLIT) == pytest.approx(2.147e9, rel=1e-3)


def test_query_chunks_divide_the_scores_that_are_alive() -> None:
    assert attention_scratch_bytes(attention(1, 4096), CHUNKED) * 8 == attention_scratch_bytes(
        attention(1, 4096), SPLIT
    )
    assert attention_scratch_bytes(attention(1, 100), CHUNKED) == attention_scratch_bytes(attention(1, 100), SPLIT)


@pytest.mark.parametrize(("batch", "scores"), [(9, 0), (10, 10 * 8 * 64 * 64 * 2)])
def test_gpu_fuses_attention_below_ten_rows_only(batch: int, scores: int) -> None:
    # coremltools issue 2650: the fused pattern is wrong for batch >= 10.
    assert attention_scratch_bytes(attention(batch, 64), GPU) == scores
    assert len(lower(attention(batch, 64), GPU)) == (3 if scores else 1)


def test_torch_keeps_scores_inside_for_any_batch() -> None:
    assert attention_scratch_bytes(attention(4096, 16), TORCH) == 0


def test_other_operations_have_no_scores() -> None:
    assert attention_scratch_bytes(conv((3, 3)), SPLIT) == 0


def test_short_temporal_rows_are_padded_to_64_bytes() -> None:
    # 16 frames of half precision are 32 bytes: half of each row is padding.
    assert attention_scratch_bytes(attention(4096, 16), SPLIT) == 4096 * 8 * 16 * 64
    assert padded_bytes((4096, 16, 320), 2, SPLIT) == 4096 * 320 * 64  # tokens are kept last
    assert padded_bytes((1, 320, 16, 1), 2, SPLIT) == 32 * 1 * 320 * 16 * 2  # a singleton last axis costs 32x
    assert padded_bytes((1, 320, 16, 1), 2, GPU) == 320 * 16 * 2


@pytest.mark.parametrize("name", LOWERINGS)
def test_lowering_keeps_the_arithmetic(name: str) -> None:
    for operation in (attention(2, 77), attention(16, 16), conv((3, 3))):
        assert sum(step.flops for step in lower(operation, LOWERINGS[name])) == operation.flops


def test_split_einsum_moves_the_scores_four_times_and_launches_every_head() -> None:
    operation = attention(2, 128, width=64, heads=4)
    steps = lower(operation, SPLIT)
    scores, tokens = 2 * 4 * 128 * 128 * 2, 2 * 128 * 64 * 2
    assert [step.moved_bytes for step in steps] == [2 * tokens + scores, 2 * scores, scores + 2 * tokens]
    assert [step.launches for step in steps] == [4, 4, 4]


def test_group_norm_is_eight_operations_where_it_has_none_of_its_own() -> None:
    norm = OperationFeatures(
        kind="group_norm",
        flops=0,
        weight_bytes=8,
        moved_bytes=0,
        inputs=((1, 4, 8, 32),),
        output=(1, 4, 8, 32),
        element_bytes=2,
    )
    assert lower(norm, SPLIT)[0].launches == 8
    assert lower(norm, TORCH)[0].launches == 1


@pytest.mark.parametrize(
    ("kernel", "stride", "lowering", "expected"),
    [
        ((3, 3), 1, "split_einsum", "conv3x3"),
        ((3, 3), 2, "split_einsum", "conv"),  # Winograd needs stride 1
        ((1, 1), 1, "split_einsum", "conv1x1"),
        ((3, 1), 1, "split_einsum", "temporal_conv"),
        ((3, 3, 3), 1, "split_einsum", "conv3d"),
        ((3, 1, 1), 1, "split_einsum", "temporal_conv"),  # exactly a Conv2d (3, 1)
        ((1, 1, 1), 1, "split_einsum", "conv1x1"),
        ((3, 1, 1), 1, "fused_sdpa", "conv3d"),
    ],
)
def test_convolutions_run_at_the_rate_of_their_kernel(
    kernel: tuple[int, ...], stride: int, lowering: str, expected: str
) -> None:
    assert work_kind(conv(kernel, stride), LOWERINGS[lowering]) == expected


OURS = LOWERINGS["long_axis_last"]


def test_heads_in_turn_hold_the_scores_of_one_head_twice_less_the_room_of_the_output() -> None:
    # 8 frames, 1024 tokens: one head has 8 x 1024^2 scores, not above 2^23, so all queries at once.
    one = attention(8, 1024)
    assert attention_scratch_bytes(one, OURS) == 2 * 8 * 1024**2 * 2 - 8 * 1024 * 320 * 2
    # 16384 tokens in one row: pieces of 512 queries.
    assert attention_scratch_bytes(attention(1, 16384), OURS) == 2 * 512 * 16384 * 2 - 16384 * 320 * 2
    assert attention_scratch_bytes(attention(4096, 16), OURS) == 0  # frames at every pixel: less than the output


def test_pixels_are_last_where_frames_are_few() -> None:
    # 4096 pixels of 16 frames: rows of 4096 half-floats need no padding, rows of 16 double.
    assert padded_bytes((4096, 16, 320), 2, OURS) == 4096 * 16 * 320 * 2
    assert padded_bytes((4096, 16, 320), 2, SPLIT) == 2 * 4096 * 16 * 320 * 2


def test_convolutions_over_frames_are_plane_ones_by_frame() -> None:
    three = replace(conv((3, 3, 3)), kind="conv3d", inputs=((1, 4, 8, 6, 32),), output=(1, 6, 8, 6, 32))
    assert work_kind(three, OURS) == "conv3x3"
    assert work_kind(three, SPLIT) == "conv3d"
    # Seven of eight frames: twice the output (6 channels) is more than input and output (4 and 6).
    size = 8 * 6 * 32 * 2
    assert scratch_bytes(three, OURS, input_outlives=True) == 2 * 6 * size * 7 // 8
    assert scratch_bytes(three, SPLIT, input_outlives=True) == 0


def test_norms_and_gates_hold_what_their_steps_do() -> None:
    video = (8, 64, 16, 32)
    norm = replace(conv((1, 1)), kind="group_norm", inputs=(video,), output=video, options=())
    assert scratch_bytes(norm, GPU, input_outlives=True) == 8 * 64 * 16 * 32 * 2
    assert scratch_bytes(norm, GPU, input_outlives=False) == 0
    gate = replace(norm, kind="geglu", inputs=((8, 512, 512),), output=(8, 512, 256))
    assert scratch_bytes(gate, LOWERINGS["decomposed"], input_outlives=False) == 8 * 512 * 256 * 2
    assert scratch_bytes(gate, GPU, input_outlives=False) == 0  # two projections


def test_layouts_that_keep_the_frames_are_views() -> None:
    tokens = replace(conv((1, 1)), kind="layout", inputs=((16, 320, 64, 64),), output=(4096, 16, 320), options=())
    assert lower(tokens, OURS)[0].moved_bytes == 0
    assert lower(tokens, SPLIT)[0].moved_bytes > 0
