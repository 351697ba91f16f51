"""A package as two that are called in a row, for a phone's limits on a file or on the weights of one program.

The program is cut in its protobuf and the records of the weight file are copied as they are, compressed or not: every
weight stays what it was to the bit, tensors that cross the cut stay float16, and no weight is ever decoded. The
``bisect_model`` of coremltools decodes all of them and hands float32 across.

coremltools is imported inside functions: it costs seconds and only packages need it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nas.core.errors import VerificationError
from nas.export.mil.executor import is_constant
from nas.export.mil.program import read_program
from nas.export.package import RECORD, WEIGHT_FILE, read_specification
from nas.export.shims import load_coremltools

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nas.export.mil.program import Function, Operation

# Weights of one program on the Neural Engine of an iPhone stay below 1 GB, unless they have 6 bits or fewer (Apple's
# ml-stable-diffusion, README on chunked UNets).
CHUNK_MB = 1000.0
# The larger part holds at most this share of the weights; within it, the cut that fewest bytes cross is taken.
LARGEST_SHARE = 0.55
# Types that inputs and outputs of a package may have, under the names of the model description.
PORT_TYPES = {"float16": "FLOAT16", "float32": "FLOAT32", "int32": "INT32"}
RECORD_BYTES = 64  # MIL's blob storage: header, records and data begin at multiples of it
VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where a program is cut: after ``position`` computing operations; ``crossing`` are the tensors handed on."""

    position: int
    first_share: float
    crossing: tuple[str, ...]
    crossing_bytes: int


def num_chunks(setting: Literal["auto", 1, 2], package_bytes: int, *, chunk_mb: float) -> int:
    """Return how many packages ``export.chunks`` asks for; ``auto`` is two above ``chunk_mb`` million bytes."""
    if setting != "auto":
        return setting
    return 2 if package_bytes > chunk_mb * 1e6 else 1


def split_package(path: Path) -> tuple[Path, Path]:
    """Replace ``NAME.mlpackage`` by ``NAME_1of2.mlpackage`` and ``NAME_2of2.mlpackage`` beside it.

    The first takes what it needs of the inputs and gives the tensors that cross the cut; the second takes these and
    what it needs of the inputs, and gives the outputs. All are matched by name.

    Raises:
        InputError: The package is damaged or holds no ML Program.
        VerificationError: It has one operation, or nested blocks.
    """
    program = read_program(path)
    function = program.function()
    cut = find_cut(function, path)
    computing = [item for item in function.operations if not is_constant(item)]
    parts = (computing[: cut.position], computing[cut.position :])
    outputs = (cut.crossing, function.outputs)
    targets = tuple(path.with_name(f"{path.stem}_{number}of2{path.suffix}") for number in (1, 2))
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as work:
        for number, (operations, names, target) in enumerate(zip(parts, outputs, targets, strict=True), start=1):
            specification = _part(path, function, operations, outputs=names, number=number)
            weights = Path(work) / str(number) / "weights"
            _copy_weights(path, specification, weights)
            load_coremltools().utils.save_spec(specification, str(Path(work) / target.name), weights_dir=str(weights))
        for target in targets:
            (Path(work) / target.name).rename(target)
    shutil.rmtree(path)
    return targets[0], targets[1]


def find_cut(function: Function, path: Path) -> Cut:
    """Return the cut that leaves about half of the weights on each side and that fewest bytes cross.

    Raises:
        VerificationError: The program cannot be cut.
    """
    computing = [item for item in function.operations if not is_constant(item)]
    if len(computing) < 2 or any(item.blocks for item in function.operations):
        raise VerificationError(f"{path}: cannot be cut in two: it has nested blocks, or a single operation")
    sums = list(accumulate(_new_weight_bytes(function, computing)))
    last_use = {name: place for place, item in enumerate(computing) for name in item.used_names()}
    types = {port.name: port.type for item in computing for port in item.outputs}
    first_output = min(
        place for place, item in enumerate(computing) if {port.name for port in item.outputs} & {*function.outputs}
    )
    cuts = []
    for position in range(1, max(first_output, 1) + 1):
        made = [port.name for item in computing[:position] for port in item.outputs]
        crossing = tuple(name for name in made if last_use.get(name, -1) >= position)
        share = sums[position - 1] / max(sums[-1], 1)
        size = sum(types[name].num_bytes for name in crossing)
        if all(types[name].element.name in PORT_TYPES for name in crossing):
            cuts.append(Cut(position=position, first_share=share, crossing=crossing, crossing_bytes=size))
    even = [cut for cut in cuts if max(cut.first_share, 1 - cut.first_share) <= LARGEST_SHARE]
    if even:
        return min(even, key=lambda cut: (cut.crossing_bytes, abs(cut.first_share - 0.5)))
    return min(cuts, key=lambda cut: abs(cut.first_share - 0.5))


def _new_weight_bytes(function: Function, computing: list[Operation]) -> Iterator[int]:
    """Yield for every operation the bytes of the constants that it is the first to read."""
    constants = _constants(function)
    seen: set[str] = set()
    for item in computing:
        names = _constants_of([item], constants) - seen
        seen |= names
        # Compressed weights count as stored: by the constants that they are decompressed from.
        stored = (constants[name] for name in names if constants[name].type == "const")
        yield sum(port.type.num_bytes for constant in stored for port in constant.outputs)


def _constants(function: Function) -> dict[str, Operation]:
    """Constants by the name of their result; of strings the port is not kept, and the name is that of the operation."""
    found = [item for item in function.operations if is_constant(item)]
    return {name: item for item in found for name in (item.name, *(port.name for port in item.outputs))}


def _constants_of(operations: Sequence[Operation], constants: Mapping[str, Operation]) -> set[str]:
    """Names of all constants that operations read, those behind compressed ones included."""
    found: set[str] = set()
    waiting = [name for item in operations for name in item.used_names() if name in constants]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [other for other in constants[name].used_names() if other in constants]
    return found


def _part(path: Path, function: Function, operations: list[Operation], *, outputs: Sequence[str], number: int) -> Any:
    """The specification of one part: its operations, the constants they read, its inputs and outputs."""
    specification = read_specification(path)
    constants = _constants(function)
    kept = {item.index for item in operations}
    kept |= {constants[name].index for name in _constants_of(operations, constants)}
    made = {port.name for item in operations for port in item.outputs}
    used = {name for item in operations for name in item.used_names()} - made - constants.keys()
    types = {port.name: port.type for port in function.inputs}
    types |= {port.name: port.type for item in function.operations for port in item.outputs}

    message = specification.mlProgram.functions[function.name]
    block = message.block_specializations[message.opset]
    messages = {port.name: port.type for port in message.inputs}
    messages |= {port.name: port.type for item in block.operations for port in item.outputs}
    inputs = [name for name in (*(port.name for port in function.inputs), *messages) if name in used]
    ports = [(name, messages[name]) for name in dict.fromkeys(inputs)]
    operations_kept = [item for index, item in enumerate(block.operations) if index in kept]
    fresh_inputs = [type(message.inputs[0])(name=name, type=kind) for name, kind in ports]
    del block.operations[:], block.outputs[:], message.inputs[:]
    block.operations.extend(operations_kept)
    block.outputs.extend(outputs)
    message.inputs.extend(fresh_inputs)
    _describe(specification.description, [name for name, _ in ports], outputs, types=types, number=number)
    return specification


def _describe(
    description: Any, inputs: Sequence[str], outputs: Sequence[str], *, types: Mapping[str, Any], number: int
) -> None:
    known = {port.name: port for port in (*description.input, *description.output)}
    for ports, names in ((description.input, inputs), (description.output, outputs)):
        fresh = []
        for name in names:
            port = type(description.input[0])(name=name)
            if name in known:
                port.CopyFrom(known[name])
            else:
                port.shortDescription = "Handed from the first part to the second."
                array = port.type.multiArrayType
                array.shape.extend(types[name].shape)
                array.dataType = array.ArrayDataType.Value(PORT_TYPES[types[name].element.name])
            fresh.append(port)
        del ports[:]
        ports.extend(fresh)
    description.metadata.shortDescription += f" Part {number} of 2."


def _copy_weights(path: Path, specification: Any, folder: Path) -> None:
    """Write the records that a part refers to into a weight file of its own and change the references."""
    folder.mkdir(parents=True)
    weights = np.memmap(path / WEIGHT_FILE, dtype=np.uint8, mode="r")
    places: dict[int, int] = {}
    with (folder / Path(WEIGHT_FILE).name).open("wb") as file:
        file.write(bytes(RECORD_BYTES))
        for value in _blob_values(specification):
            at = value.offset
            if at not in places:
                places[at] = file.tell()
                record = bytearray(weights[at : at + RECORD_BYTES].tobytes())
                header = np.frombuffer(record, dtype=RECORD, count=1)[0]
                start, length = int(header["offset"]), int(header["num_bytes"])
                record[16:24] = (places[at] + RECORD_BYTES).to_bytes(8, "little")  # where the data begins
                file.write(record)
                file.write(weights[start : start + length].data)
                file.write(bytes(-file.tell() % RECORD_BYTES))
            value.offset = places[at]
        file.seek(0)
        file.write(len(places).to_bytes(4, "little") + VERSION.to_bytes(4, "little"))


def _blob_values(specification: Any) -> Iterator[Any]:
    """Yield every reference into the weight file."""
    for function in specification.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                values = list(operation.attributes.values())
                for argument in operation.inputs.values():
                    values += [item.value for item in argument.arguments if item.WhichOneof("binding") == "value"]
                yield from (value.blobFileValue for value in values if value.WhichOneof("value") == "blobFileValue")
