"""Does a saved package compute what its network computes: both on this machine, on the same inputs.

Four passes, each once: the network as trained, the network with its weights rounded as stored, the package in float32
and in float16. ``quick`` leaves the second and the last out, which halves the time and leaves the PSNR to decide.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.func import functional_call

from nas.core.artefacts import ParityReport, ParityRow, StructureCheck
from nas.core.files import sha256_path
from nas.core.protocols import SilentProgress
from nas.export.component import example_inputs, example_words
from nas.export.mil.chain import execute_chain
from nas.export.mil.compare import compare_outputs
from nas.export.mil.memory import activation_peak, weight_bytes
from nas.export.mil.program import read_program
from nas.export.mil.twin import side_by_side
from nas.export.trace import as_tuple, evaluating, trace
from nas.export.verification import MIN_PSNR_DB, Reference, write_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nas.core.protocols import Progress
    from nas.export.component import Component
    from nas.export.mil.executor import Precision
    from nas.export.mil.program import Program

# Largest relative differences allowed, by precision: the requirements on this executor. Seen on the toy networks of the
# tests: 1e-5 and 2.2e-3 (and 72 dB).
MAX_RELATIVE: dict[str, float] = {"float32": 1e-3, "float16": 1e-2}
AS_STORED, UNTOUCHED = "torch, weights rounded as stored", "torch, weights as trained"


class Passes:
    """Says which pass is under way, of how many, and about how long the rest takes."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress or SilentProgress()
        self._total, self._done, self._begun = total, 0, time.monotonic()

    def begin(self, name: str) -> None:
        """Say that the next pass begins."""
        left = ""
        if self._done:
            seconds = (time.monotonic() - self._begun) / self._done * (self._total - self._done)
            left = f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"
        text = f"{name} (pass {self._done + 1} of {self._total}{left})"
        self._progress.update(self._done, self._total, text)
        self._done += 1


def compute_parity(
    packages: Path | Sequence[Path],
    component: Component,
    *,
    quick: bool = False,
    progress: Progress | None = None,
    record: Path | None = None,
) -> ParityReport:
    """Compute packages and their network and compare; see ``compute_reference`` and ``compare_with_reference``.

    When package and network with the same rounded weights part in float32, both are computed once more, layer by layer,
    to name the operation where that begins.

    Args:
        packages: The saved package, or several in call order.
        component: What they were made from; not changed.
        quick: Two passes instead of four.
        progress: Where to say which pass is under way.
        record: Where to write inputs and torch's outputs, for ``nas verify`` without the network.

    Raises:
        InputError: A package is damaged, or takes other inputs.
        UnavailableError: It has operations that cannot be computed here, or the disk is full.
        VerificationError: An operation of it fails.
    """
    paths = [packages] if isinstance(packages, Path) else list(packages)
    programs = [read_program(path) for path in paths]
    passes = Passes(progress, 2 if quick else 4)
    reference = compute_reference(paths, component, quick=quick, passes=passes)
    if record is not None:
        write_reference(record, reference)
    return compare_with_reference(programs, reference, component=component, quick=quick, passes=passes)


def compute_reference(
    packages: Sequence[Path], component: Component, *, quick: bool = False, passes: Passes | None = None
) -> Reference:
    """Compute a network in torch on the inputs it is tried on: what its packages must give.

    Args:
        packages: Saved packages, whose digests the reference is bound to.
        component: Network; weights as trained are those of its ``reference`` where it has one.
        quick: Leave out the pass with weights rounded as stored.
        passes: Where to say what is under way.
    """
    passes = passes or Passes(None, 2)
    inputs = example_inputs(component)
    passes.begin("torch, weights as trained")
    trained = torch_outputs(component, inputs)
    stored: dict[str, Tensor] = {}
    if not quick:
        passes.begin("torch, weights as stored")
        with evaluating(component.module):
            rounded = {name: item.detach().half().float() for name, item in component.module.named_parameters()}
            stored = _named(component, functional_call(component.module, rounded, tuple(inputs.values())))
    return Reference(
        packages=tuple(sha256_path(path) for path in packages),
        inputs=inputs,
        trained=trained,
        stored=stored,
        inputs_text=example_words(component),
    )


def compare_with_reference(
    programs: Sequence[Program],
    reference: Reference,
    *,
    component: Component | None = None,
    quick: bool = False,
    passes: Passes | None = None,
) -> ParityReport:
    """Compute packages on the inputs of a reference and compare every output.

    Args:
        programs: Read from the packages, in call order.
        reference: Inputs and torch's outputs.
        component: The network, to name the first layer that parts when float32 does not agree.
        quick: Leave out the pass in float16.
        passes: Where to say what is under way.

    Raises:
        InputError: The packages take other inputs.
        UnavailableError: They have operations that cannot be computed here.
        VerificationError: An operation fails, or outputs have other names or shapes.
    """
    passes = passes or Passes(None, 1 if quick else 2)
    passes.begin("package in float32")
    single = execute_chain(programs, reference.inputs)
    rows = [*_rows("float32", AS_STORED, reference.stored, single)] if reference.stored else []
    rows += _rows("float32", UNTOUCHED, reference.trained, single)
    del single
    if not quick:
        passes.begin("package in float16")
        half = execute_chain(programs, reference.inputs, precision="float16")
        rows += _rows("float16", UNTOUCHED, reference.trained, half)
    agrees = all(_passes(row, reference.min_psnr_db) for row in rows)
    weights = [weight_bytes(program) for program in programs]
    return ParityReport(
        inputs=reference.inputs_text,
        rows=tuple(rows),
        first_apart=None if agrees or component is None else first_apart(programs, component, reference.inputs),
        activation_peak_bytes=max(activation_peak(program).num_bytes for program in programs),
        weight_bytes=sum(item.stored for item in weights),
        decompressed_bytes=sum(item.decompressed for item in weights),
    )


def torch_outputs(component: Component, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the network computes in float32 with its weights as trained, by output name."""
    with evaluating(component.module):
        call = component.reference or component.module
        return _named(component, call(*inputs.values()))


def parity_checks(report: ParityReport, *, min_psnr_db: float | None = MIN_PSNR_DB) -> tuple[StructureCheck, ...]:
    """Return the comparisons as checks: relative differences by precision, and the PSNR of float32.

    Without ``min_psnr_db`` (lossy weights) the differences from weights as trained are shown and decide nothing but
    that values are finite.
    """
    checks = []
    for row in report.rows:
        if (row.precision, row.reference) == ("float32", UNTOUCHED):
            expected = "finite" if min_psnr_db is None else f"PSNR at least {min_psnr_db:g} dB"
        elif row.reference == UNTOUCHED and not _as_exact(min_psnr_db):
            expected = "finite"
        else:
            expected = f"largest relative difference at most {MAX_RELATIVE[row.precision]:g}"
        found = row_words(row)
        passed = _passes(row, min_psnr_db)
        if not passed and report.first_apart:
            found += f"; they part at {report.first_apart}"
        name = f"{row.output} computed in {row.precision} against {row.reference}"
        checks.append(StructureCheck(name=name, expected=expected, found=found, passed=passed))
    return tuple(checks)


def row_words(row: ParityRow) -> str:
    """Say the four figures of a comparison."""
    psnr = "no difference" if row.psnr_db is None else f"PSNR {row.psnr_db:.1f} dB"
    return (
        f"largest difference {row.max_absolute:.2g}, {row.max_relative:.1e} of the largest value, {psnr}, "
        f"cosine {row.cosine:.7f}"
    )


def first_apart(programs: Sequence[Program], component: Component, inputs: Mapping[str, Tensor]) -> str:
    """Name the first operation where packages and network part, with its layer in torch.

    Each layer is given torch's results of those before it, so that a small fault in one stands out.
    """
    compared = side_by_side(programs, trace(component), inputs)
    apart = compared.apart(MAX_RELATIVE["float32"])
    if not apart:
        return f"no matched layer: none of {len(compared.layers)} differs by more than the others"
    first = apart[0]
    others = f"; {len(apart) - 1} later ones too" if len(apart) > 1 else ""
    return (
        f"{first.location} of layer {first.layer} (relative difference {first.error.max_relative:.1e}, "
        f"the middle one of {len(compared.layers)} layers {compared.usual():.0e}{others})"
    )


def _passes(row: ParityRow, min_psnr_db: float | None) -> bool:
    if row.reference == AS_STORED:
        return row.max_relative <= MAX_RELATIVE[row.precision]
    if not math.isfinite(row.max_relative):
        return False
    if row.precision == "float32":
        return min_psnr_db is None or row.psnr_db is None or row.psnr_db >= min_psnr_db
    return not _as_exact(min_psnr_db) or row.max_relative <= MAX_RELATIVE[row.precision]


def _as_exact(min_psnr_db: float | None) -> bool:
    """Whether packages are held to what float16 weights reach; compressed ones are not."""
    return min_psnr_db is not None and min_psnr_db >= MIN_PSNR_DB


def _rows(
    precision: Precision, reference: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> list[ParityRow]:
    return [
        ParityRow(
            output=error.name,
            precision=precision,
            reference=reference,
            max_absolute=error.max_absolute,
            max_relative=error.max_relative,
            psnr_db=None if error.psnr_db == math.inf else error.psnr_db,
            cosine=error.cosine,
        )
        for error in compare_outputs(expected, found)
    ]


def _named(component: Component, outputs: Any) -> dict[str, Tensor]:
    return {port.name: item for port, item in zip(component.outputs, as_tuple(outputs), strict=True)}
