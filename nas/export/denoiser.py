"""From a video network to a checked Core ML package in one folder, all of it or nothing."""

from __future__ import annotations

import gc
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nas.core.artefacts import ExportedModel
from nas.core.errors import UnavailableError
from nas.core.files import sha256_path, write_json, write_text_atomically
from nas.core.protocols import Progress, SilentProgress
from nas.core.schema import to_data, with_schema
from nas.export.card import model_card
from nas.export.checks import check_package, require_passed
from nas.export.chunks import CHUNK_MB, num_chunks, split_package
from nas.export.component import Component, denoiser_component
from nas.export.coreml import MINIMUM_OS, convert, save
from nas.export.metadata import ARCHITECTURE_ENTRY, ExportMetadata, package_entries
from nas.export.package import read_package
from nas.export.parity import compute_parity, parity_checks
from nas.export.shims import load_coremltools
from nas.export.trace import exportable, trace
from nas.export.verification import reference_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.core.scenario import Scenario
    from nas.export.lowering import Lowering
    from nas.models.unet import VideoUNet

PACKAGE_NAME = "denoiser.mlpackage"
CARD_NAME = "model_card.md"
RECORD_NAME = "export.json"
# Gets the folder that is being made, what the denoiser was exported from, and its record.
Completion = Callable[[Path, Component, ExportedModel], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """What became of a package: the form of its weights in words, and a section of the card."""

    weights: str
    section: str


# Gets the package that has passed and replaces it by a compressed one.
Compression = Callable[[Path], Compressed]
STEPS = ("trace", "convert", "save", "check", "compute", "done")


def export_denoiser(
    denoiser: VideoUNet,
    scenario: Scenario,
    folder: Path,
    *,
    lowering: Lowering,
    metadata: ExportMetadata | None = None,
    parity: bool | Literal["quick"] = True,
    chunks: Literal["auto", 1, 2] = 1,
    chunk_mb: float = CHUNK_MB,
    compress: Compression | None = None,
    complete: Completion | None = None,
    progress: Progress | None = None,
) -> ExportedModel:
    """Write ``denoiser.mlpackage`` or its two parts, ``model_card.md`` and ``export.json`` into ``folder``.

    Everything is made in a temporary folder beside it, reloaded and checked, then renamed: a folder that exists is
    replaced by a whole one or left as it was.

    Args:
        denoiser: The network; not changed. Other types than float32 and other devices cost a copy.
        scenario: Frames and size; the package has fixed shapes and takes one clip.
        folder: Where to; its parents are made.
        lowering: The compute unit that the network is rewritten for (``nas.export.lowering``).
        metadata: Author, licence, training and figures for the package and its card.
        parity: Compute the packages and compare their outputs with the network's (``nas.export.parity``); torch's are
            kept under ``verification``. ``quick`` makes two passes of four.
        chunks: Packages to write; ``auto`` is two where one would be larger than ``chunk_mb``.
        chunk_mb: Million bytes.
        compress: Called when the float16 package has passed, to put a compressed one in its place.
        complete: Called when the package has passed, to add files to the folder being made; returns further sections
            of the card.
        progress: Where to say which of ``STEPS`` is under way.

    Returns:
        The record of ``export.json``; ``packages`` are in ``folder``, ``operations`` leaves constants out, and
        ``peak_rss_mb`` is the peak of this process so far.

    Raises:
        ConfigError: The scenario does not fit the network.
        UnavailableError: coremltools is missing, or the disk is full.
        VerificationError: A weight does not fit float16, coremltools refuses the network, or a check failed.
    """
    start = time.monotonic()
    metadata = metadata or ExportMetadata()
    report = progress or SilentProgress()
    load_coremltools()
    _require_space(denoiser, folder)
    denoiser = exportable(denoiser)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        component = denoiser_component(denoiser, scenario, lowering=lowering)
        entries = package_entries(denoiser.architecture, scenario, metadata, lowering=lowering)
        _write_package(component, work / PACKAGE_NAME, metadata=metadata, entries=entries, progress=report)
        report.update(3, len(STEPS) - 1, STEPS[3])
        package = read_package(work / PACKAGE_NAME)
        checks = check_package(package, component)
        require_passed(checks, folder / PACKAGE_NAME)
        report.update(4, len(STEPS) - 1, STEPS[4])
        path = work / PACKAGE_NAME
        packages: tuple[Path, ...] = (path,)
        if num_chunks(chunks, folder_bytes(path), chunk_mb=chunk_mb) == 2:
            packages = split_package(path)
        agreement = None
        if parity:
            quick, record = parity == "quick", reference_path(path)
            agreement = compute_parity(packages, component, quick=quick, progress=report, record=record)
            checks += parity_checks(agreement)
            require_passed(checks, folder / PACKAGE_NAME)
        compressed = compress(work / PACKAGE_NAME) if compress is not None else None
        model = ExportedModel(
            architecture=denoiser.architecture,
            packages=tuple(path.name for path in packages),
            sha256=tuple(sha256_path(path) for path in packages),
            lowering=lowering,
            precision="float16",
            minimum_os=MINIMUM_OS,
            package_bytes=sum(map(folder_bytes, packages)),
            parameters=sum(item.numel() for item in component.module.parameters()),
            operations=tuple(package.operations.items()),
            checks=checks,
            seconds=time.monotonic() - start,
            peak_rss_mb=peak_rss_mb(),
            parity=agreement,
            weights=compressed.weights if compressed is not None else "float16",
        )
        card = model_card(model, package, scenario, metadata, component=component)
        write_json(work / RECORD_NAME, with_schema("export", 1, to_data(model)))
        card += compressed.section if compressed is not None else ""
        if complete is not None:
            card += complete(work, component, model)
        write_text_atomically(work / CARD_NAME, card)
        _replace_folder(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report.update(len(STEPS) - 1, len(STEPS) - 1, STEPS[-1])
    return model


def peak_rss_mb() -> float:
    """Return the largest memory (MB) this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes on macOS, KiB on Linux


def _write_package(
    component: Component,
    path: Path,
    *,
    metadata: ExportMetadata,
    entries: Mapping[str, str],
    progress: Progress,
) -> None:
    total = len(STEPS) - 1
    progress.update(0, total, STEPS[0])
    program = trace(component)
    progress.update(1, total, STEPS[1])
    model = convert(program, component)
    del program  # frees its own tensors before the weights are written
    gc.collect()
    model.author = metadata.author
    model.license = metadata.license
    model.short_description = metadata.description
    model.version = entries[ARCHITECTURE_ENTRY]
    for key, value in entries.items():
        model.user_defined_metadata[key] = value
    progress.update(2, total, STEPS[2])
    save(model, path)


def _replace_folder(work: Path, folder: Path) -> None:
    # mkdtemp makes folders for the owner alone; a package is for whoever may read the run.
    work.chmod(0o755)
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        folder.rename(old / folder.name)
        work.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        work.rename(folder)


def _require_space(denoiser: VideoUNet, folder: Path) -> None:
    # coremltools writes the package into the temporary folder and copies it; two bytes a parameter and some room.
    needed = int(2.2 * sum(item.numel() for item in denoiser.parameters()))
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    for place in (existing, Path(tempfile.gettempdir())):
        free = shutil.disk_usage(place).free
        if free < needed:
            raise UnavailableError(
                f"{place}: the package needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
                hint="free some space, or set TMPDIR to a larger disk",
            )


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
