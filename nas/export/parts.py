"""The networks around the denoiser as checked packages of its bundle: text encoder and decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nas.export.bundle import BundleComponent, BundlePackage, BundlePort, describe_file
from nas.export.checks import check_package, require_passed
from nas.export.coreml import convert, save
from nas.export.package import read_package
from nas.export.parity import compute_parity, parity_checks
from nas.export.trace import trace
from nas.export.verification import reference_path

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.artefacts import StructureCheck
    from nas.export.component import Component
    from nas.export.metadata import ExportMetadata
    from nas.export.package import TensorPort


def write_part(
    component: Component,
    folder: Path,
    *,
    metadata: ExportMetadata,
    lowering: str,
    calls: str,
    parity: bool | Literal["quick"],
) -> BundleComponent:
    """Convert a component into ``folder``, reload it and check it as the denoiser is checked.

    Args:
        component: Text encoder or decoder, float32 on the CPU.
        folder: Of the bundle that is being made; the package is ``<name>.mlpackage``.
        metadata: Author and licence.
        lowering: How the component was made, for the manifest.
        calls: When it is called, in words.
        parity: Compute the package and compare its outputs with the network's, which are kept under ``verification``.
            ``quick`` makes two passes of four.

    Raises:
        UnavailableError: coremltools is missing, or the disk is full.
        VerificationError: coremltools refuses the network, or a check failed.
    """
    name = f"{component.name}.mlpackage"
    path = folder / name
    model = convert(trace(component), component)
    model.author, model.license = metadata.author, metadata.license
    model.short_description = component.description
    save(model, path)
    checks: tuple[StructureCheck, ...] = check_package(read_package(path), component)
    require_passed(checks, path)
    report = None
    if parity:
        report = compute_parity(path, component, quick=parity == "quick", record=reference_path(path))
        checks += parity_checks(report)
        require_passed(checks, path)
    return BundleComponent(
        name=component.name,
        packages=(describe_package(folder, name, texts=component.texts),),
        text=component.description,
        calls=calls,
        lowering=lowering,
        checks=checks,
        parity=report,
    )


def describe_package(folder: Path, name: str, *, texts: dict[str, str]) -> BundlePackage:
    """Return digest, size, inputs and outputs of a package of a bundle, as they are on the disk."""
    package = read_package(folder / name)

    def ports(items: tuple[TensorPort, ...]) -> tuple[BundlePort, ...]:
        return tuple(
            BundlePort(name=item.name, shape=item.shape, dtype=item.dtype, text=texts.get(item.name, ""))
            for item in items
        )

    return BundlePackage(file=describe_file(folder, name), inputs=ports(package.inputs), outputs=ports(package.outputs))
