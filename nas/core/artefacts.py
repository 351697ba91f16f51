"""Files a run produces for others: trained weights and exported packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas.core.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """Weights of one architecture; ``folder`` is in the diffusers layout, relative to the run directory."""

    architecture: Architecture
    folder: str
    sha256: str
    stage: str
    steps: int
    metrics: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureCheck:
    """One fact of an exported package held against the source network."""

    name: str
    expected: Any
    found: Any
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityRow:
    """How far one output of a package, computed in one precision, is from one reference.

    Attributes:
        output: Name of the output.
        precision: How the package was computed: ``float32``, or ``float16`` for rounding after every operation.
        reference: What it was compared with.
        max_absolute: Largest absolute difference.
        max_relative: The same over the largest absolute value of the reference.
        psnr_db: Peak signal-to-noise ratio to that largest value; None when there is no difference.
        cosine: Cosine between the two as vectors.
    """

    output: str
    precision: str
    reference: str
    max_absolute: float
    max_relative: float
    psnr_db: float | None
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """A package computed off the device beside its source network.

    Attributes:
        inputs: What both were given, in words.
        rows: One for every output, precision and reference.
        first_apart: The first operation where package and network part and the layer it belongs to; None when the
            float32 comparison passed.
        activation_peak_bytes: Largest sum of live activations over the program's operations.
        weight_bytes: Weights as stored.
        decompressed_bytes: Weights as the operations read them.
    """

    inputs: str
    rows: tuple[ParityRow, ...]
    first_apart: str | None
    activation_peak_bytes: int
    weight_bytes: int
    decompressed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A Core ML package and what was checked on it after reloading; ``parity`` is None where it was not computed.

    ``lowering`` is the compute unit that the network was rewritten for: ``neural_engine`` or ``gpu``. ``packages`` are
    names in call order, one or two, and ``sha256`` their digests; ``package_bytes`` and ``operations`` are of all.
    ``precision`` is what they compute in, ``weights`` the form of the stored weights; ``checks`` and ``parity`` are of
    the package before its weights were compressed.
    """

    architecture: Architecture
    packages: tuple[str, ...]
    sha256: tuple[str, ...]
    lowering: str
    precision: str
    minimum_os: str
    package_bytes: int
    parameters: int
    operations: tuple[tuple[str, int], ...]
    checks: tuple[StructureCheck, ...]
    seconds: float
    peak_rss_mb: float
    parity: ParityReport | None = None
    weights: str = "float16"
