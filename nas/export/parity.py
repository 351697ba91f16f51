"""Does a saved package compute what its network computes: both on this machine, on the same inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch.func import functional_call

from nas.core.artefacts import ParityReport, ParityRow, StructureCheck
from nas.export.component import example_inputs, example_words
from nas.export.mil.compare import compare_tensors
from nas.export.mil.executor import Precision, execute
from nas.export.mil.memory import activation_peak, weight_bytes
from nas.export.mil.program import read_program
from nas.export.mil.twin import side_by_side
from nas.export.trace import as_tuple, evaluating, trace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from nas.export.component import Component
    from nas.export.mil.program import Program

# Largest relative differences allowed, by precision, and least PSNR of float32 against the untouched network: the
# requirements on this executor. Seen on the toy networks of the tests: 1e-5, 2.2e-3 and 72 dB.
MAX_RELATIVE: dict[str, float] = {"float32": 1e-3, "float16": 1e-2}
MIN_PSNR_DB = 60.0
AS_STORED, UNTOUCHED = "torch, weights rounded as stored", "torch, weights as trained"


def compute_parity(path: Path, component: Component) -> ParityReport:
    """Compute a package in float32 and float16 and its network with trained and with rounded weights, and compare.

    When package and network with the same rounded weights part in float32, both are computed once more, layer by layer,
    to name the operation where that begins.

    Args:
        path: A saved package.
        component: What it was made from; not changed. Weights as trained are those of its ``reference`` where it has
            one.

    Raises:
        InputError: The package is damaged, or takes other inputs.
        UnavailableError: It has operations that cannot be computed here.
        VerificationError: An operation of it fails.
    """
    program = read_program(path)
    inputs = example_inputs(component)
    untouched = torch_outputs(component, inputs)
    with evaluating(component.module):
        rounded = {name: item.detach().half().float() for name, item in component.module.named_parameters()}
        as_stored = _named(component, functional_call(component.module, rounded, tuple(inputs.values())))
        del rounded
    single = execute(program, inputs)
    half = execute(program, inputs, precision="float16")
    rows = tuple(
        row
        for name in single
        for row in (
            _row(name, "float32", AS_STORED, as_stored[name], single[name]),
            _row(name, "float32", UNTOUCHED, untouched[name], single[name]),
            _row(name, "float16", UNTOUCHED, untouched[name], half[name]),
        )
    )
    weights = weight_bytes(program)
    agrees = all(_agrees(row) for row in rows if row.reference == AS_STORED)
    return ParityReport(
        inputs=example_words(component),
        rows=rows,
        first_apart=None if agrees else _first_apart(program, component, inputs),
        activation_peak_bytes=activation_peak(program).num_bytes,
        weight_bytes=weights.stored,
        decompressed_bytes=weights.decompressed,
    )


def torch_outputs(component: Component, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the network computes in float32 with its weights as trained, by output name."""
    with evaluating(component.module):
        call = component.reference or component.module
        return _named(component, call(*inputs.values()))


def parity_checks(report: ParityReport) -> tuple[StructureCheck, ...]:
    """Return the comparisons as checks: relative differences by precision, and the PSNR of float32."""
    checks = []
    for row in report.rows:
        name = f"{row.output} computed in {row.precision} against {row.reference}"
        if (row.precision, row.reference) == ("float32", UNTOUCHED):
            expected = f"PSNR at least {MIN_PSNR_DB:g} dB"
            found = "no difference" if row.psnr_db is None else f"{row.psnr_db:.1f} dB"
            passed = row.psnr_db is None or row.psnr_db >= MIN_PSNR_DB
        else:
            expected = f"largest relative difference at most {MAX_RELATIVE[row.precision]:g}"
            found = f"{row.max_relative:.1e}"
            passed = _agrees(row)
        if row.reference == AS_STORED and report.first_apart:
            found += f"; they part at {report.first_apart}"
        checks.append(StructureCheck(name=name, expected=expected, found=found, passed=passed))
    return tuple(checks)


def _named(component: Component, outputs: Any) -> dict[str, Tensor]:
    return {port.name: item for port, item in zip(component.outputs, as_tuple(outputs), strict=True)}


def _row(output: str, precision: Precision, reference: str, expected: Tensor, found: Tensor) -> ParityRow:
    error = compare_tensors(output, expected, found)
    return ParityRow(
        output=output,
        precision=precision,
        reference=reference,
        max_absolute=error.max_absolute,
        max_relative=error.max_relative,
        psnr_db=None if error.psnr_db == math.inf else error.psnr_db,
        cosine=error.cosine,
    )


def _agrees(row: ParityRow) -> bool:
    return row.max_relative <= MAX_RELATIVE[row.precision]


def _first_apart(program: Program, component: Component, inputs: dict[str, Tensor]) -> str:
    compared = side_by_side(program, trace(component), inputs)
    apart = compared.first_apart(MAX_RELATIVE["float32"])
    if apart is None:
        return f"no matched layer but behind the last of {len(compared.layers)}"
    return f"{apart.location} of layer {apart.layer} (relative difference {apart.error.max_relative:.1e})"
