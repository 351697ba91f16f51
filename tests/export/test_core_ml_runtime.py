"""Core ML itself, with coremltools' model class replaced by a device that computes as the executor does, or worse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import coremltools
import numpy as np
import pytest
import torch

from nas.core.errors import UnavailableError, VerificationError
from nas.export.core_ml_runtime import UNITS, missing_runtime, predict
from nas.export.mil import execute, read_program
from nas.pipeline.verify_package import VerifyOptions, verify_exported

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Exported


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Pretend to be a Mac whose units compute as the executor does, then ``spoil`` the output."""

    def pretend(spoil: Callable[[str, Any], Any]) -> list[str]:
        used: list[str] = []

        class Model:
            def __init__(self, path: str, *, compute_units: coremltools.ComputeUnit) -> None:
                self.path, self.unit = path, compute_units.name

            def predict(self, data: dict[str, Any]) -> dict[str, Any]:
                used.append(self.unit)
                assert all(item.dtype == np.float16 for item in data.values())
                from pathlib import Path

                inputs = {name: torch.from_numpy(item).float() for name, item in data.items()}
                found = execute(read_program(Path(self.path)), inputs, precision="float16")
                return {name: spoil(self.unit, item.numpy()) for name, item in found.items()}

        monkeypatch.setattr("sys.platform", "darwin")
        monkeypatch.setattr(coremltools.models, "MLModel", Model)
        return used

    return pretend


def test_every_unit_is_run_and_compared_three_ways(exported: Exported, mac: Callable[..., list[str]]) -> None:
    used = mac(lambda _, output: output * np.float32(1.001))
    (found,) = verify_exported(str(exported.package), VerifyOptions(core_ml=True))
    assert used == list(UNITS.values())
    on_device = [check for check in found.checks if "by Core ML on" in check.name]
    assert [check.name.split(" on ")[1].split()[0] for check in on_device] == list(UNITS)
    assert all("from the executor in float16: cosine 1.00000" in str(check.found) for check in on_device)
    assert found.verdict == "verified"


@pytest.mark.parametrize("wrong", [lambda output: output * np.nan, lambda output: output[..., ::-1].copy()])
def test_a_unit_that_computes_something_else_fails(
    exported: Exported, mac: Callable[..., list[str]], wrong: Callable[[Any], Any]
) -> None:
    mac(lambda unit, output: wrong(output) if unit == "CPU_AND_NE" else output)
    (found,) = verify_exported(str(exported.package), VerifyOptions())
    assert [check.name for check in found.checks if not check.passed] == [
        "velocity by Core ML on cpu_and_ne against torch, weights as trained"
    ]
    assert found.verdict == "differs"


def test_a_package_that_core_ml_refuses_is_named(exported: Exported, mac: Callable[..., list[str]]) -> None:
    def refuse(unit: str, _: Any) -> Any:
        raise RuntimeError(f"error code -7 on {unit}")

    mac(refuse)
    with pytest.raises(VerificationError, match=r"denoiser.mlpackage: Core ML on cpu failed: error code -7"):
        verify_exported(str(exported.package), VerifyOptions())


def test_elsewhere_core_ml_is_said_to_be_missing(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert "needs macOS" in str(missing_runtime())
    with pytest.raises(UnavailableError, match="needs macOS"):
        predict([read_program(exported.package)], {}, "cpu")
