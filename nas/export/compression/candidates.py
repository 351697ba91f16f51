"""A weight as it would be read from a package that stores it in another form.

coremltools is imported inside functions: it costs seconds and only compression needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from nas.export.compression.cache import Cache
    from nas.export.compression.forms import Form
    from nas.export.compression.weights import Weight
    from nas.export.mil.values import Array


def as_read(weight: Weight, form: Form, cache: Cache) -> Tensor:
    """Return the values that operations read when ``weight`` is stored in ``form``, float32."""
    return torch.from_numpy(np.asarray(_values(weight, form, cache)).astype(np.float32))


def block_sizes(weight: Weight, form: Form) -> list[int]:
    """Return coremltools' block sizes of a linear form: one output channel, all or some input channels, kernels whole.

    0 stands for the whole axis.
    """
    sizes = [0] * len(weight.shape)
    sizes[weight.input_axis] = form.block_size or 0
    sizes[weight.output_axis] = 1
    return sizes


def _values(weight: Weight, form: Form, cache: Cache) -> Array:
    if form.kind == "float16":
        return weight.values()
    if form.kind == "palettize":
        return cache.palettized(weight, form)
    from coremltools.optimize.coreml._quantization_passes import linear_quantize_weights, prune_weights

    values = np.array(weight.values())
    if form.kind == "linear":
        stored = linear_quantize_weights.blockwise_compress_by_dtype(
            values, f"int{form.bits}", "LINEAR_SYMMETRIC", block_sizes(weight, form)
        )
        dense: Array = linear_quantize_weights.decompress(stored)
    else:
        sparse = prune_weights.compress_by_magnitude(values, target_sparsity=1 - form.bits / 16)
        dense = prune_weights.decompress(sparse)
    return dense
