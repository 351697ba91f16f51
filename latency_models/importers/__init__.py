"""Measurements that others made, or that a phone sent: one module a format, one function each, units checked.

Xcode's performance report has no public description of its file and is not read: copy its figures into a table.
"""

from latency_models.importers.contract import ImportOptions, ImportResult, ReferenceFigure
from latency_models.importers.detection import FORMATS, detect, read_file

__all__ = ["FORMATS", "ImportOptions", "ImportResult", "ReferenceFigure", "detect", "read_file"]
