"""Every kernel against NumPy, PyTorch's modules or a closed form, through programs that coremltools saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from nas.export.mil import execute
from nas.export.mil.operations import KERNELS

from .arithmetic_cases import ARITHMETIC
from .building import built
from .cases import INPUTS, Case, tensor
from .layout_cases import LAYOUT

if TYPE_CHECKING:
    from torch import Tensor

CASES = [*ARITHMETIC, *LAYOUT]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """One program with an output for every case."""

    def build(mb: Any, **inputs: Any) -> list[Any]:
        return [mb.identity(x=case.build(mb, inputs), name=f"case_{number}") for number, case in enumerate(CASES)]

    program = built(
        tmp_path_factory.mktemp("operations") / "all.mlpackage", {name: x.shape for name, x in INPUTS.items()}, build
    )
    return execute(program, {name: tensor(x) for name, x in INPUTS.items()})


@pytest.mark.parametrize(
    ("number", "case"), list(enumerate(CASES)), ids=[f"{number}-{case.named}" for number, case in enumerate(CASES)]
)
def test_operation_gives_what_its_definition_says(number: int, case: Case, results: dict[str, Tensor]) -> None:
    expected = torch.from_numpy(np.array(case.expected))
    found = results[f"case_{number}"]
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected.double(), rtol=2e-5, atol=2e-5)


def test_every_kernel_has_a_case() -> None:
    elsewhere = {name for name in KERNELS if name.startswith("constexpr_")}  # test_compression.py
    assert set(KERNELS) - elsewhere - {case.named for case in CASES} == set()
