from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.core.errors import UnavailableError
from nas.export import shims

if TYPE_CHECKING:
    from collections.abc import Iterator


class ShapeArithmetic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0] * x.shape[1], -1)


def convert(coremltools: Any) -> Any:
    module = torch.jit.trace(ShapeArithmetic(), torch.zeros(2, 3, 4))
    inputs = [coremltools.TensorType(name="x", shape=(2, 3, 4), dtype=np.float16)]
    target = coremltools.target.iOS18
    return coremltools.convert(module, inputs=inputs, minimum_deployment_target=target, skip_model_load=True)


def test_traced_shape_arithmetic_converts_with_the_repair() -> None:
    with shims.repaired_coremltools() as coremltools:
        output = convert(coremltools).get_spec().description.output[0]
    assert tuple(output.type.multiArrayType.shape) == (6, 4)


@pytest.mark.skipif(not shims.needs_cast_repair(), reason="these versions of coremltools and NumPy need no repair")
def test_the_repair_is_still_needed() -> None:
    with pytest.raises(TypeError, match="only 0-dimensional arrays"):
        convert(shims.load_coremltools())


def test_everything_replaced_is_restored_after_an_error() -> None:
    shims.load_coremltools()
    torch_ops, passes = import_module(shims.TORCH_OPS), import_module(shims.PASSES)
    logger = logging.getLogger("coremltools")
    before = (torch_ops._cast, torch_ops._tqdm, passes.tqdm, list(logger.filters), logger.level)
    seen = []

    def fail() -> None:
        with shims.repaired_coremltools():
            seen.append(torch_ops._tqdm)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen != [before[1]]
    assert (torch_ops._cast, torch_ops._tqdm, passes.tqdm, list(logger.filters), logger.level) == before


@pytest.fixture
def _no_coremltools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    return


@pytest.mark.usefixtures("_no_coremltools")
def test_absent_coremltools_says_how_to_get_it() -> None:
    with pytest.raises(UnavailableError, match="needs coremltools") as caught:
        shims.load_coremltools()
    assert "pip install coremltools" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("Failed to load _MLModelProxy: No module named 'coremltools.libcoremlpython'", False),
        ("Torch version 2.13.0+cpu has not been tested with coremltools.", False),
        ("Saving value type of int64 into a builtin type of int32, might lose precision!", False),
        ("Output 'velocity' was replaced", True),
    ],
)
def test_only_known_noise_is_silenced(caplog: pytest.LogCaptureFixture, message: str, kept: bool) -> None:
    with shims.repaired_coremltools(), caplog.at_level(logging.WARNING):
        logging.getLogger("coremltools").warning(message)
    assert (message in caplog.text) is kept


@pytest.mark.parametrize(
    ("coremltools", "numpy", "needed"),
    [("9.0", "2.4.6", True), ("9.0", "2.3.5", False), ("9.1.dev1", "2.4.6", False), ("8.3.0", "2.5.0", True)],
)
def test_the_repair_is_guarded_by_versions(
    monkeypatch: pytest.MonkeyPatch, coremltools: str, numpy: str, needed: bool
) -> None:
    monkeypatch.setattr(shims.metadata, "version", lambda _name: coremltools)
    monkeypatch.setattr(shims.np, "__version__", numpy)
    assert shims.needs_cast_repair() is needed
