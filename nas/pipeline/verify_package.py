"""``nas verify`` of exported packages: held against their network, or against what the export recorded beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from nas.core.artefacts import StructureCheck
from nas.core.errors import ConfigError, InputError, NasError
from nas.core.files import read_json, sha256_path
from nas.core.schema import check_schema, from_data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nas.core.protocols import Progress
    from nas.core.scenario import Scenario
    from nas.export.component import Component
    from nas.export.lowering import Lowering
    from nas.export.mil.program import Program
    from nas.export.verification import Reference
    from nas.models.unet import VideoUNet

BUNDLE_NAME = "bundle.json"
# Keys of a package's own metadata (nas.export.metadata).
METADATA_PREFIX = "mobile-video-nas."

Verdict = Literal["verified", "differs", "not verified"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What a call of ``nas verify`` on packages asks for.

    Attributes:
        network: A saved network or a run, whose weights the denoiser must compute with.
        bisect: Name the first operation where package and network part; needs ``network``.
        core_ml: Core ML itself must run; without it, it runs where it can.
        quick: Two passes of the networks instead of four.
    """

    network: str | None = None
    bisect: bool = False
    core_ml: bool = False
    quick: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageVerdict:
    """What was found about the packages of one network.

    Attributes:
        name: Component or package.
        checks: Everything that decides.
        remarks: What was seen and decides nothing.
        compared: Whether outputs were compared with torch's.
    """

    name: str
    checks: tuple[StructureCheck, ...]
    remarks: tuple[str, ...]
    compared: bool

    @property
    def verdict(self) -> Verdict:
        """``verified`` only when outputs were compared and every check holds."""
        if not all(check.passed for check in self.checks):
            return "differs"
        return "verified" if self.compared else "not verified"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "checks": [
                {"name": item.name, "expected": item.expected, "found": item.found, "passed": item.passed}
                for item in self.checks
            ],
            "remarks": list(self.remarks),
        }

    def text(self) -> str:
        """Return it for people, the verdict first."""
        lines = [f"{self.name}: {self.verdict}"]
        lines += [f"  {'ok  ' if item.passed else 'FAIL'} {item.name}: {item.found}" for item in self.checks]
        return "\n".join([*lines, *(f"       {item}" for item in self.remarks)])


def is_exported(thing: str) -> bool:
    """Whether ``thing`` names a package or a bundle folder, not a run."""
    path = Path(thing)
    return (
        path.suffix in {".mlpackage", ".mlmodel"}
        or (path / "Manifest.json").is_file()
        or (path / BUNDLE_NAME).is_file()
    )


def verify_exported(
    thing: str, options: VerifyOptions, *, progress: Progress | None = None
) -> tuple[PackageVerdict, ...]:
    """Verify a package, or every network of a bundle folder.

    Raises:
        ConfigError: ``bisect`` without ``network``.
        InputError: A file is missing, damaged, or not the recorded one.
        UnavailableError: Operations have no kernel here, or Core ML was asked for and cannot run.
        VerificationError: A package cannot be computed.
    """
    if options.bisect and options.network is None:
        raise ConfigError("--bisect compares layer by layer, which needs the network: add --network FOLDER")
    if options.core_ml:
        from nas.core.errors import UnavailableError
        from nas.export.core_ml_runtime import missing_runtime

        if reason := missing_runtime():
            raise UnavailableError(reason, hint="run the same command on a Mac, or leave --core-ml out")
    path = Path(thing)
    if (path / BUNDLE_NAME).is_file():
        return _verify_bundle(path, options, progress)
    return (_verify_packages(path.stem, _parts(path), options, progress),)


def _verify_bundle(folder: Path, options: VerifyOptions, progress: Progress | None) -> tuple[PackageVerdict, ...]:
    file = folder / BUNDLE_NAME
    body = check_schema(read_json(file), "bundle", 1, where=str(file))
    try:
        listed = {
            item["name"]: [
                (folder / package["file"]["path"], package["file"]["sha256"]) for package in item["packages"]
            ]
            for item in body["components"]
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: damaged: no {error} of a component", hint="export again") from error
    if not listed:
        raise InputError(f"{file}: lists no component", hint="export again")
    for packages in listed.values():
        for path, digest in packages:
            if (found := sha256_path(path)) != digest:
                raise InputError(
                    f"{path}: SHA-256 {found[:16]}… is not the one in {BUNDLE_NAME} ({digest[:16]}…)",
                    hint="the package was changed after the export; export again",
                )
    own = {name: options if name == "denoiser" else replace(options, network=None, bisect=False) for name in listed}
    return tuple(
        _verify_packages(name, [path for path, _ in packages], own[name], progress) for name, packages in listed.items()
    )


def _parts(path: Path) -> list[Path]:
    """Return a package, or all parts of the network it is a part of, in call order."""
    stem, mark, rest = path.stem.rpartition("_")
    number, of, total = rest.partition("of")
    if not (mark and of and number.isdigit() and total.isdigit()):
        return [path]
    return [path.with_name(f"{stem}_{place + 1}of{total}{path.suffix}") for place in range(int(total))]


def _verify_packages(
    name: str, paths: Sequence[Path], options: VerifyOptions, progress: Progress | None
) -> PackageVerdict:
    from nas.export.mil.executor import require_known
    from nas.export.mil.program import read_program
    from nas.export.verification import read_reference, reference_path, require_same_packages

    programs = [read_program(path) for path in paths]
    for program in programs:
        require_known(program)
    checks = _weights_are_numbers(programs)
    recorded = reference_path(paths[0])
    if options.network is not None:
        found, remarks = _against_network(programs, options, progress)
        if recorded.is_file():
            found = (_is_recorded(paths, read_reference(recorded)), *found)
    elif recorded.is_file():
        reference = read_reference(recorded)
        require_same_packages(reference, paths, where=recorded)
        found, remarks = _against_reference(programs, reference, options, progress)
    else:
        return _alone(name, programs, checks, f"no recorded outputs ({recorded}) and no --network")
    return PackageVerdict(name=name, checks=(*checks, *found), remarks=remarks, compared=True)


def _against_reference(
    programs: Sequence[Program], reference: Reference, options: VerifyOptions, progress: Progress | None
) -> tuple[tuple[StructureCheck, ...], tuple[str, ...]]:
    from nas.export.parity import Passes, compare_with_reference, parity_checks

    passes = Passes(progress, 1 if options.quick else 2)
    report = compare_with_reference(programs, reference, quick=options.quick, passes=passes)
    checks = parity_checks(report, min_psnr_db=reference.min_psnr_db)
    on_device, remarks = _core_ml(programs, reference.inputs, reference.trained)
    return (*checks, *on_device), (
        f"inputs: {reference.inputs_text}; torch's outputs as the export recorded them",
        *remarks,
    )


def _against_network(
    programs: Sequence[Program], options: VerifyOptions, progress: Progress | None
) -> tuple[tuple[StructureCheck, ...], tuple[str, ...]]:
    from nas.export.checks import check_package
    from nas.export.package import read_package
    from nas.export.parity import Passes, compare_with_reference, compute_reference, first_apart, parity_checks

    component = source_component(programs, str(options.network))
    paths = [program.path for program in programs]
    checks = check_package(read_package(paths[0]), component) if len(paths) == 1 else ()
    passes = Passes(progress, (2 if options.quick else 4) + int(options.bisect))
    reference = compute_reference(paths, component, quick=options.quick, passes=passes)
    report = compare_with_reference(
        programs, reference, component=None if options.bisect else component, quick=options.quick, passes=passes
    )
    remarks: tuple[str, ...] = (
        f"inputs: {reference.inputs_text}; torch computed with the weights of {options.network}",
    )
    if options.bisect:
        passes.begin("both, layer by layer")
        remarks += (f"package and network part at: {first_apart(programs, component, reference.inputs)}",)
    on_device, more = _core_ml(programs, reference.inputs, reference.trained)
    return (*checks, *parity_checks(report), *on_device), remarks + more


def _core_ml(
    programs: Sequence[Program], inputs: Mapping[str, Tensor], torch_outputs: Mapping[str, Tensor]
) -> tuple[tuple[StructureCheck, ...], tuple[str, ...]]:
    from nas.export.core_ml_runtime import core_ml_checks, missing_runtime
    from nas.export.mil.chain import execute_chain

    if reason := missing_runtime():
        return (), (reason,)
    own = execute_chain(programs, inputs, precision="float16")
    return core_ml_checks(programs, inputs, torch_outputs=torch_outputs, executor_outputs=own), ()


def source_component(programs: Sequence[Program], network: str) -> Component:
    """Return the denoiser that packages claim to be, with the weights of a saved network or a run.

    Raises:
        InputError: The packages are of no denoiser, or the weights of another architecture.
        NasError: The folder cannot be read.
    """
    from nas.export.package import read_package
    from nas.export.trace import exportable

    path = programs[0].path
    metadata = read_package(path).metadata
    digest = metadata.get(f"{METADATA_PREFIX}architecture")
    if digest is None:
        raise InputError(
            f"{path}: says nothing of an architecture: --network is for denoisers that this toolkit exported",
            hint="a text encoder or decoder is verified by the outputs that the export recorded beside it",
        )
    denoiser = _denoiser(network, digest)
    if denoiser.architecture.digest != digest:
        raise InputError(
            f"{network}: is architecture {denoiser.architecture.digest}, the package {path} is {digest}",
            hint="name the network that the package was exported from",
        )
    return _component(exportable(denoiser), metadata, path)


def _component(denoiser: VideoUNet, metadata: Mapping[str, str], path: Path) -> Component:
    from nas.export.component import denoiser_component

    return denoiser_component(denoiser, _scenario(metadata, path), lowering=_lowering(metadata, path))


def _lowering(metadata: Mapping[str, str], path: Path) -> Lowering:
    lowering = metadata.get(f"{METADATA_PREFIX}lowering")
    if lowering not in ("neural_engine", "gpu"):
        raise InputError(f"{path}: its metadata states no lowering", hint="export again")
    return cast("Lowering", lowering)


def _scenario(metadata: Mapping[str, str], path: Path) -> Scenario:
    import json

    from nas.core.scenario import Scenario

    try:
        return from_data(Scenario, json.loads(metadata[f"{METADATA_PREFIX}scenario"]), where=f"metadata of {path}")
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: its metadata states no scenario: {error}", hint="export again") from error


def _denoiser(network: str, digest: str) -> VideoUNet:
    from nas.models.unet import VideoUNet

    folder = Path(network)
    if (folder / "config.json").is_file():
        try:
            denoiser: VideoUNet = VideoUNet.from_pretrained(folder, use_safetensors=True).eval()
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{folder}: holds no readable video network: {error}") from error
        return denoiser
    if not folder.exists():
        raise InputError(f"{folder}: there is no such network or run")
    from nas.pipeline.choice import chosen
    from nas.pipeline.context import open_run
    from nas.pipeline.export import source_network
    from nas.runs.front import read_front

    context = open_run(network)
    front = read_front(context.path("search", "front.json"))
    selected = [chosen(context, member) for member in front.members]
    own = [item for item in selected if digest in (item.digest, item.architecture.digest)]
    if not own:
        raise InputError(f"{network}: its front has no architecture {digest}, which the package is of")
    return source_network(context, own[0].digest, own[0].architecture)[0]


def _is_recorded(paths: Sequence[Path], reference: Reference) -> StructureCheck:
    digests = tuple(sha256_path(path) for path in paths)
    return StructureCheck(
        name="SHA-256 as the export recorded it",
        expected=", ".join(item[:16] for item in reference.packages),
        found=", ".join(item[:16] for item in digests),
        passed=digests == reference.packages,
    )


def _weights_are_numbers(programs: Sequence[Program]) -> tuple[StructureCheck, ...]:
    from nas.export.mil.ranges import not_numbers

    bad = [f"{program.path.name}: {where}" for program in programs for where in not_numbers(program)]
    return (
        StructureCheck(
            name="stored constants are numbers",
            expected="no NaN",
            found=f"NaN in {len(bad)}: {'; '.join(bad[:3])}" if bad else "no NaN",
            passed=not bad,
        ),
    )


def _alone(name: str, programs: Sequence[Program], checks: tuple[StructureCheck, ...], why: str) -> PackageVerdict:
    """Say what can be said of packages without anything to compare them with."""
    from nas.export.mil.memory import activation_peak, weight_bytes
    from nas.export.mil.ranges import seeded_inputs, value_ranges

    weights = sum(weight_bytes(program).stored for program in programs)
    peak = max(activation_peak(program).num_bytes for program in programs)
    counted = sum(len(program.function().operations) for program in programs)
    inputs, words = seeded_inputs(programs)
    try:
        ranges = value_ranges(programs, inputs)
    except NasError as error:
        ran = StructureCheck(name="computes", expected="every operation", found=error.message, passed=False)
        return PackageVerdict(name=name, checks=(*checks, ran), remarks=(), compared=False)
    finite = StructureCheck(
        name="every result is finite, computed in float32",
        expected="yes",
        found=ranges.first_not_finite or "yes",
        passed=ranges.first_not_finite is None,
    )
    remarks = (
        f"specification {programs[0].specification}, {counted} operations with constants, "
        f"weights {weights / 1e6:,.1f} MB, activations {peak / 1e6:,.1f} MB at their peak",
        f"inputs: {words}",
        f"largest value {ranges.largest:.3g} at {ranges.largest_at}; {ranges.words}",
        f"nothing was compared: {why}",
    )
    return PackageVerdict(name=name, checks=(*checks, finite), remarks=remarks, compared=False)
