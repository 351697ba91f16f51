"""Does a saved package compute what its network computes: both on this machine, on the same inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.func import functional_call

from nas.core.artefacts import ParityReport, ParityRow, StructureCheck
from nas.export.mil.compare import compare_tensors
from nas.export.mil.executor import Precision, execute
from nas.export.mil.memory import activation_peak, weight_bytes
from nas.export.mil.program import read_program
from nas.export.mil.twin import side_by_side
from nas.export.trace import OUTPUT_NAME, evaluating, input_shapes, trace

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from nas.core.scenario import Scenario
    from nas.export.mil.program import Program
    from nas.models.unet import VideoUNet

# Largest relative differences allowed, by precision, and least PSNR of float32 against the untouched network: the
# requirements on this executor. Seen on the toy networks of the tests: 1e-5, 2.2e-3 and 72 dB.
MAX_RELATIVE: dict[str, float] = {"float32": 1e-3, "float16": 1e-2}
MIN_PSNR_DB = 60.0
AS_STORED, UNTOUCHED = "torch, weights rounded as stored", "torch, weights as trained"
# Noise; the largest times leave float16 the fewest digits behind the point.
SEED, TIME = 0, 999.0


def parity_inputs(denoiser: VideoUNet, scenario: Scenario) -> dict[str, Tensor]:
    """Return standard normal latents and text and a time near the noisy end, all exact in float16."""
    generator = torch.Generator().manual_seed(SEED)
    shapes = input_shapes(denoiser, scenario)
    inputs = {name: torch.randn(shape, generator=generator).half().float() for name, shape in shapes.items()}
    return inputs | {"timestep": torch.full(shapes["timestep"], TIME)}


def compute_parity(path: Path, denoiser: VideoUNet, scenario: Scenario) -> ParityReport:
    """Compute a package in float32 and float16 and its network with trained and with rounded weights, and compare.

    When package and network with the same rounded weights part in float32, both are computed once more, layer by layer,
    to name the operation where that begins.

    Args:
        path: A saved package.
        denoiser: Its source in float32 on the CPU; not changed.
        scenario: Frames and size of the package.

    Raises:
        InputError: The package is damaged, or takes other inputs.
        UnavailableError: It has operations that cannot be computed here.
        VerificationError: An operation of it fails.
    """
    program = read_program(path)
    inputs = parity_inputs(denoiser, scenario)
    with evaluating(denoiser):
        untouched = denoiser(*inputs.values())
        rounded = {name: item.detach().half().float() for name, item in denoiser.named_parameters()}
        as_stored = functional_call(denoiser, rounded, tuple(inputs.values()))
        del rounded
    single = execute(program, inputs)[OUTPUT_NAME]
    half = execute(program, inputs, precision="float16")[OUTPUT_NAME]
    rows = (
        _row("float32", AS_STORED, as_stored, single),
        _row("float32", UNTOUCHED, untouched, single),
        _row("float16", UNTOUCHED, untouched, half),
    )
    weights = weight_bytes(program)
    return ParityReport(
        inputs=f"standard normal latents and text (seed {SEED}), time {TIME:g}",
        rows=rows,
        first_apart=None if _agrees(rows[0]) else _first_apart(program, denoiser, scenario, inputs),
        activation_peak_bytes=activation_peak(program).num_bytes,
        weight_bytes=weights.stored,
        decompressed_bytes=weights.decompressed,
    )


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


def _row(precision: Precision, reference: str, expected: Tensor, found: Tensor) -> ParityRow:
    error = compare_tensors(OUTPUT_NAME, expected, found)
    return ParityRow(
        output=OUTPUT_NAME,
        precision=precision,
        reference=reference,
        max_absolute=error.max_absolute,
        max_relative=error.max_relative,
        psnr_db=None if error.psnr_db == math.inf else error.psnr_db,
        cosine=error.cosine,
    )


def _agrees(row: ParityRow) -> bool:
    return row.max_relative <= MAX_RELATIVE[row.precision]


def _first_apart(program: Program, denoiser: VideoUNet, scenario: Scenario, inputs: dict[str, Tensor]) -> str:
    compared = side_by_side(program, trace(denoiser, scenario), inputs)
    apart = compared.first_apart(MAX_RELATIVE["float32"])
    if apart is None:
        return f"no matched layer but behind the last of {len(compared.layers)}"
    return f"{apart.location} of layer {apart.layer} (relative difference {apart.error.max_relative:.1e})"
