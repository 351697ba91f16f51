from __future__ import annotations

import math

import pytest
import torch

from nas.core.errors import VerificationError
from nas.export.mil import compare_outputs
from nas.export.mil.compare import compare_tensors


def test_figures_are_those_of_their_definitions() -> None:
    error = compare_tensors("y", torch.tensor([3.0, -4.0]), torch.tensor([3.0, -4.4]))
    assert error.max_absolute == pytest.approx(0.4)
    assert error.max_relative == pytest.approx(0.1)  # of the largest value, 4
    assert error.psnr_db == pytest.approx(20 * math.log10(4 / math.sqrt(0.4**2 / 2)))
    assert error.cosine == pytest.approx((9 + 17.6) / (5 * math.hypot(3, 4.4)))
    assert error.finite


def test_equal_tensors_have_no_difference() -> None:
    error = compare_tensors("y", torch.tensor([1.0, -math.inf]), torch.tensor([1.0, -math.inf]))
    assert (error.max_absolute, error.max_relative, error.psnr_db) == (0.0, 0.0, math.inf)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_the_largest_difference(wrong: float) -> None:
    error = compare_tensors("y", torch.tensor([1.0, 2.0]), torch.tensor([1.0, wrong]))
    assert error.max_relative == math.inf
    assert error.psnr_db == -math.inf
    assert not error.finite


def test_anything_beside_expected_zeros_is_the_largest_relative_difference() -> None:
    assert compare_tensors("y", torch.zeros(2), torch.tensor([0.0, 1e-9])).max_relative == math.inf


def test_other_names_and_shapes_are_refused() -> None:
    with pytest.raises(VerificationError, match="outputs are z, expected y"):
        compare_outputs({"y": torch.zeros(1)}, {"z": torch.zeros(1)})
    with pytest.raises(VerificationError, match=r"y: shape \(2,\), expected \(1,\)"):
        compare_outputs({"y": torch.zeros(1)}, {"y": torch.zeros(2)})
