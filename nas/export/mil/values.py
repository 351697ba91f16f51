"""Element types of MIL, and constants as they lie in a package: in the protobuf or mapped from the weight file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nas.core.errors import InputError
from nas.export.package import RECORD, SENTINEL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """One element type.

    Attributes:
        name: Lower-case name of the protobuf's enumeration.
        bits: Stored bits of one element.
        storage: NumPy type whose bytes are stored; of packed types, that of one unpacked element.
        compute: Torch type that holds it here; every float is computed in float32.
        blob: The code that the weight file gives it, None when it cannot lie there.
    """

    name: str
    bits: int
    storage: str
    compute: torch.dtype
    blob: int | None = None

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.compute == torch.float32


# Codes of the weight file: coremltools 9.0, mlmodel/src/MILBlob/Blob/BlobDataType.hpp.
_TYPES = (
    ElementType(name="bool", bits=8, storage="?", compute=torch.bool),
    ElementType(name="float16", bits=16, storage="<f2", compute=torch.float32, blob=1),
    ElementType(name="float32", bits=32, storage="<f4", compute=torch.float32, blob=2),
    ElementType(name="int8", bits=8, storage="i1", compute=torch.int32, blob=4),
    ElementType(name="int16", bits=16, storage="<i2", compute=torch.int32, blob=6),
    ElementType(name="int32", bits=32, storage="<i4", compute=torch.int32, blob=14),
    ElementType(name="int64", bits=64, storage="<i8", compute=torch.int64),
    ElementType(name="int4", bits=4, storage="i1", compute=torch.int32, blob=8),
    ElementType(name="uint8", bits=8, storage="u1", compute=torch.int32, blob=3),
    ElementType(name="uint16", bits=16, storage="<u2", compute=torch.int32, blob=7),
    ElementType(name="uint32", bits=32, storage="<u4", compute=torch.int64, blob=15),
    ElementType(name="uint6", bits=6, storage="u1", compute=torch.int32, blob=13),
    ElementType(name="uint4", bits=4, storage="u1", compute=torch.int32, blob=11),
    ElementType(name="uint3", bits=3, storage="u1", compute=torch.int32, blob=12),
    ElementType(name="uint2", bits=2, storage="u1", compute=torch.int32, blob=10),
    ElementType(name="uint1", bits=1, storage="u1", compute=torch.int32, blob=9),
)
ELEMENT_TYPES = {item.name: item for item in _TYPES}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """Element type and shape; an axis of unknown length is None."""

    element: ElementType
    shape: tuple[int | None, ...]

    @property
    def num_elements(self) -> int:
        """Number of elements; an axis of unknown length counts as one."""
        return math.prod(axis or (1 if axis is None else 0) for axis in self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes as stored; packed types fill whole bytes."""
        return -(-self.num_elements * self.element.bits // 8)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of ``shape`` is of this type; an axis of unknown length takes any."""
        return len(shape) == len(self.shape) and all(
            stated is None or stated == size for stated, size in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        axes = ", ".join("?" if axis is None else str(axis) for axis in self.shape)
        return f"{self.element.name} ({axes})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A constant tensor that is decoded only when it is asked for.

    Attributes:
        type: Element type and shape.
        data: Its bytes, packed as stored: a view of the mapped weight file or of the protobuf.
        where: File and byte, for messages.
        in_file: Whether it lies in the weight file.
    """

    type: TensorType
    data: Array = field(repr=False)
    where: str
    in_file: bool

    def array(self) -> Array:
        """Return the values, one element each; not to be written to."""
        shape = tuple(axis or 0 for axis in self.type.shape)
        element = self.type.element
        if element.bits < 8:
            return unpack_bits(
                self.data, bits=element.bits, count=math.prod(shape), signed=element.name == "int4"
            ).reshape(shape)
        return self.data.view(np.dtype(element.storage)).reshape(shape)

    def tensor(self) -> Tensor:
        """Return the values in the type they are computed in; not to be written to."""
        values = self.array()
        if self.type.element.name == "float16" and values.flags.writeable:  # of a mapped file: no second copy by NumPy
            return torch.from_numpy(values).float()
        kind = {torch.float32: np.float32, torch.int32: np.int32, torch.int64: np.int64, torch.bool: np.bool_}
        return torch.from_numpy(np.array(values, dtype=kind[self.type.element.compute], order="C"))


def unpack_bits(data: Array, *, bits: int, count: int, signed: bool = False) -> Array:
    """Return ``count`` numbers of ``bits`` bits each, packed from the lowest bit of the first byte on.

    Raises:
        ValueError: There are fewer bytes than that.

    Source:
        Order of bits: coremltools' description of ``constexpr_lut_to_dense`` (iOS 16).
    """
    packed = np.ascontiguousarray(data).view(np.uint8)
    if 8 * len(packed) < bits * count:
        raise ValueError(f"{len(packed)} bytes hold fewer than {count} numbers of {bits} bits")
    # Numbers of 3 and 6 bits come round to a byte's edge every 3 bytes, all others every byte.
    word: int = 3 if 8 % bits else 1
    kind: type[np.unsignedinteger[Any]] = np.uint32 if 8 % bits else np.uint8
    whole = np.zeros(-(-len(packed) // word) * word, dtype=np.uint8)
    whole[: len(packed)] = packed
    words: Array = np.zeros(len(whole) // word, dtype=kind)
    for place in range(word):
        words |= whole[place::word].astype(kind) << kind(8 * place)
    each = 8 * word // bits
    numbers = np.empty((len(words), each), dtype=np.uint8)
    for place in range(each):
        numbers[:, place] = (words >> (bits * place)) & ((1 << bits) - 1)
    found: Array = numbers.reshape(-1)[:count]
    if signed:
        sign = np.uint8(1 << (bits - 1))
        found = ((found ^ sign) - sign).view(np.int8)
    return found


def read_blob(weights: Array, at: int, kind: TensorType, *, file: Path) -> Constant:
    """Return the constant whose record begins at byte ``at`` of a mapped weight file.

    Raises:
        InputError: The record is not there, is of another type, or its bytes end early.
    """
    where = f"{file}: record at byte {at}"
    if at % 64 or at + RECORD.itemsize > weights.size:
        raise InputError(f"{where} is not in the file ({weights.size} bytes)", hint="export again")
    record = np.frombuffer(weights[at : at + RECORD.itemsize].tobytes(), dtype=RECORD)[0]
    start, length = int(record["offset"]), int(record["num_bytes"])
    if record["sentinel"] != SENTINEL or start + length > weights.size:
        raise InputError(f"{where} is damaged", hint="export again")
    if record["type"] != kind.element.blob or length != kind.num_bytes:
        raise InputError(
            f"{where} holds {length} bytes of type code {record['type']}, "
            f"the program needs {kind.num_bytes} bytes of code {kind.element.blob} for {kind}",
            hint="the weight file belongs to another program, or one of the two is damaged; export again",
        )
    return Constant(type=kind, data=weights[start : start + length], where=where, in_file=True)
