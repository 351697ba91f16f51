"""A float16 package in fewer bits: fitted, planned, written, computed beside the original, all of it or nothing."""

from __future__ import annotations

import gc
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.errors import BudgetError, ConfigError, Problem, VerificationError
from nas.core.files import sha256_path
from nas.core.protocols import Progress, SilentProgress
from nas.export.compression.cache import Cache
from nas.export.compression.forms import LINEAR_BITS, PALETTE_BITS, PLAIN, Form
from nas.export.compression.gains import gain, measure_gains
from nas.export.compression.inputs import Recorded, noise_inputs
from nas.export.compression.layers import measure_layers, noise_ratio
from nas.export.compression.plans import Option, choose, smallest_bytes
from nas.export.compression.record import CompressedLayer, CompressionError, CompressionRecord, CompressionSettings
from nas.export.compression.store import store_compressed
from nas.export.compression.weights import Weight, compressible
from nas.export.mil.compare import compare_tensors
from nas.export.mil.executor import Precision, execute, require_known
from nas.export.mil.program import read_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from nas.export.compression.cache import Errors
    from nas.export.mil.program import Program

IOS18_SPECIFICATION = 9
AS_STORED, UNTOUCHED = "float16 package", "source network"
# Forms that a mixed plan may choose from.
MIXED_FORMS = (
    PLAIN,
    Form(kind="linear", bits=8),
    *(Form(kind="palettize", bits=bits) for bits in sorted(PALETTE_BITS, reverse=True)),
)
# CPU seconds that ``sensitivity: auto`` spends on gains.
SENSITIVITY_SECONDS = 900.0
# How often a mixed plan is made smaller when the saved package is above its size after all.
_ATTEMPTS = 3


def compress_package(
    source: Path,
    target: Path,
    settings: CompressionSettings,
    *,
    recorded: Recorded | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> CompressionRecord:
    """Write a compressed copy of a float16 package and return what it is and how far it is from the original.

    Args:
        source: A saved ML Program, not compressed, with one function.
        target: Where to; must not exist.
        settings: What is asked for.
        recorded: Inputs to compute the packages on; noise when None.
        cache: Folder for look-up tables and errors, from which a repeated or killed run goes on.
        progress: Told of every layer and step.

    Raises:
        BudgetError: No plan fits ``package_mb``; the smallest package is named.
        ConfigError: The settings do not fit the package, or ``target`` exists.
        InputError: The package is missing, damaged, compressed already or of several functions.
        UnavailableError: coremltools is missing, an operation cannot be computed here, or the disk is full.
        VerificationError: The compressed package is not what was planned, or less exact than ``min_psnr_db``.
    """
    started = time.process_time()
    report = progress or SilentProgress()
    require_new(target)
    program = read_program(source)
    weights = compressible(program, weight_threshold=settings.weight_threshold)
    forms = _forms(settings, program, weights)
    require_known(program)
    recorded = recorded or noise_inputs(program)
    source_bytes, source_sha256 = package_bytes(source), sha256_path(source)
    fixed = source_bytes - sum(stored_bytes(weight, PLAIN) for weight in weights)
    _require_reachable(settings, weights, forms, fixed)
    kept = Cache(cache)
    errors = kept.errors(source_sha256, recorded.digest)
    outputs = measure_layers(program, recorded.inputs, forms, weights, cache=kept, errors=errors, progress=report)
    gains = _gains(program, recorded, outputs, weights, settings, cache=kept, errors=errors, progress=report)
    references = {AS_STORED: outputs} | ({UNTOUCHED: recorded.outputs} if recorded.outputs else {})
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        package = work / target.name
        plan, least = _store(
            source, package, settings, weights, forms, fixed=fixed, gains=gains, errors=errors, cache=kept
        )
        gc.collect()
        rows = tuple(_rows(package, recorded.inputs, references))
        layers = tuple(_layer(weight, plan[weight.name], errors, gains.get(weight.name)) for weight in weights)
        noise = [layer.noise * (layer.gain or 1.0) for layer in layers if layer.noise is not None]
        record = CompressionRecord(
            settings=settings,
            source_sha256=source_sha256,
            sha256=sha256_path(package),
            source_bytes=source_bytes,
            package_bytes=package_bytes(package),
            inputs=recorded.text,
            layers=layers,
            predicted_noise=sum(noise) if len(noise) == len(layers) else None,
            least_noise=least,
            errors=rows,
            tables_fitted=kept.fitted,
            cpu_seconds=time.process_time() - started,
        )
        _require_exact(record, target)
        package.chmod(0o755)
        package.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return record


def require_new(target: Path) -> None:
    """Let a path pass that a package can be written to.

    Raises:
        ConfigError: It exists, or is not named like a package.
    """
    if target.suffix != ".mlpackage":
        raise ConfigError(f"{target}: a package is named *.mlpackage")
    if target.exists():
        raise ConfigError(f"{target}: exists already and is not overwritten", hint="give another name, or move it away")


def check_settings(settings: CompressionSettings) -> None:
    """Let settings pass that Core ML has a form for.

    Raises:
        ConfigError: All faults.
    """
    faults = list(_faults(settings))
    if faults:
        raise ConfigError("; ".join(faults), problems=tuple(Problem(message=fault) for fault in faults))


def _faults(settings: CompressionSettings) -> Iterable[str]:
    for name in ("package_mb", "min_psnr_db"):
        value = getattr(settings, name)
        if value is not None and not math.isfinite(value):
            yield f"{name}: must be a finite number, got {value}"
    if settings.package_mb is not None and settings.package_mb <= 0:
        yield f"package_mb: must be above 0, got {settings.package_mb}"
    allowed = {"palettize": PALETTE_BITS, "linear": LINEAR_BITS, "sparse": tuple(range(1, 16))}.get(settings.type)
    words = ", ".join(map(str, allowed or ()))
    if allowed and settings.bits is None:
        yield f"bits: {settings.type!r} needs one of {words}"
    if allowed and settings.bits is not None and settings.bits not in allowed:
        yield f"bits: {settings.type!r} takes {words}, got {settings.bits}"
    if settings.type == "mixed" and settings.bits is not None:
        yield f"bits: 'mixed' chooses them layer by layer, got {settings.bits}"
    if settings.type == "mixed" and settings.package_mb is None:
        yield "package_mb: 'mixed' needs the size of the package that it has to fit"
    if settings.type != "mixed" and settings.package_mb is not None:
        yield f"package_mb: is for 'mixed'; the size of {settings.type!r} follows from its bits"
    if settings.group_size is not None and settings.type not in {"palettize", "mixed"}:
        yield f"group_size: is for look-up tables, not for {settings.type!r}"
    if settings.block_size is not None and settings.type != "linear":
        yield f"block_size: is for 'linear', not for {settings.type!r}"


def package_bytes(path: Path) -> int:
    """Return the size of a package on disk."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def stored_bytes(weight: Weight, form: Form) -> int:
    """Return the bytes that a weight adds to a package in one form."""
    return form.stored_bytes(weight.shape, output_axis=weight.output_axis, input_axis=weight.input_axis)


def _forms(settings: CompressionSettings, program: Program, weights: Sequence[Weight]) -> dict[str, tuple[Form, ...]]:
    """Return the forms to choose from, by weight; groups and blocks that do not divide a weight's axes are left out."""
    check_settings(settings)
    if settings.type == "mixed":
        wanted = MIXED_FORMS
        if settings.group_size:
            wanted += tuple(
                Form(kind="palettize", bits=bits, group_size=settings.group_size) for bits in reversed(PALETTE_BITS)
            )
    else:
        wanted = (
            Form(
                kind=settings.type,
                bits=settings.bits or 16,
                group_size=settings.group_size,
                block_size=settings.block_size,
            ),
        )
    if program.specification < IOS18_SPECIFICATION:
        late = [form for form in wanted if form.needs_ios18]
        if late and settings.type != "mixed":
            raise ConfigError(
                f"{program.path}: is of specification {program.specification}; {late[0].text} needs iOS 18, "
                f"specification {IOS18_SPECIFICATION}",
                hint="export for iOS 18, or leave out groups and blocks",
            )
        wanted = tuple(form for form in wanted if form not in late)
    return {weight.name: _fitting(weight, wanted) for weight in weights}


def _fitting(weight: Weight, wanted: Sequence[Form]) -> tuple[Form, ...]:
    fitting = [
        form
        if form.fits(weight.shape, output_axis=weight.output_axis, input_axis=weight.input_axis)
        else form.ungrouped()
        for form in wanted
    ]
    return tuple(dict.fromkeys(fitting))


def _require_reachable(
    settings: CompressionSettings, weights: Sequence[Weight], forms: Mapping[str, Sequence[Form]], fixed: int
) -> None:
    if settings.package_mb is None:
        return
    smallest = fixed + sum(min(stored_bytes(weight, form) for form in forms[weight.name]) for weight in weights)
    if smallest > settings.package_mb * 1e6:
        raise BudgetError(
            f"no plan fits {settings.package_mb:g} MB: the smallest package of these forms takes "
            f"{smallest / 1e6:.3f} MB",
            hint="give a larger size, or lower the weight threshold",
        )


def _store(
    source: Path,
    package: Path,
    settings: CompressionSettings,
    weights: Sequence[Weight],
    forms: Mapping[str, Sequence[Form]],
    *,
    fixed: int,
    gains: Mapping[str, float],
    errors: Errors,
    cache: Cache,
) -> tuple[dict[str, Form], float | None]:
    if settings.package_mb is None:
        plan = {weight.name: forms[weight.name][0] for weight in weights}
        store_compressed(source, package, weights, plan, cache=cache)
        return plan, None
    options = [
        [
            Option(
                num_bytes=stored_bytes(weight, form),
                noise=(errors.known(weight.name, form) or 0.0) * gains.get(weight.name, 1.0),
            )
            for form in forms[weight.name]
        ]
        for weight in weights
    ]
    budget = int(settings.package_mb * 1e6)
    excess = 0
    for _ in range(_ATTEMPTS):
        allowed = budget - fixed - excess
        if smallest_bytes(options) > allowed:
            break
        choice = choose(options, allowed)
        plan = {weight.name: forms[weight.name][at] for weight, at in zip(weights, choice.options, strict=True)}
        shutil.rmtree(package, ignore_errors=True)
        store_compressed(source, package, weights, plan, cache=cache)
        over = package_bytes(package) - budget
        if over <= 0:
            return plan, choice.least_noise
        excess += over
    raise BudgetError(
        f"no plan fits {settings.package_mb:g} MB: the last one that was written takes {(budget + over) / 1e6:.3f} MB",
        hint="give a larger size",
    )


def _rows(
    package: Path, inputs: Mapping[str, Tensor], references: Mapping[str, Mapping[str, Tensor]]
) -> Iterable[CompressionError]:
    program = read_program(package)
    precisions: tuple[Precision, ...] = ("float32", "float16")
    for precision in precisions:
        found = execute(program, inputs, precision=precision)
        for reference, outputs in references.items():
            for name, expected in outputs.items():
                error = compare_tensors(name, expected, found[name])
                if not error.finite or error.psnr_db == -math.inf:
                    raise VerificationError(f"{package.name}: output {name!r} computed in {precision} is not finite")
                yield CompressionError(
                    output=name,
                    precision=precision,
                    reference=reference,
                    max_absolute=error.max_absolute,
                    max_relative=error.max_relative,
                    relative_rms=math.sqrt(noise_ratio(expected, found[name])),
                    psnr_db=None if error.psnr_db == math.inf else error.psnr_db,
                    cosine=error.cosine,
                )


def _gains(
    program: Program,
    recorded: Recorded,
    outputs: Mapping[str, Tensor],
    weights: Sequence[Weight],
    settings: CompressionSettings,
    *,
    cache: Cache,
    errors: Errors,
    progress: Progress,
) -> dict[str, float]:
    """Return the gain of every weight; nothing where all layers count as equal."""
    if settings.type != "mixed" or settings.sensitivity == "layer":
        return {}
    limit = SENSITIVITY_SECONDS if settings.sensitivity == "auto" else math.inf
    known = measure_gains(
        program, recorded.inputs, outputs, weights, cache=cache, errors=errors, limit_s=limit, progress=progress
    )
    return {weight.name: gain(weight, errors) for weight in weights} if known else {}


def _layer(weight: Weight, form: Form, errors: Errors, gain: float | None) -> CompressedLayer:
    return CompressedLayer(
        name=weight.name,
        shape=weight.shape,
        form=form.text,
        num_bytes=stored_bytes(weight, form),
        noise=errors.known(weight.name, form),
        gain=gain,
    )


def _require_exact(record: CompressionRecord, target: Path) -> None:
    least, worst = record.settings.min_psnr_db, record.worst_psnr_db
    if least is not None and worst is not None and worst < least:
        raise VerificationError(
            f"{target}: PSNR {worst:.1f} dB, asked for at least {least:g} dB; the package takes "
            f"{record.package_bytes / 1e6:.2f} MB",
            hint="give more bits, smaller groups or a larger size, or lower min_psnr_db; the package was not kept",
        )
