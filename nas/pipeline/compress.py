"""``nas compress``, and what the export stage asks of compression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas.core.errors import ConfigError
from nas.core.files import write_json
from nas.core.schema import from_data, to_data, with_schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nas.config.compression import CompressionSection
    from nas.config.run import WeightsSection
    from nas.core.protocols import Progress
    from nas.export.compression import CompressionRecord, CompressionSettings

SCHEMA = "compression", 1
RECORD_NAME = "compression.json"
CACHE_NAME = ".compression-cache"


def compress_file(
    package: Path,
    output: Path,
    settings: Mapping[str, Any],
    *,
    inputs: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compress a package and write its record beside the new one, ``small.compression.json`` for ``small.mlpackage``.

    Args:
        package: A float16 package.
        output: Where to; must not exist, nor may its record.
        settings: Fields of ``CompressionSettings``.
        inputs: Recorded inputs and outputs; ``None`` for noise.
        cache: What is kept for another run; ``.compression-cache`` beside ``output`` when None.
        progress: Told of every layer.

    Returns:
        The record's data, and where it is as ``record``.

    Raises:
        NasError: Whatever ``compress_package`` raises.
    """
    from nas.export.compression import CompressionSettings, check_settings, compress_package, read_inputs, require_new
    from nas.export.mil import read_program

    chosen = from_data(CompressionSettings, dict(settings), where="settings")
    check_settings(chosen)
    require_new(output)
    record_path = output.with_suffix(".compression.json")
    if record_path.exists():
        raise ConfigError(f"{record_path}: exists already and is not overwritten", hint="give another --output")
    recorded = read_inputs(inputs, read_program(package)) if inputs else None
    record = compress_package(
        package, output, chosen, recorded=recorded, cache=cache or output.parent / CACHE_NAME, progress=progress
    )
    write_record(record_path, record)
    return {**to_data(record), "record": str(record_path)}


def write_record(path: Path, record: CompressionRecord) -> None:
    """Write a record, atomically."""
    write_json(path, with_schema(*SCHEMA, to_data(record)))


def settings_of(section: CompressionSection, weights: WeightsSection | None) -> CompressionSettings | None:
    """Return what the export stage asks for; None where the package stays in float16.

    Args:
        section: ``export.compression``.
        weights: Bits and form that the cost is of; None for 16 bits.

    Raises:
        ConfigError: ``auto`` meets weights that Core ML has no form for.
    """
    from nas.export.compression import CompressionSettings, check_settings

    if section.type == "none":
        return None
    if section.type != "auto":
        return CompressionSettings(**section.model_dump())
    found = stored_as(weights)
    if found is None:
        return None
    settings = CompressionSettings(**found, weight_threshold=section.weight_threshold, min_psnr_db=section.min_psnr_db)
    check_settings(settings)
    return settings


# Input channels that share a step of blockwise weights: coremltools' default, and what package_size reckons with.
BLOCK_SIZE = 32
_FORMS: dict[str, dict[str, Any]] = {
    "palettised": {"type": "palettize"},
    "linear": {"type": "linear"},
    "blockwise": {"type": "linear", "block_size": BLOCK_SIZE},
    "sparse": {"type": "sparse"},
}


def stored_as(weights: WeightsSection | None) -> dict[str, Any] | None:
    """Return type, bits and block size of a package whose weights a prediction took to have ``weights``."""
    if weights is None or weights.bits == 16:
        return None
    return {**_FORMS[weights.form], "bits": weights.bits}
