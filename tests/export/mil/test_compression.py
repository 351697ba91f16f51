"""Compressed weights, as coremltools stores them, against the same numbers made dense by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from nas.export.mil import execute, weight_bytes
from nas.export.mil.operations import KERNELS

from .building import built

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

RANDOM = np.random.default_rng(3)
BYTES = RANDOM.integers(-128, 128, (8, 12)).astype(np.int8)
HALVES = RANDOM.standard_normal((8, 12)).astype(np.float16)
ROW_SCALE = RANDOM.uniform(0.01, 0.1, 8).astype(np.float32)
BLOCK_SCALE = RANDOM.uniform(0.01, 0.1, (8, 3)).astype(np.float32)
MASK = RANDOM.integers(0, 2, (8, 12)).astype(np.uint8)
NONZERO = RANDOM.standard_normal(int(MASK.sum())).astype(np.float32)


def small(bits: int, shape: tuple[int, ...], *, signed: bool = False) -> np.ndarray[Any, Any]:
    """Random numbers in coremltools' own NumPy type of so many bits."""
    from coremltools.converters.mil.mil.types.type_mapping import nptype_from_builtin, string_to_builtin

    low = -(1 << bits - 1) if signed else 0
    values = RANDOM.integers(low, low + (1 << bits), shape)
    return values.astype(nptype_from_builtin(string_to_builtin(f"{'int' if signed else 'uint'}{bits}")))


def run(path: Path, build: Callable[[Any], Any]) -> Tensor:
    """Add the constant to zeros, so that an operation reads it."""

    def whole(mb: Any, zero: Any) -> Any:
        dense = build(mb)
        return mb.add(
            x=dense if dense.dtype.__name__ == "fp32" else mb.cast(x=dense, dtype="fp32"), y=zero, name="dense"
        )

    program = built(path / "weights.mlpackage", {"zero": (1,)}, whole)
    return execute(program, {"zero": torch.zeros(1)})["dense"]


def assert_equal(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(found, torch.from_numpy(np.array(expected, dtype=np.float32)), rtol=1e-6, atol=1e-6)


def test_affine_dequantize_takes_the_zero_point_off_before_scaling(tmp_path: Path) -> None:
    zero = RANDOM.integers(-9, 9, 8).astype(np.int8)
    found = run(
        tmp_path,
        lambda mb: mb.constexpr_affine_dequantize(quantized_data=BYTES, zero_point=zero, scale=ROW_SCALE, axis=0),
    )
    assert_equal(found, ROW_SCALE[:, None] * (BYTES.astype(np.float32) - zero[:, None]))


def test_cast_keeps_every_half(tmp_path: Path) -> None:
    assert_equal(run(tmp_path, lambda mb: mb.constexpr_cast(source_val=HALVES, output_dtype="fp32")), HALVES)


@pytest.mark.parametrize("signed", [False, True])
def test_blocks_of_four_bit_numbers_have_their_own_scale_and_offset(tmp_path: Path, signed: bool) -> None:
    data, offset = small(4, (8, 12), signed=signed), small(4, (8, 3), signed=signed)
    found = run(tmp_path, lambda mb: mb.constexpr_blockwise_shift_scale(data=data, scale=BLOCK_SCALE, offset=offset))
    plain, shift = data.astype(np.float32), offset.astype(np.float32).repeat(4, 1)
    assert_equal(found, BLOCK_SCALE.repeat(4, 1) * (plain - shift))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_each_group_of_rows_is_looked_up_in_its_own_table(tmp_path: Path, bits: int) -> None:
    indices = small(bits, (8, 12))
    tables = RANDOM.standard_normal((2, 1, 1 << bits, 1)).astype(np.float32)
    found = run(tmp_path, lambda mb: mb.constexpr_lut_to_dense(indices=indices, lut=tables))
    by_hand = [[tables[row // 4, 0, int(indices[row, column]), 0] for column in range(12)] for row in range(8)]
    assert_equal(found, by_hand)


def test_table_of_pairs_fills_two_rows_from_one_index(tmp_path: Path) -> None:
    indices = small(2, (4, 12))
    table = RANDOM.standard_normal((1, 1, 4, 2)).astype(np.float32)
    found = run(tmp_path, lambda mb: mb.constexpr_lut_to_dense(indices=indices, lut=table, vector_axis=0))
    by_hand = [[table[0, 0, int(indices[row // 2, column]), row % 2] for column in range(12)] for row in range(8)]
    assert_equal(found, by_hand)


def test_sparse_values_land_where_the_mask_is_set(tmp_path: Path) -> None:
    found = run(tmp_path, lambda mb: mb.constexpr_sparse_to_dense(nonzero_data=NONZERO, mask=as_bits(MASK)))
    dense = np.zeros(MASK.shape, np.float32)
    dense[MASK == 1] = NONZERO
    assert_equal(found, dense)


def test_sparse_indices_are_looked_up_before_they_are_spread(tmp_path: Path) -> None:
    indices, table = small(4, NONZERO.shape), RANDOM.standard_normal((1, 1, 16, 1)).astype(np.float32)

    def build(mb: Any) -> Any:
        mask, values = mb.constexpr_lut_to_sparse(indices_mask=as_bits(MASK), indices_nonzero_data=indices, lut=table)
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)

    dense = np.zeros(MASK.shape, np.float32)
    dense[MASK == 1] = table[0, 0, indices.astype(int), 0]
    assert_equal(run(tmp_path, build), dense)


def test_sparse_numbers_are_scaled_before_they_are_spread(tmp_path: Path) -> None:
    numbers = RANDOM.integers(-128, 128, NONZERO.shape).astype(np.int8)

    def build(mb: Any) -> Any:
        mask, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=as_bits(MASK), nonzero_data=numbers, scale=ROW_SCALE[:, None]
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)

    dense = np.zeros(MASK.shape, np.float32)
    dense[MASK == 1] = numbers
    assert_equal(run(tmp_path, build), dense * ROW_SCALE[:, None])


def as_bits(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from coremltools.converters.mil.mil.types.type_mapping import nptype_from_builtin, string_to_builtin

    return mask.astype(nptype_from_builtin(string_to_builtin("uint1")))


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_the_older_table_has_its_indices_packed_from_the_lowest_bit(bits: int) -> None:
    from nas.export.mil.operations import Inputs
    from nas.export.mil.values import ELEMENT_TYPES, TensorType

    numbers = RANDOM.integers(0, 1 << bits, 10)
    packed = np.frombuffer(
        sum(int(number) << (bits * place) for place, number in enumerate(numbers)).to_bytes(
            -(-10 * bits // 8), "little"
        ),
        dtype=np.uint8,
    )
    table = torch.arange(1 << bits).float() * 0.5
    inputs = Inputs(
        location="here",
        values={"indices": (torch.from_numpy(packed.copy()),), "lut": (table,), "shape": (torch.tensor([2, 5]),)},
        outputs=(TensorType(element=ELEMENT_TYPES["float16"], shape=(2, 5)),),
    )
    assert_equal(KERNELS["constexpr_lut_to_dense"](inputs), numbers.reshape(2, 5) * 0.5)  # type: ignore[arg-type]  # one tensor


def test_weights_are_counted_as_stored_and_as_dense(tmp_path: Path) -> None:
    indices, table = small(4, (8, 12)), RANDOM.standard_normal((1, 1, 16, 1)).astype(np.float32)

    def build(mb: Any, zero: Any) -> Any:
        return mb.add(x=mb.constexpr_lut_to_dense(indices=indices, lut=table), y=zero)

    found = weight_bytes(built(tmp_path / "weights.mlpackage", {"zero": (1,)}, build))
    assert (found.stored, found.decompressed) == (8 * 12 // 2 + 16 * 4, 8 * 12 * 4)
