"""Compresses saved packages: look-up tables, linear steps, sparse weights, and mixed plans by measured error."""

from nas.export.compression.compress import check_settings, compress_package, require_new
from nas.export.compression.inputs import Recorded, noise_inputs, read_inputs
from nas.export.compression.record import CompressedLayer, CompressionError, CompressionRecord, CompressionSettings

__all__ = [
    "CompressedLayer",
    "CompressionError",
    "CompressionRecord",
    "CompressionSettings",
    "Recorded",
    "check_settings",
    "compress_package",
    "noise_inputs",
    "read_inputs",
    "require_new",
]
