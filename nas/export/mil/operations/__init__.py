"""MIL operations as PyTorch kernels, by family; importing this package registers them all."""

from nas.export.mil.operations import (
    activations,
    compression,
    convolutions,
    elementwise,
    indexing,
    normalization,
    products,
    reductions,
    resizing,
    shapes,
)
from nas.export.mil.operations.registry import KERNELS, Inputs, Value

__all__ = [
    "KERNELS",
    "Inputs",
    "Value",
    "activations",
    "compression",
    "convolutions",
    "elementwise",
    "indexing",
    "normalization",
    "products",
    "reductions",
    "resizing",
    "shapes",
]
