"""Reads and computes saved ML Programs with PyTorch, on any system."""

from nas.export.mil.compare import OutputError, compare_outputs, first_difference
from nas.export.mil.executor import execute, missing_operations
from nas.export.mil.memory import activation_peak, weight_bytes
from nas.export.mil.program import Program, read_program

__all__ = [
    "OutputError",
    "Program",
    "activation_peak",
    "compare_outputs",
    "execute",
    "first_difference",
    "missing_operations",
    "read_program",
    "weight_bytes",
]
