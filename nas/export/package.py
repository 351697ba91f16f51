"""What a saved ``.mlpackage`` holds, read from its protobuf and weight file: needs no Mac and runs nothing.

coremltools is imported inside functions: it costs seconds and only an export needs it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import InputError, UnavailableError
from nas.export.shims import load_coremltools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST_FILE = "Manifest.json"
MODEL_FILE = "Data/com.apple.CoreML/model.mlmodel"
WEIGHT_FILE = "Data/com.apple.CoreML/weights/weight.bin"
# iOS 26, coremltools 9.0's _SPECIFICATION_VERSION_IOS_26; what a later one means is not known.
NEWEST_SPECIFICATION = 10
# MIL's blob storage: each record of weight.bin starts with this word (coremltools, mlmodel/src/MILBlob).
SENTINEL = 0xDEADBEEF
RECORD = np.dtype([("sentinel", "<u4"), ("type", "<u4"), ("num_bytes", "<u8"), ("offset", "<u8")])


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPort:
    """An input or output of a package."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """The facts of a package.

    Attributes:
        specification: Specification version; 9 is iOS 18.
        inputs: In call order.
        outputs: In order.
        operations: Count by type, constants left out.
        output_dtypes: Types of results by operation type: ``{"sin": {"float32"}}``.
        largest_rank: Largest number of axes of any result.
        constants: SHA-256 of the bytes of every stored constant tensor in float16.
        weight_bytes: Bytes of all constants in the weight file, each counted once.
        metadata: Key and text of the user's own entries.
    """

    specification: int
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]
    operations: dict[str, int]
    output_dtypes: dict[str, frozenset[str]]
    largest_rank: int
    constants: frozenset[str]
    weight_bytes: int
    metadata: dict[str, str]


def read_package(path: Path) -> Package:
    """Read a saved ML Program.

    Raises:
        InputError: A file is missing or damaged, or the package holds no ML Program.
        UnavailableError: coremltools, whose protobuf classes are used, is not installed.
    """
    specification = read_specification(path)
    description = specification.description
    operations: Counter[str] = Counter()
    dtypes: dict[str, set[str]] = {}
    constants: set[str] = set()
    blobs: dict[int, int] = {}
    largest_rank = 0
    weights = _weights(path)
    for operation in _operations(specification, path):
        if operation.type == "const":
            constants.update(_constant(operation, weights, blobs, path))
            continue
        operations[operation.type] += 1
        for output in operation.outputs:
            largest_rank = max(largest_rank, output.type.tensorType.rank)
            dtypes.setdefault(operation.type, set()).add(_dtype_name(output.type.tensorType))
    return Package(
        specification=specification.specificationVersion,
        inputs=tuple(_port(port) for port in description.input),
        outputs=tuple(_port(port) for port in description.output),
        operations=dict(operations.most_common()),
        output_dtypes={name: frozenset(found) for name, found in dtypes.items()},
        largest_rank=largest_rank,
        constants=frozenset(constants),
        weight_bytes=sum(blobs.values()),
        metadata=dict(description.metadata.userDefined),
    )


def digest_tensor(values: np.ndarray[Any, Any]) -> str:
    """Return the SHA-256 of a tensor's bytes in C order, as ``Package.constants`` holds them."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def read_specification(path: Path) -> Any:
    """Parse a package's protobuf.

    Raises:
        InputError: A file is missing or damaged, or the package holds no ML Program.
        UnavailableError: coremltools is missing, or the specification is newer than ``NEWEST_SPECIFICATION``.
    """
    load_coremltools()
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    _require_manifest(path)
    specification = Model_pb2.Model()
    try:
        specification.ParseFromString((path / MODEL_FILE).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: no readable {MODEL_FILE}: {error.strerror or error}") from error
    except DecodeError as error:
        raise InputError(f"{path / MODEL_FILE}: damaged: {error}", hint="export again") from error
    kind = specification.WhichOneof("Type")
    if kind is None:
        raise InputError(f"{path / MODEL_FILE}: holds no model of a known kind: empty or damaged", hint="export again")
    if kind != "mlProgram":
        raise InputError(
            f"{path}: holds a model of kind {kind!r}, needs an ML Program",
            hint="convert it again with convert_to='mlprogram'",
        )
    if specification.specificationVersion > NEWEST_SPECIFICATION:
        raise UnavailableError(
            f"{path}: specification {specification.specificationVersion}, known here up to {NEWEST_SPECIFICATION}",
            hint="update this toolkit, or export with an older minimum_os",
        )
    return specification


def _require_manifest(path: Path) -> None:
    """Let a folder pass only when its manifest leads to the model, as Core ML follows it."""
    if not path.exists():
        raise InputError(f"{path}: there is no such package")
    if not path.is_dir():
        raise InputError(
            f"{path}: is one file; an ML Program is a folder named .mlpackage",
            hint="convert it again with convert_to='mlprogram'" if path.suffix == ".mlmodel" else None,
        )
    manifest = path / MANIFEST_FILE
    try:
        body = json.loads(manifest.read_bytes())
        entry = body["itemInfoEntries"][body["rootModelIdentifier"]]["path"]
    except OSError as error:
        raise InputError(f"{path}: no readable {MANIFEST_FILE}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{manifest}: damaged: no path of the model in it", hint="export again") from error
    if f"Data/{entry}" != MODEL_FILE:
        raise InputError(f"{manifest}: leads to {entry!r}, needs {MODEL_FILE.removeprefix('Data/')!r}")


def _operations(specification: Any, path: Path) -> Iterator[Any]:
    functions = specification.mlProgram.functions
    if "main" not in functions or len(functions["main"].block_specializations) != 1:
        raise InputError(f"{path}: needs one function 'main' with one block, has {sorted(functions)}")
    (block,) = functions["main"].block_specializations.values()
    yield from block.operations


def _weights(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        return np.memmap(path / WEIGHT_FILE, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:  # ValueError: the file is empty
        raise InputError(f"{path}: no readable {WEIGHT_FILE}: {error}", hint="export again") from error


def _constant(
    operation: Any, weights: np.ndarray[Any, np.dtype[np.uint8]], blobs: dict[int, int], path: Path
) -> Iterator[str]:
    value = operation.attributes["val"]
    if value.WhichOneof("value") == "immediateValue":
        stored = value.immediateValue.tensor.bytes.values  # float16 is stored as bytes
        if stored:
            yield hashlib.sha256(stored).hexdigest()
        return
    at = value.blobFileValue.offset
    if at in blobs:
        return
    where = f"{path / WEIGHT_FILE}: record at byte {at}"
    if at + RECORD.itemsize > weights.size:
        raise InputError(f"{where} lies behind the end of the file ({weights.size} bytes)", hint="export again")
    record = np.frombuffer(weights[at : at + RECORD.itemsize].tobytes(), dtype=RECORD)[0]
    start, length = int(record["offset"]), int(record["num_bytes"])
    if record["sentinel"] != SENTINEL or start + length > weights.size:
        raise InputError(f"{where} is damaged", hint="export again")
    blobs[at] = length
    yield hashlib.sha256(weights[start : start + length].data).hexdigest()


def _port(port: Any) -> TensorPort:
    array = port.type.multiArrayType
    name = array.DESCRIPTOR.enum_types_by_name["ArrayDataType"].values_by_number[array.dataType].name
    return TensorPort(name=port.name, shape=tuple(array.shape), dtype=name.lower())


def _dtype_name(tensor_type: Any) -> str:
    field = tensor_type.DESCRIPTOR.fields_by_name["dataType"]
    return str(field.enum_type.values_by_number[tensor_type.dataType].name).lower()
