from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from nas.core.errors import InputError
from nas.export.mil import execute
from nas.export.mil.chain import chained_steps, execute_chain
from nas.export.mil.ranges import not_numbers, seeded_inputs, value_ranges

from .building import built

if TYPE_CHECKING:
    from pathlib import Path

    from nas.export.mil import Program

WEIGHT = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float16)
X, Y = torch.eye(4), torch.full((4, 4), 2.0)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, Program]:
    """tanh(W x) y, cut behind the linear layer; the second part reads an input of its own too."""
    folder = tmp_path_factory.mktemp("parts")
    first = built(
        folder / "a_1of2.mlpackage",
        {"x": (4, 4)},
        lambda mb, x: mb.linear(x=x, weight=WEIGHT, name="middle"),
        dtype=np.float16,
    )
    second = built(
        folder / "a_2of2.mlpackage",
        {"middle": (4, 4), "y": (4, 4)},
        lambda mb, middle, y: mb.mul(x=mb.tanh(x=middle), y=y, name="result"),
        dtype=np.float16,
    )
    return first, second


def test_later_package_reads_what_the_earlier_made_and_the_inputs_left(parts: tuple[Program, Program]) -> None:
    found = execute_chain(parts, {"x": X, "y": Y})
    assert list(found) == ["result"]
    expected = 2 * np.tanh(WEIGHT.astype(np.float32).T)
    np.testing.assert_allclose(found["result"].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("inputs", [{"x": X}, {"x": X, "y": Y, "z": Y}, {"y": Y}])
def test_inputs_that_are_missing_or_that_nothing_reads_are_refused(
    parts: tuple[Program, Program], inputs: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(InputError, match=r"a_[12]of2.mlpackage: takes the inputs .*, given "):
        execute_chain(parts, inputs)


def test_results_sent_in_are_what_later_operations_read(parts: tuple[Program, Program]) -> None:
    walk = chained_steps(parts, {"x": X, "y": Y})
    next(walk)
    walk.send((torch.zeros(4, 4),))  # W x becomes 0
    next(walk)
    with pytest.raises(StopIteration) as stop:
        next(walk)
    assert stop.value.value["result"].abs().max() == 0


def test_inputs_are_seeded_for_what_no_earlier_package_makes(parts: tuple[Program, Program]) -> None:
    inputs, words = seeded_inputs(parts)
    assert sorted(inputs) == ["x", "y"]
    assert "seed 0" in words
    assert inputs["x"].equal(seeded_inputs(parts)[0]["x"])


def test_ranges_name_what_leaves_float16_and_what_is_no_number(tmp_path: Path) -> None:
    program = built(
        tmp_path / "p.mlpackage",
        {"x": (2,)},
        lambda mb, x: mb.log(x=mb.square(x=x, name="squared"), name="logged", epsilon=np.float16(0)),
        dtype=np.float16,
    )
    large = value_ranges([program], {"x": torch.tensor([300.0, 1.0])})
    assert large.largest == 90000.0
    assert "square 'squared'" in large.words
    assert large.first_not_finite is None
    zero = value_ranges([program], {"x": torch.tensor([0.0, 1.0])})
    assert "log 'logged'" in str(zero.first_not_finite)


def test_constants_that_are_no_numbers_are_named(parts: tuple[Program, Program], tmp_path: Path) -> None:
    broken = WEIGHT.copy()
    broken[1, 2] = np.nan
    program = built(
        tmp_path / "p.mlpackage", {"x": (4, 4)}, lambda mb, x: mb.linear(x=x, weight=broken), dtype=np.float16
    )
    assert len(list(not_numbers(program))) == 1
    assert list(not_numbers(parts[0])) == []
    assert execute(program, {"x": X})
