"""Forms that Core ML can store a weight in, and the bytes that each takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["float16", "palettize", "linear", "sparse"]

# coremltools 9.0: OpPalettizerConfig and OpLinearQuantizerConfig.
PALETTE_BITS = (1, 2, 3, 4, 6, 8)
LINEAR_BITS = (4, 8)
# A record of the weight file, and what its data is padded to (MIL's blob storage).
_RECORD_BYTES = 64
# Text that an expanding operation adds to the program, read off packages of coremltools 9.0 (2026-11).
_EXPANSION_BYTES = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How one weight is stored.

    Attributes:
        kind: ``palettize`` has a table of ``2**bits`` values, ``linear`` whole multiples of a step per output channel,
            ``sparse`` the largest values in float16 and a bit for each, ``float16`` the weight as it was.
        bits: Bits of one weight; of ``sparse``, 16 times the share of values kept.
        group_size: Output channels that share a table; all of them when None.
        block_size: Input channels that share a step; all of them when None.
    """

    kind: Kind = "float16"
    bits: int = 16
    group_size: int | None = None
    block_size: int | None = None

    @property
    def text(self) -> str:
        """For people and for keys: ``palettize 4``, ``palettize 4 per 16 channels``, ``linear 4 per 32 inputs``."""
        if self.kind == "float16":
            return "float16"
        if self.kind == "sparse":
            return f"sparse {self.bits / 16:.0%}"
        groups = f" per {self.group_size} channels" if self.group_size else ""
        blocks = f" per {self.block_size} inputs" if self.block_size else ""
        return f"{self.kind} {self.bits}{groups}{blocks}"

    @property
    def needs_ios18(self) -> bool:
        """Whether only programs for iOS 18 and later can hold it."""
        odd_palette = self.kind == "palettize" and self.bits == 3  # constexpr_lut_to_dense of iOS 16 has no uint3
        return bool(self.group_size or self.block_size or odd_palette or (self.kind == "linear" and self.bits == 4))

    def fits(self, shape: Sequence[int], *, output_axis: int, input_axis: int) -> bool:
        """Whether groups and blocks divide the axes of a weight."""
        groups = self.group_size is None or shape[output_axis] % self.group_size == 0
        return groups and (self.block_size is None or shape[input_axis] % self.block_size == 0)

    def ungrouped(self) -> Form:
        """Return the form with one table, or one step an output channel."""
        return Form(kind=self.kind, bits=self.bits)

    def stored_bytes(self, shape: Sequence[int], *, output_axis: int, input_axis: int) -> int:
        """Return the bytes that a weight of ``shape`` adds to a package: numbers, tables or steps, records, text."""
        count = math.prod(shape)
        if self.kind == "float16":
            return _record(2 * count)
        if self.kind == "sparse":
            return _record(2 * round(count * self.bits / 16)) + _record(-(-count // 8)) + _EXPANSION_BYTES
        numbers = _record(-(-count * self.bits // 8)) + _EXPANSION_BYTES
        if self.kind == "palettize":
            groups = shape[output_axis] // self.group_size if self.group_size else 1
            return numbers + _record(groups * 2 * 2**self.bits)
        blocks = shape[input_axis] // self.block_size if self.block_size else 1
        return numbers + _record(2 * shape[output_axis] * blocks)


def _record(num_bytes: int) -> int:
    return _RECORD_BYTES + -(-num_bytes // _RECORD_BYTES) * _RECORD_BYTES


PLAIN = Form()
