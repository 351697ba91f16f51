"""What eager torch on a CPU holds beyond the tensors of the graph: bound names and workspaces of kernels.

Read from torch 2.13 (aten/src/ATen/native: Convolution.cpp ``use_mkldnn``, ConvolutionMM2d.cpp, ConvolutionMM3d.cpp,
mkldnn/Conv.cpp) and diffusers 0.36 (``BasicTransformerBlock``), and held against the allocator in
tests/latency_models/test_eager.py. One thread is assumed, as costs of the host are measured.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latency_models.lowering import OperationFeatures
    from nas.core.workload import Workload

# Tensors that a local name keeps alive while the function that bound it runs: the operation that makes one, and the
# first of these operations of the same block behind which it is let go. By the operation that tells the function.
_BOUND_UNTIL: dict[str, dict[str, tuple[str, ...]]] = {
    "geglu": {  # BasicTransformerBlock
        "norm1": ("norm2", "norm3"),
        "norm2": ("norm3",),
        "norm3": ("add3",),
        "attn1_out": ("attn2_out", "add3"),
        "attn2_out": ("add3",),
    },
    "time_emb_proj": {"time_emb_proj": ("output",)},  # ResnetBlock2D
    "sinusoid": {"sinusoid": ("output",)},  # time embedding
    "proj_in": {"to_tokens": ("ff_out",)},  # Transformer2DModel, where it is a view of the projection
    "position": {"norm": ("to_video",), "position": ("ff_out",), "to_tokens": ("to_tokens",)},  # TemporalAttention
    "to_channels_first": {"silu1": ("proj_out",)},  # TemporalConv
}
# oneDNN lays channels out in blocks of 16 floats (AVX-512).
_CHANNEL_BLOCK = 16
# Elements of one sample from which torch leaves a convolution of one sample to oneDNN.
_ONEDNN_ELEMENTS = 20480


def bound_until(workload: Workload) -> dict[str, int]:
    """Return for each tensor that a name holds longer than it is read the index of the operation that ends it."""
    blocks: dict[str, dict[str, int]] = {}
    for index, operation in enumerate(workload.operations):
        blocks.setdefault(operation.block, {})[operation.name.removeprefix(f"{operation.block}.")] = index
    found = {}
    for labels in blocks.values():
        bound: dict[str, tuple[str, ...]] = {}
        for mark, names in _BOUND_UNTIL.items():
            bound |= names if mark in labels else {}
        for label, ends in bound.items():
            last = next((labels[end] for end in ends if end in labels), None)
            if label in labels and last is not None:
                found.update(dict.fromkeys(workload.operations[labels[label]].outputs, last))
    return found


def workspace_bytes(operation: OperationFeatures) -> int:
    """Return what a kernel takes from the allocator and gives back within ``operation``."""
    if operation.kind == "geglu":
        return prod(operation.output) * operation.element_bytes  # the gate after GELU, before the product
    if operation.kernel and operation.option("groups", 1) == 1:
        return operation.element_bytes * _convolution_elements(operation)
    return 0


def _convolution_elements(operation: OperationFeatures) -> int:
    """Elements of the copies that a convolution works on.

    oneDNN reorders weights and input, frees them, and copies the output back (few input channels are read as they
    are); torch's own kernel unfolds the input into columns, but for kernels of one element.
    """
    source, kernel = operation.inputs[0], operation.kernel
    in_channels, out_channels = operation.option("in_channels", source[1]), operation.option("out_channels", 1)
    if _uses_onednn(source, kernel, stride=operation.option("stride", 1)):
        blocked_out = _blocked(out_channels)
        output = operation.output[0] * blocked_out * prod(operation.output[2:])
        if in_channels < _CHANNEL_BLOCK:
            return output
        blocked_in = _blocked(in_channels)
        return max(output, blocked_in * (blocked_out * prod(kernel) + source[0] * prod(source[2:])))
    if prod(kernel) == 1:
        return 0
    return operation.output[0] * in_channels * prod(kernel) * prod(operation.output[2:])


def _uses_onednn(source: tuple[int, ...], kernel: tuple[int, ...], *, stride: int) -> bool:
    worth_it = stride > 1 or source[0] >= 16 or any(size != 1 for size in kernel[-2:])
    large = source[0] > 1 or all(size > 3 for size in kernel[-2:]) or prod(source[:4]) > _ONEDNN_ELEMENTS
    return worth_it and large


def _blocked(channels: int) -> int:
    return -(-channels // _CHANNEL_BLOCK) * _CHANNEL_BLOCK
