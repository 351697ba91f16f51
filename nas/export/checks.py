"""A reloaded package held against the network it was made from, fact by fact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.artefacts import StructureCheck
from nas.core.errors import Problem, VerificationError
from nas.export.coreml import MINIMUM_OS
from nas.export.package import Package, TensorPort, digest_tensor
from nas.export.trace import inspect_call

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from nas.export.component import Component

# coremltools.specification versions by target; iOS 18 from coremltools 9.0's _SPECIFICATION_VERSION_IOS_18.
SPECIFICATIONS = {"iOS18": 9}
# Core ML's own limit on the axes of a tensor.
MAX_RANK = 5
# Constants that are not parameters: shapes, frame positions, scales of fused norms.
WEIGHT_TOLERANCE_RATIO = 0.01
WEIGHT_TOLERANCE_BYTES = 100_000
# Only tensors of fewer elements are kept from vanishing (``as_stored``).
UNDERFLOW_ELEMENTS = 400


def check_package(package: Package, component: Component) -> tuple[StructureCheck, ...]:
    """Compare a package with the component it was made from.

    Inputs and outputs must be equal by name, shape and type. Convolutions, linear layers, attentions and layer norms
    must be as many as one call of the network makes (counted on the meta device). Every parameter tensor, rounded to
    float16, must be stored bit for bit; those whose values are all equal (fresh norms, biases at zero) are left out,
    because a conversion may fold them into their neighbours. The weight file must be two bytes per stored parameter,
    within 1 % or 100 kB.
    """
    call = inspect_call(component)
    inputs = tuple(TensorPort(name=port.name, shape=port.shape, dtype=port.dtype) for port in component.inputs)
    outputs = tuple(
        TensorPort(name=port.name, shape=shape, dtype="float16")
        for port, shape in zip(component.outputs, call.output_shapes, strict=True)
    )
    return (
        _equal("inputs", "; ".join(map(str, inputs)), "; ".join(map(str, package.inputs))),
        _equal("outputs", "; ".join(map(str, outputs)), "; ".join(map(str, package.outputs))),
        _equal(f"specification of {MINIMUM_OS}", SPECIFICATIONS[MINIMUM_OS], package.specification),
        *(
            _equal(f"{name} operations", number, package.operations.get(name, 0))
            for name, number in call.operations.items()
        ),
        StructureCheck(
            name="axes of the largest tensor",
            expected=f"at most {MAX_RANK}",
            found=package.largest_rank,
            passed=package.largest_rank <= MAX_RANK,
        ),
        *_weight_checks(package, dict(component.module.named_parameters())),
    )


def require_passed(checks: tuple[StructureCheck, ...], path: Path) -> None:
    """Let a package pass only when every check did.

    Raises:
        VerificationError: At least one check failed; all that did are named.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        faults = [f"{check.name}: expected {check.expected}, found {check.found}" for check in failed]
        raise VerificationError(
            f"{path}: {len(failed)} of {len(checks)} checks failed: {'; '.join(faults)}",
            hint="the package was not kept; this is a fault of the export, please report it",
            problems=tuple(Problem(message=fault, file=str(path)) for fault in faults),
        )


def as_stored(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Round weights to float16 as coremltools does: numbers of short tensors do not vanish.

    Source:
        coremltools 9.0, ``FP16ComputePrecision._check_underflow_to_zero``: below 400 elements, what would be zero or
        the smallest float16 becomes the smallest with its sign, unless it was zero.
    """
    rounded = values.astype(np.float16)
    if values.size >= UNDERFLOW_ELEMENTS:
        return rounded
    smallest = np.nextafter(np.float16(0), np.float16(1))
    vanishing = (values != 0) & (np.abs(rounded) <= smallest)
    return np.where(vanishing, np.copysign(smallest, values).astype(np.float16), rounded)


def _weight_checks(package: Package, parameters: dict[str, Tensor]) -> tuple[StructureCheck, StructureCheck]:
    varied: dict[str, int] = {}
    names: dict[str, str] = {}
    for name, parameter in parameters.items():
        values = as_stored(parameter.detach().numpy())
        if values.min() != values.max():
            digest = digest_tensor(values)
            varied[digest] = values.nbytes
            names[digest] = name
    missing = sorted(names[digest] for digest in varied if digest not in package.constants)
    found = f"{len(varied) - len(missing)} of {len(varied)}"
    expected_bytes = sum(varied.values())
    slack = max(WEIGHT_TOLERANCE_RATIO * expected_bytes, WEIGHT_TOLERANCE_BYTES)
    return (
        StructureCheck(
            name="parameter tensors stored bit for bit in float16",
            expected=f"{len(varied)} of {len(varied)}",
            found=f"{found}, missing {', '.join(missing[:3])}" if missing else found,
            passed=not missing,
        ),
        StructureCheck(
            name="weight bytes, within 1 % or 100 kB",
            expected=expected_bytes,
            found=package.weight_bytes,
            passed=abs(package.weight_bytes - expected_bytes) <= slack,
        ),
    )


def _equal(name: str, expected: Any, found: Any) -> StructureCheck:
    return StructureCheck(name=name, expected=expected, found=found, passed=expected == found)
