"""What one network computes in one scenario, described without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

_SIGNATURE = re.compile(r"(\w+)\(((?:\s*\w+=-?\d+\s*(?:,|(?=\))))*)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """A block and every shape it runs at: two blocks with equal specs cost the same.

    ``kind`` is a name of the layer catalogue; ``options`` holds whole numbers only (channels, heads, frames, …).
    The spec is enough to build the torch block and its example inputs.
    """

    kind: str
    options: tuple[tuple[str, int], ...]

    @staticmethod
    def of(kind: str, **options: int) -> BlockSpec:
        """Build a spec with its options in canonical order."""
        return BlockSpec(kind=kind, options=tuple(sorted(options.items())))

    def __getitem__(self, name: str) -> int:
        for key, value in self.options:
            if key == name:
                return value
        raise KeyError(f"block {self.kind!r} has no option {name!r}")

    @property
    def signature(self) -> str:
        """Canonical text, the key of lookup tables: ``resnet(frames=8,height=4,…)``."""
        inside = ",".join(f"{name}={value}" for name, value in self.options)
        return f"{self.kind}({inside})"

    @staticmethod
    def parse(signature: str) -> BlockSpec:
        """Rebuild a spec from its ``signature``.

        Raises:
            ValueError: The text is not ``kind(name=number,…)``.
        """
        match = _SIGNATURE.fullmatch(signature.strip())
        if match is None:
            raise ValueError(f"a block is written 'kind(name=number,…)', got {signature!r}")
        pairs = [pair.split("=") for pair in match[2].split(",") if pair]
        return BlockSpec.of(match[1], **{name.strip(): int(value) for name, value in pairs})


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One activation tensor: its shape and the bytes of one element."""

    name: str
    shape: tuple[int, ...]
    element_bytes: int

    @property
    def num_bytes(self) -> int:
        """Size in bytes, without padding."""
        return prod(self.shape) * self.element_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation in execution order.

    ``flops`` counts a multiply-add as two; ``weight_bytes`` is at the scenario's precision.
    ``inputs`` and ``outputs`` name tensors of the workload, for liveness. ``options`` says what shapes do not: of a
    convolution ``in_channels``, ``out_channels``, ``stride``, ``groups`` and ``kernel_0``, ``kernel_1``, … by axis;
    of attention ``heads``.
    """

    name: str
    block: str
    kind: str
    flops: int
    parameters: int
    weight_bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Operations, tensors and blocks of one architecture in one scenario.

    ``blocks`` pairs each block name with its spec in execution order; every operation's ``block`` is one of them.
    ``repeats`` says how often a phase runs in one generation: ``(("denoiser", 4),)``.
    """

    operations: tuple[Operation, ...]
    tensors: tuple[TensorSpec, ...]
    blocks: tuple[tuple[str, BlockSpec], ...]
    repeats: tuple[tuple[str, int], ...]

    @property
    def flops(self) -> int:
        """FLOPs of one denoiser call."""
        return sum(operation.flops for operation in self.operations)

    @property
    def parameters(self) -> int:
        """Trainable parameters of the denoiser."""
        return sum(operation.parameters for operation in self.operations)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights at the scenario's precision."""
        return sum(operation.weight_bytes for operation in self.operations)

    @property
    def calls(self) -> int:
        """Denoiser calls of one generation."""
        return dict(self.repeats)["denoiser"]
