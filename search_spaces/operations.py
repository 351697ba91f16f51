"""Writes down the operations of a block one by one, with FLOPs, parameters and tensors; no torch.

FLOPs follow ``torch.utils.flop_counter``: a multiply-add counts two, biases, norms, activations and additions count
nothing. Those still appear as operations, because they move memory. Reshapes that copy appear as ``layout``; views
(splitting an axis, heads) do not appear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from nas.core.workload import Operation, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class Tape:
    """Operations and tensors of one block while they are written down; every tensor is made by one operation.

    Attributes:
        block: Name of the block; prefix of all operation and tensor names.
        element_bytes: Bytes of one weight or activation element.
        shapes: Shape of every tensor known so far, inputs of the block included.
    """

    block: str
    element_bytes: int
    shapes: dict[str, tuple[int, ...]]
    operations: list[Operation] = field(default_factory=list)
    tensors: list[TensorSpec] = field(default_factory=list)

    def add(
        self,
        label: str,
        kind: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        *,
        flops: int = 0,
        parameters: int = 0,
        options: Mapping[str, int] | None = None,
    ) -> str:
        """Write one operation with one output of ``shape``; returns the output's name."""
        name = f"{self.block}.{label}"
        self.shapes[name] = shape
        self.tensors.append(TensorSpec(name=name, shape=shape, element_bytes=self.element_bytes))
        self.operations.append(
            Operation(
                name=name,
                block=self.block,
                kind=kind,
                flops=flops,
                parameters=parameters,
                weight_bytes=parameters * self.element_bytes,
                inputs=inputs,
                outputs=(name,),
                options=tuple(sorted((options or {}).items())),
            )
        )
        return name

    def norm(self, label: str, source: str, channels: int, *, kind: str = "group_norm") -> str:
        """Group or layer norm with scale and shift: ``2 * channels`` parameters."""
        return self.add(label, kind, (source,), self.shapes[source], parameters=2 * channels)

    def activation(self, label: str, source: str) -> str:
        """SiLU, elementwise."""
        return self.add(label, "silu", (source,), self.shapes[source])

    def sum_of(self, label: str, *sources: str) -> str:
        """Elementwise sum with the shape of the first source."""
        return self.add(label, "add", sources, self.shapes[sources[0]])

    def layout(self, label: str, source: str, shape: tuple[int, ...]) -> str:
        """Copy into another axis order."""
        return self.add(label, "layout", (source,), shape)

    def conv(
        self, label: str, source: str, out_channels: int, *, kernel: tuple[int, ...] = (3, 3), stride: int = 1
    ) -> str:
        """Convolution over the axes behind (N, C), padded so that stride 1 keeps the size; with bias.

        FLOPs are ``2 * outputs * in_channels * prod(kernel)`` with padding counted as data, parameters
        ``out_channels * (in_channels * prod(kernel) + 1)``.

        Source:
            Own count; equals ``torch.utils.flop_counter`` (tests/models/test_analytic.py).
        """
        batch, in_channels, *size = self.shapes[source]
        shape = (batch, out_channels, *(-(-length // stride) for length in size))
        per_output = in_channels * prod(kernel)
        kind = "conv3d" if len(kernel) == 3 else "conv2d"
        return self.add(
            label,
            kind,
            (source,),
            shape,
            flops=2 * prod(shape) * per_output,
            parameters=out_channels * (per_output + 1),
            options={
                "in_channels": in_channels,
                "out_channels": out_channels,
                "stride": stride,
                "groups": 1,
                **{f"kernel_{axis}": length for axis, length in enumerate(kernel)},
            },
        )

    def linear(self, label: str, source: str, out_width: int, *, bias: bool = True) -> str:
        """Matrix product over the last axis: ``2 * rows * in_width * out_width`` FLOPs.

        Source:
            Own count; equals ``torch.utils.flop_counter`` (tests/models/test_analytic.py).
        """
        *rows, in_width = self.shapes[source]
        return self.add(
            label,
            "linear",
            (source,),
            (*rows, out_width),
            flops=2 * prod(rows) * in_width * out_width,
            parameters=out_width * (in_width + bias),
            options={"in_channels": in_width, "out_channels": out_width},
        )

    def attention(self, label: str, query: str, key: str, value: str, *, heads: int) -> str:
        """Scaled dot-product attention as one operation; tensors are (batch, tokens, width).

        FLOPs are ``4 * batch * query_tokens * key_tokens * width``. The scores (batch, heads, query_tokens,
        key_tokens) are taken to stay inside the operation, as in fused kernels; a target that keeps them adds them in
        its lowering, from the operation's ``heads``.

        Raises:
            ValueError: The width is not divisible by ``heads``.

        Source:
            Own count; equals ``torch.utils.flop_counter`` (tests/models/test_analytic.py).
        """
        batch, tokens, width = self.shapes[query]
        if width % heads:
            raise ValueError(f"{self.block}.{label}: width {width} is not divisible by {heads} heads")
        return self.add(
            label,
            "attention",
            (query, key, value),
            (batch, tokens, width),
            flops=4 * batch * tokens * self.shapes[key][1] * width,
            options={"heads": heads},
        )
