"""How far two computations of one network are apart, and at which operation they part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from nas.core.errors import VerificationError
from nas.export.mil.executor import Precision, steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from nas.export.mil.program import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputError:
    """Distance of one tensor from what was expected.

    Attributes:
        name: Output or operation.
        max_absolute: Largest absolute difference.
        max_relative: The same over the largest absolute value expected (elementwise ratios mean nothing near zero).
        psnr_db: Peak signal-to-noise ratio, the peak being the largest absolute value expected; infinite when equal.
        cosine: Cosine of the angle between the two, as vectors.
        finite: Whether every found value is finite.
    """

    name: str
    max_absolute: float
    max_relative: float
    psnr_db: float
    cosine: float
    finite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first operation at which two programs part.

    Attributes:
        location: Where it is in the first program.
        reason: What differs: the kind of the operation, its shape, or its values.
        error: Distance of the values when that is the reason.
    """

    location: str
    reason: str
    error: OutputError | None = None


def compare_tensors(name: str, expected: Tensor, found: Tensor) -> OutputError:
    """Return how far ``found`` is from ``expected``, computed in float64.

    Raises:
        VerificationError: The shapes differ.
    """
    if expected.shape != found.shape:
        raise VerificationError(f"{name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    left, right = expected.detach().double().flatten(), found.detach().double().flatten()
    if not left.numel():
        return OutputError(name=name, max_absolute=0.0, max_relative=0.0, psnr_db=math.inf, cosine=1.0, finite=True)
    finite = bool(right.isfinite().all())
    difference = (left - right).abs()
    # Equal infinities (masks) are no difference; any other one is infinite.
    difference = difference.where(left != right, left.new_zeros(())).nan_to_num(nan=math.inf, posinf=math.inf)
    worst, peak = float(difference.max()), float(left.abs().max())
    noise = float(difference.square().mean().sqrt())
    lengths = float(left.norm()) * float(right.norm())
    cosine = float(left @ right) / lengths if lengths else float(worst == 0)
    return OutputError(
        name=name,
        max_absolute=worst,
        max_relative=worst / peak if peak else (0.0 if worst == 0 else math.inf),
        psnr_db=20 * math.log10(peak / noise)
        if noise and peak and math.isfinite(noise)
        else (-math.inf if worst else math.inf),
        cosine=cosine if math.isfinite(cosine) else 0.0,
        finite=finite,
    )


def compare_outputs(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[OutputError, ...]:
    """Return the distance of every output.

    Raises:
        VerificationError: The outputs have other names or shapes.
    """
    if set(expected) != set(found):
        raise VerificationError(f"outputs are {', '.join(sorted(found))}, expected {', '.join(sorted(expected))}")
    return tuple(compare_tensors(name, tensor, found[name]) for name, tensor in expected.items())


def first_difference(
    expected: Program,
    found: Program,
    inputs: Mapping[str, Tensor],
    *,
    tolerance: float = 0.0,
    precision: Precision = "float32",
) -> Difference | None:
    """Return the first operation whose result differs between two programs, None when none does.

    Both are computed side by side, one operation at a time, on the same inputs; constants are compared through what
    reads them.

    Args:
        expected: The program that counts as right.
        found: The other one.
        inputs: Tensor by input name.
        tolerance: Largest relative difference (see ``OutputError.max_relative``) that is no difference; 0 for programs
            that should be equal to the bit.
        precision: See ``execute``.

    Raises:
        NasError: Whatever ``execute`` raises.
    """
    pairs = zip_longest(steps(expected, inputs, precision=precision), steps(found, inputs, precision=precision))
    for left, right in pairs:
        if left is None or right is None:
            longer = left or right
            return Difference(location=longer.operation.location, reason="the other program ends before it")
        if left.operation.type != right.operation.type:
            return Difference(location=left.operation.location, reason=f"the other has {right.operation.location}")
        for port, one, other in zip(left.operation.outputs, left.results, right.results, strict=False):
            if one.shape != other.shape:
                return Difference(
                    location=left.operation.location, reason=f"shape {tuple(one.shape)} and {tuple(other.shape)}"
                )
            error = compare_tensors(port.name, one, other)
            if error.max_relative > tolerance:
                return Difference(location=left.operation.location, reason="values differ", error=error)
    return None
