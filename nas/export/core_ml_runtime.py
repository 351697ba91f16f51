"""Packages run by Core ML itself, through coremltools, on each compute unit of a Mac.

coremltools is imported inside functions: it costs seconds and only packages need it.
"""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas.core.artefacts import StructureCheck
from nas.core.errors import UnavailableError, VerificationError
from nas.export.mil.compare import OutputError, compare_outputs
from nas.export.shims import load_coremltools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nas.export.mil.program import Program

# Name here → member of coremltools.ComputeUnit.
UNITS = {"cpu": "CPU_ONLY", "cpu_and_gpu": "CPU_AND_GPU", "cpu_and_ne": "CPU_AND_NE", "all": "ALL"}
# Ours. A Neural Engine was seen at 0.997 for one step of SD 1.5 (M2 Pro, public notes of 2024); a wrong layer is far
# below.
MIN_COSINE = 0.99


def missing_runtime() -> str | None:
    """Say in one line why Core ML cannot run here; None where it can."""
    if sys.platform == "darwin":
        return None
    return f"Core ML itself was not run: it needs macOS, this is {platform.system()}"


def predict(programs: Sequence[Program], inputs: Mapping[str, Tensor], unit: str) -> dict[str, Tensor]:
    """Run packages one after the other on a compute unit; later ones read what earlier ones made.

    Args:
        programs: Read from the packages, in call order.
        inputs: Tensor by input name.
        unit: One of ``UNITS``.

    Returns:
        Tensor by output name of the last package, float32.

    Raises:
        UnavailableError: This is no Mac, or coremltools is missing.
        VerificationError: Core ML refuses a package, or gives other outputs than it states.
    """
    reason = missing_runtime()
    if reason:
        raise UnavailableError(reason, hint="run the same command on a Mac")
    coremltools = load_coremltools()
    known = {name: _array(tensor) for name, tensor in inputs.items()}
    outputs: tuple[str, ...] = ()
    for program in programs:
        function = program.function()
        outputs = function.outputs
        try:
            units = coremltools.ComputeUnit[UNITS[unit]]
            model = coremltools.models.MLModel(str(program.path), compute_units=units)
            found = model.predict({port.name: known[port.name] for port in function.inputs})
        except Exception as error:  # coremltools raises bare ones when Core ML refuses a model
            raise VerificationError(f"{program.path}: Core ML on {unit} failed: {error}") from error
        missing = [name for name in outputs if name not in found]
        if missing:
            raise VerificationError(f"{program.path}: Core ML on {unit} gave no output {', '.join(missing)}")
        known |= {name: np.asarray(found[name]) for name in outputs}
    return {name: torch.from_numpy(known[name].astype(np.float32)) for name in outputs}


def core_ml_checks(
    programs: Sequence[Program],
    inputs: Mapping[str, Tensor],
    *,
    torch_outputs: Mapping[str, Tensor],
    executor_outputs: Mapping[str, Tensor],
) -> tuple[StructureCheck, ...]:
    """Run packages on every compute unit and compare with torch and with this toolkit's executor.

    Torch decides: finite values and a cosine of at least ``MIN_COSINE``. The distance from the executor in float16 is
    shown beside it: large there and small from torch means a fault of the executor.

    Raises:
        NasError: See ``predict``.
    """
    checks = []
    for unit in UNITS:
        found = predict(programs, inputs, unit)
        pairs = zip(compare_outputs(torch_outputs, found), compare_outputs(executor_outputs, found), strict=True)
        for from_torch, from_executor in pairs:
            checks.append(
                StructureCheck(
                    name=f"{from_torch.name} by Core ML on {unit} against torch, weights as trained",
                    expected=f"finite, cosine at least {MIN_COSINE:g}",
                    found=f"{_words(from_torch)}; from the executor in float16: {_words(from_executor)}",
                    passed=from_torch.finite and from_torch.cosine >= MIN_COSINE,
                )
            )
    return tuple(checks)


def _words(error: OutputError) -> str:
    return (
        f"cosine {error.cosine:.5f}, PSNR {error.psnr_db:.1f} dB, largest difference {error.max_absolute:.2g} "
        f"({error.max_relative:.1e} of the largest value)"
    )


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    array: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = tensor.numpy()
    return array.astype(np.float16 if tensor.is_floating_point() else np.int32)
