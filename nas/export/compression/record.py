"""``compression.json``: what a package was compressed to, layer by layer, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sensitivity = Literal["auto", "output", "layer"]
CompressionType = Literal["palettize", "linear", "sparse", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionSettings:
    """What is asked for.

    Attributes:
        type: One form for all weights, or ``mixed``: a form for each, chosen by measured error to fit ``package_mb``.
        bits: Bits of a weight; of ``sparse``, 16 times the share of values kept. Without meaning for ``mixed``.
        group_size: Output channels that share a look-up table; without it one table a weight.
        block_size: Input channels that share a step of linear weights; without it one step an output channel.
        weight_threshold: Weights of at most this many values stay in float16.
        package_mb: Size of the package that ``mixed`` has to fit.
        sensitivity: What ``mixed`` weighs the noise of a layer by. ``output`` measures how much of it reaches the
            outputs, a pass over the network for every weight; ``layer`` takes all layers as equal; ``auto`` measures
            where that takes at most ``SENSITIVITY_SECONDS``.
        min_psnr_db: The package is refused when an output's PSNR against float32 is below.
    """

    type: CompressionType
    bits: int | None = None
    group_size: int | None = None
    block_size: int | None = None
    weight_threshold: int = 2048
    package_mb: float | None = None
    sensitivity: Sensitivity = "auto"
    min_psnr_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedLayer:
    """One weight.

    Attributes:
        name: Of the constant in the program.
        shape: Its shape.
        form: How it is stored: ``palettize 4``, ``linear 8``, ``float16``.
        num_bytes: Bytes it adds to the package, estimated.
        noise: Mean square error of the outputs of the layers that read it over their mean square, on the same incoming
            activations; None where it was not measured.
        gain: Noise of the outputs over that of the layer; None where it was not measured.
    """

    name: str
    shape: tuple[int, ...]
    form: str
    num_bytes: int
    noise: float | None
    gain: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionError:
    """How far one output of the compressed package is from one reference.

    Attributes:
        output: Name of the output.
        precision: How the compressed package was computed.
        reference: What it was compared with, computed in float32.
        max_absolute: Largest absolute difference.
        max_relative: The same over the largest absolute value of the reference.
        relative_rms: Root mean square difference over the root mean square of the reference.
        psnr_db: Peak signal-to-noise ratio to that largest value; None when there is no difference.
        cosine: Cosine between the two as vectors.
    """

    output: str
    precision: str
    reference: str
    max_absolute: float
    max_relative: float
    relative_rms: float
    psnr_db: float | None
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionRecord:
    """The whole: ``nas/compression/1``.

    Attributes:
        settings: What was asked for.
        source_sha256: Of the float16 package.
        sha256: Of the compressed package.
        source_bytes: Size of the float16 package.
        package_bytes: Size of the compressed package.
        inputs: What the packages were computed on, in words.
        layers: Every weight above the threshold.
        predicted_noise: Sum of the layers' noise, each times its gain where that was measured.
        least_noise: What no plan of this size goes below in that model; of ``mixed`` alone.
        errors: Of every output, in float32 and in float16.
        tables_fitted: Look-up tables that were fitted, not found in the cache.
        cpu_seconds: Of this process, for the whole compression.
    """

    settings: CompressionSettings
    source_sha256: str
    sha256: str
    source_bytes: int
    package_bytes: int
    inputs: str
    layers: tuple[CompressedLayer, ...]
    predicted_noise: float | None
    least_noise: float | None
    errors: tuple[CompressionError, ...]
    tables_fitted: int
    cpu_seconds: float

    @property
    def worst_psnr_db(self) -> float | None:
        """The lowest PSNR of any row; None when nothing differs."""
        found = [row.psnr_db for row in self.errors if row.psnr_db is not None]
        return min(found, default=None)
