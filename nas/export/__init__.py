"""Exports a video denoiser to Core ML on any system and checks what was written."""

from nas.export.denoiser import export_denoiser
from nas.export.metadata import ExportMetadata, MeasuredFigure
from nas.export.package import Package, read_package

__all__ = ["ExportMetadata", "MeasuredFigure", "Package", "export_denoiser", "read_package"]
