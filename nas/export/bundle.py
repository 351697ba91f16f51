"""``bundle.json``: every package of a text-to-video model with its digest, and what the program around them does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nas.core.architecture import Architecture
from nas.core.artefacts import ParityReport, StructureCheck
from nas.core.errors import InputError, Problem
from nas.core.files import read_json, sha256_path, write_json
from nas.core.scenario import Scenario
from nas.core.schema import check_schema, from_data, to_data, with_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

BUNDLE_NAME = "bundle.json"
SCHEMA, VERSION = "bundle", 1
# In the order a generation calls them.
COMPONENTS = ("text_encoder", "denoiser", "decoder")
TOKENIZER, SCHEDULER = "tokenizer", "scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """A file or folder of the bundle; ``path`` is relative to it."""

    path: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePort:
    """An input or output of a package."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePackage:
    """One package and what it takes and gives, by name."""

    file: BundleFile
    inputs: tuple[BundlePort, ...]
    outputs: tuple[BundlePort, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondOpinion:
    """How far another vendor's tool is from PyTorch's float32; ``psnr_db`` is None where nothing differs.

    ``convert_seconds`` and ``compute_seconds`` are wall time of the exporting machine.
    """

    by: str
    package: BundleFile
    max_absolute: float
    max_relative: float
    psnr_db: float | None
    convert_seconds: float
    compute_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleComponent:
    """One network.

    Attributes:
        name: One of ``COMPONENTS``.
        packages: In call order; a later one takes outputs of the earlier ones by name.
        text: What it is.
        calls: When the program around it calls it.
        lowering: How the network was rewritten: ``neural_engine`` or ``gpu``.
        compression: Form of the stored weights.
        checks: Of the reloaded packages, before compression.
        parity: The packages computed on the exporting machine, against PyTorch; None where that was not asked for. Of
            compressed weights it is that of the float16 package; ``compression.json`` has their own error.
        verification: Inputs, and outputs of PyTorch in float32.
    """

    name: str
    packages: tuple[BundlePackage, ...]
    text: str
    calls: str
    lowering: str
    compression: str = "float16"
    checks: tuple[StructureCheck, ...] = ()
    parity: ParityReport | None = None
    verification: BundleFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSampling:
    """How a clip comes out of the packages.

    Attributes:
        times: Of the steps, from 1 (noise) down; the last step ends at 0.
        time_scale: What a time is multiplied with before the denoiser's sinusoid.
        sampler: ``euler`` goes ``x + (next - t) v``; ``renoise`` predicts ``x - t v`` and adds fresh noise to it.
        guidance: Weight of classifier-free guidance, 1 for none; otherwise the empty caption is a second call.
        latent_shape: (frames, channels, height, width) of a clip.
        decoder_frames: Frames of one call of the decoder; a last part that is shorter repeats its last frame.
        fps: Frames a second of the clip.
        latent_scale: Where the scaling of the latents is done.
    """

    times: tuple[float, ...]
    time_scale: float
    sampler: Literal["euler", "renoise"]
    guidance: float
    latent_shape: tuple[int, int, int, int]
    decoder_frames: int
    fps: float
    latent_scale: str = "inside the decoder: it takes latents as the denoiser gives them"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeEmbedding:
    """What the program around the denoiser computes of a time, in float32; None where the package does that itself.

    Entry ``i`` of the first half is ``cos(time_scale t f_i)``, of the second ``sin(time_scale t f_i)``, with
    ``f_i = max_period ** (-i / (channels / 2))``.
    """

    input: str
    channels: int
    max_period: float = 10000.0
    formula: str = "cos(a f_i) then sin(a f_i), a = time_scale * t, f_i = max_period ** (-i / (channels / 2))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A text-to-video model, or what there is of it.

    Attributes:
        architecture: Of the denoiser.
        scenario: Frames and size.
        minimum_os: Oldest system that reads the packages.
        components: In the order of ``COMPONENTS``; those that are absent are in ``missing``.
        sampling: How they are used.
        time_embedding: What the program around them computes of a time.
        tokenizer: Folder, with a text encoder.
        scheduler: Folder with diffusers' configuration of the sampler.
        licences: Files taken from where the encoder and decoder came from.
        missing: Absent part and why.
        second_opinion: What another vendor's tool makes of the denoiser's graph.
        versions: Of what made the bundle.
    """

    architecture: Architecture
    scenario: Scenario
    minimum_os: str
    components: tuple[BundleComponent, ...]
    sampling: BundleSampling
    time_embedding: TimeEmbedding | None
    tokenizer: BundleFile | None
    scheduler: BundleFile | None
    licences: tuple[BundleFile, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    second_opinion: SecondOpinion | None = None
    versions: dict[str, str | None] = field(default_factory=dict)

    def component(self, name: str) -> BundleComponent | None:
        """Return a network by name."""
        return next((item for item in self.components if item.name == name), None)

    def files(self) -> Iterator[BundleFile]:
        """Yield everything that a digest is kept of."""
        for component in self.components:
            yield from (package.file for package in component.packages)
            if component.verification is not None:
                yield component.verification
        yield from (file for file in (self.tokenizer, self.scheduler, *self.licences) if file is not None)
        if self.second_opinion is not None:
            yield self.second_opinion.package


def describe_file(folder: Path, path: str) -> BundleFile:
    """Return digest and size of a file or folder of a bundle.

    Raises:
        InputError: It does not exist.
    """
    place = folder / path
    files = [place] if place.is_file() else [item for item in place.rglob("*") if item.is_file()]
    return BundleFile(path=path, sha256=sha256_path(place), num_bytes=sum(item.stat().st_size for item in files))


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write ``bundle.json`` beside the files it names."""
    write_json(folder / BUNDLE_NAME, with_schema(SCHEMA, VERSION, to_data(bundle)))


def read_bundle(folder: Path, *, digests: bool = True) -> Bundle:
    """Read a bundle and hold every file it names against its digest.

    Args:
        folder: With ``bundle.json``.
        digests: Read the files; without, only that they exist is checked.

    Raises:
        InputError: The manifest is missing, damaged or of another version, or files are missing or changed; all of
            them are named.
    """
    path = folder / BUNDLE_NAME
    body = check_schema(read_json(path), SCHEMA, VERSION, where=str(path))
    bundle = from_data(Bundle, body, where=str(path))
    faults = [fault for file in bundle.files() if (fault := _fault(folder, file, digests=digests))]
    if faults:
        raise InputError(
            f"{folder}: {len(faults)} of the files that {BUNDLE_NAME} names do not fit: {'; '.join(faults)}",
            hint="copy the bundle again as a whole, or export again",
            problems=tuple(Problem(message=fault, file=str(folder)) for fault in faults),
        )
    return bundle


def require_complete(bundle: Bundle, folder: Path) -> None:
    """Let a bundle pass that goes from text to frames.

    Raises:
        InputError: A part is missing; each is named with the reason.
    """
    absent = [name for name in COMPONENTS if bundle.component(name) is None]
    if bundle.tokenizer is None:
        absent.append(TOKENIZER)
    if absent:
        reasons = [f"{name} ({bundle.missing.get(name, 'not exported')})" for name in absent]
        raise InputError(
            f"{folder}: the bundle is not complete, it lacks {', '.join(reasons)}",
            hint="export with export.pipeline naming a local diffusers folder",
        )


def _fault(folder: Path, file: BundleFile, *, digests: bool) -> str | None:
    if Path(file.path).is_absolute() or ".." in Path(file.path).parts:
        return f"{file.path} lies outside the bundle"
    if not (folder / file.path).exists():
        return f"{file.path} is missing"
    if digests and sha256_path(folder / file.path) != file.sha256:
        return f"{file.path} has changed since the export"
    return None
