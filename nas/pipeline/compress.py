"""``nas compress``, and what the export stage asks of compression."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas.config.compression import BITS
from nas.config.run import WeightsSection
from nas.core.errors import ConfigError
from nas.core.files import write_json
from nas.core.schema import from_data, to_data, with_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from nas.config.compression import CompressionSection
    from nas.config.run import RunConfig
    from nas.core.protocols import Progress
    from nas.export.compression import CompressionRecord, CompressionSettings
    from nas.export.denoiser import Compressed, Compression

SCHEMA = "compression", 1
RECORD_NAME = "compression.json"
CACHE_NAME = ".compression-cache"
# What a compressed package may lose when it is verified again, on another machine's arithmetic.
PSNR_MARGIN_DB = 1.0


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
        inputs: Recorded inputs and outputs; when None those that an export left beside ``package``, else noise.
        cache: What is kept for another run; ``.compression-cache`` beside ``output`` when None.
        progress: Told of every layer.

    Returns:
        The record's data, and where it is as ``record``.

    Raises:
        NasError: Whatever ``compress_package`` raises.
    """
    from nas.export.compression import CompressionSettings, check_settings, compress_package, read_inputs, require_new
    from nas.export.mil import read_program
    from nas.export.verification import reference_path

    chosen = from_data(CompressionSettings, dict(settings), where="settings")
    check_settings(chosen)
    require_new(output)
    record_path = output.with_suffix(".compression.json")
    if record_path.exists():
        raise ConfigError(f"{record_path}: exists already and is not overwritten", hint="give another --output")
    beside = reference_path(package)
    given = inputs or (beside if beside.is_file() else None)
    recorded = read_inputs(given, read_program(package)) if given else None
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


def compression_of(
    section: CompressionSection, weights: WeightsSection | None, *, cache: Path, progress: Progress | None = None
) -> Compression | None:
    """Return what puts a compressed package in the place of a float16 one; None where it stays in float16.

    It writes ``compression.json`` beside the package. Where the export recorded
    inputs and PyTorch's outputs (``verification``), errors are also against those.

    Args:
        section: ``export.compression``.
        weights: Bits and form that the cost is of.
        cache: What is kept for another run.
        progress: Told of every layer.

    Raises:
        ConfigError: ``auto`` meets weights that Core ML has no form for.
    """
    settings = settings_of(section, weights)
    if settings is None:
        return None

    def compress(package: Path) -> Compressed:
        from nas.export.compression import compress_package, read_inputs
        from nas.export.denoiser import Compressed
        from nas.export.mil import read_program
        from nas.export.verification import reference_path

        recorded = reference_path(package)
        target = package.with_name(f"{package.stem}-small.mlpackage")
        record = compress_package(
            package,
            target,
            settings,
            recorded=read_inputs(recorded, read_program(package)) if recorded.is_file() else None,
            cache=cache,
            progress=progress,
        )
        shutil.rmtree(package)
        target.rename(package)
        write_record(package.parent / RECORD_NAME, record)
        if recorded.is_file():
            _bind_reference(recorded, record)
        return Compressed(weights=weights_text(record), section=card_section(record))

    return compress


def _bind_reference(path: Path, record: CompressionRecord) -> None:
    """Bind recorded outputs to the compressed package: it may be as far from them as it is, and no farther."""
    from nas.export.verification import read_reference, write_reference

    found = [row.psnr_db for row in record.errors if row.precision == "float32" and row.psnr_db is not None]
    write_reference(
        path,
        replace(
            read_reference(path),
            packages=(record.sha256,),
            stored={},
            min_psnr_db=min(found) - PSNR_MARGIN_DB if found else None,
        ),
    )


def weights_text(record: CompressionRecord) -> str:
    """Return the forms of the stored weights in words: ``5 weights palettize 4``, the most frequent first."""
    forms = Counter(layer.form for layer in record.layers)
    return ", ".join(f"{count} weight{'s' if count > 1 else ''} {form}" for form, count in forms.most_common())


def card_section(record: CompressionRecord) -> str:
    """Return what the model card says of a compressed package."""
    lines = [
        "## Compression",
        f"{record.source_bytes / 1e6:,.2f} MB in float16, {record.package_bytes / 1e6:,.2f} MB as it is: "
        f"{weights_text(record)}. `{RECORD_NAME}` has every "
        "layer. The checks above are of the float16 package before compression.",
        "| output | computed in | against | PSNR | relative RMS | largest relative |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {row.output} | {row.precision} | {row.reference} | "
            f"{'no difference' if row.psnr_db is None else f'{row.psnr_db:.1f} dB'} | {row.relative_rms:.1e} | "
            f"{row.max_relative:.1e} |"
            for row in record.errors
        ),
    ]
    return "\n" + "\n\n".join(lines) + "\n"


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


def costed_text(section: CompressionSection, weights: WeightsSection | None) -> str:
    """Return the form of weights that the cost is of where the export stores another; empty where it does not.

    Args:
        section: ``export.compression``.
        weights: Bits and form that the cost is of.
    """
    from nas.export.compression.forms import Form

    costed = stored_as(weights)
    if section.type == "auto":
        return ""
    found = Form() if costed is None else Form(**{"kind" if key == "type" else key: costed[key] for key in costed})
    asked = {"type": "float16", "bits": 16} if section.type == "none" else section.model_dump()
    same = (found.kind, found.bits, found.group_size, found.block_size) == tuple(
        asked.get(key) for key in ("type", "bits", "group_size", "block_size")
    )
    return "" if same else found.text


def compression_faults(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield what the export stage could not do of ``export.compression``, by key; nothing without that stage."""
    if config.export is None:
        return
    section, scenarios = config.export.compression, config.search.scenario if config.search else None
    compressed = section.type not in {"auto", "none"}
    if section.type == "auto":
        own = config.device.weights
        stated = [("device.weights", own)] if own else []
        chosen = [bits for bits in (scenarios.weight_bits if scenarios else None) or () if bits < 16]
        stated += [
            ("search.scenario.weight_bits", WeightsSection(bits=bits, form=own.form))
            for bits in chosen
            if own and bits != own.bits
        ]
        for path, weights in stated:
            stored = stored_as(weights) if weights.form in _FORMS else None  # others are named by the device's checks
            compressed |= stored is not None
            if stored and weights.bits not in BITS[stored["type"]]:
                allowed = " or ".join(str(bits) for bits in BITS[stored["type"]])
                yield (
                    path,
                    f"Core ML stores {weights.form!r} weights in {allowed} bits, got {weights.bits}: choose those, the "
                    "form 'palettised', or export.compression {type: none} for a package in float16",
                )
    if compressed and config.export.chunks == 2:
        yield (
            "export.chunks",
            f"a package whose weights are compressed is not cut in two, got 2 with export.compression {section.type!r}"
            f"{' and device.weights of fewer than 16 bits' if section.type == 'auto' else ''}; say 1 or auto, or "
            "export.compression {type: none}",
        )
