"""Ways to damage a saved package: of its protobuf, its weight file and its folder, each drawn by a seeded generator."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.export.package import MANIFEST_FILE, MODEL_FILE, WEIGHT_FILE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

HUGE = 1 << 40


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    from coremltools.proto import Model_pb2

    message = Model_pb2.Model()
    message.ParseFromString((path / MODEL_FILE).read_bytes())
    change(message)
    (path / MODEL_FILE).write_bytes(message.SerializeToString())


def _operations(message: Any, kind: str = "") -> list[Any]:
    (block,) = message.mlProgram.functions["main"].block_specializations.values()
    return [item for item in block.operations if not kind or item.type == kind]


def _computing(message: Any) -> list[Any]:
    return [item for item in _operations(message) if item.type != "const"]


def _stored(message: Any) -> list[Any]:
    values = [item.attributes["val"] for item in _operations(message, "const")]
    return [item for item in values if item.WhichOneof("value") == "blobFileValue"]


def _immediate_ints(message: Any) -> list[Any]:
    values = [item.attributes["val"].immediateValue.tensor for item in _operations(message, "const")]
    return [item.ints.values for item in values if item.WhichOneof("value") == "ints"]


def _file_edit(name: str, change: Callable[[bytearray, Random], bytes | bytearray]) -> Callable[[Path, Random], None]:
    def damage(path: Path, random: Random) -> None:
        file = path / name
        file.write_bytes(change(bytearray(file.read_bytes()), random))

    return damage


def _program_edit(change: Callable[[Any, Random], None]) -> Callable[[Path, Random], None]:
    return lambda path, random: _edit(path, lambda message: change(message, random))


def _cut(data: bytearray, random: Random) -> bytearray:
    return data[: random.randrange(len(data))]


def _flip(data: bytearray, random: Random) -> bytearray:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return data


def _records(data: bytearray) -> list[int]:
    mark = (0xDEADBEEF).to_bytes(4, "little")
    return [at for at in range(0, len(data) - 24, 64) if data[at : at + 4] == mark]


def _flip_record(data: bytearray, random: Random) -> bytearray:
    data[random.choice(_records(data)) + random.randrange(24)] ^= 1 << random.randrange(8)
    return data


def _type_code(data: bytearray, random: Random) -> bytearray:
    data[random.choice(_records(data)) + 4] = random.choice([0, 2, 3, 8, 99])
    return data


def _nan(data: bytearray, random: Random) -> bytearray:
    at = random.choice(_records(data))
    size, start = (int.from_bytes(data[at + place : at + place + 8], "little") for place in (8, 16))
    place = start + 2 * random.randrange(size // 2)
    data[place : place + 2] = np.array([np.nan], dtype=np.float16).tobytes()
    return data


def _swap(message: Any, random: Random) -> None:
    one, other = random.sample(_stored(message), 2)
    one.blobFileValue.offset, other.blobFileValue.offset = other.blobFileValue.offset, one.blobFileValue.offset


def _shape(message: Any, random: Random) -> None:
    output = random.choice(_computing(message)).outputs[0]
    dimension = random.choice(output.type.tensorType.dimensions)
    dimension.constant.size += random.choice([1, 7])


def _constant_shape(message: Any, random: Random) -> None:
    dimension = random.choice(random.choice(_stored(message)).type.tensorType.dimensions)
    dimension.constant.size *= 2


def _absurd_result(message: Any, random: Random) -> None:
    for dimension in random.choice(_computing(message)).outputs[0].type.tensorType.dimensions:
        dimension.constant.size = HUGE


def _absurd_input(message: Any, _: Random) -> None:
    message.mlProgram.functions["main"].inputs[0].type.tensorType.dimensions[0].constant.size = HUGE
    message.description.input[0].type.multiArrayType.shape[0] = HUGE


def _huge_number(message: Any, random: Random) -> None:
    values = random.choice(_immediate_ints(message))
    values[random.randrange(len(values))] = random.choice([1 << 30, -(1 << 30), 2**31 - 1])


def _many_numbers(message: Any, random: Random) -> None:
    random.choice(_immediate_ints(message)).extend([1] * 1_000_000)


def _element(message: Any, random: Random) -> None:
    random.choice(_computing(message)).outputs[0].type.tensorType.dataType = random.choice([0, 2, 11, 23, 99])


def _binding(message: Any, random: Random) -> Any:
    bound = [
        item
        for operation in _computing(message)
        for argument in operation.inputs.values()
        for item in argument.arguments
        if item.WhichOneof("binding") == "name"
    ]
    return random.choice(bound)


def _unknown_name(message: Any, random: Random) -> None:
    _binding(message, random).name = "nowhere"


def _cycle(message: Any, random: Random) -> None:
    operations = _computing(message)
    place = random.randrange(len(operations) - 1)
    chosen = operations[place]
    next(iter(chosen.inputs.values())).arguments[0].name = (
        operations[random.randrange(place, len(operations))].outputs[0].name
    )


def _other_name(message: Any, random: Random) -> None:
    binding = _binding(message, random)
    names = [item.outputs[0].name for item in _operations(message) if item.outputs]
    binding.name = random.choice([name for name in names if name != binding.name])


def _kind(message: Any, random: Random) -> None:
    random.choice(_computing(message)).type = "teleport"


def _drop(message: Any, random: Random) -> None:
    (block,) = message.mlProgram.functions["main"].block_specializations.values()
    del block.operations[random.randrange(len(block.operations))]


def _twice(message: Any, random: Random) -> None:
    (block,) = message.mlProgram.functions["main"].block_specializations.values()
    block.operations.add().CopyFrom(random.choice(list(block.operations)))


def _renamed_input(message: Any, random: Random) -> None:
    where = random.choice([message.mlProgram.functions["main"].inputs[0], message.description.input[0]])
    where.name = "picture"


def _renamed_output(message: Any, _: Random) -> None:
    message.description.output[0].name = "picture"


def _beyond(message: Any, random: Random) -> None:
    random.choice(_stored(message)).blobFileValue.offset = random.choice([64 * (1 << 30), 65, 2**62])


def _outside(message: Any, random: Random) -> None:
    random.choice(_stored(message)).blobFileValue.fileName = "@model_path/../../../../weight.bin"


def _newer(message: Any, random: Random) -> None:
    message.specificationVersion += random.choice([5, 100])


def _network_kind(message: Any, _: Random) -> None:
    message.neuralNetwork.layers.add().name = "layer"


def _opset(message: Any, _: Random) -> None:
    message.mlProgram.functions["main"].opset = "CoreML99"


def _remove(name: str) -> Callable[[Path, Random], None]:
    return lambda path, _: (path / name).unlink()


def _empty(name: str) -> Callable[[Path, Random], None]:
    def damage(path: Path, _: Random) -> None:
        (path / name).write_bytes(b"")

    return damage


def _manifest(path: Path, random: Random) -> None:
    body = json.loads((path / MANIFEST_FILE).read_text())
    if random.random() < 0.5:
        body["rootModelIdentifier"] = "none"
    else:
        body["itemInfoEntries"][body["rootModelIdentifier"]]["path"] = "com.apple.CoreML/other.mlmodel"
    (path / MANIFEST_FILE).write_text(json.dumps(body))


def _one_file(path: Path, _: Random) -> None:
    data = (path / MODEL_FILE).read_bytes()
    shutil.rmtree(path)
    path.write_bytes(data)


KINDS: dict[str, Callable[[Path, Random], None]] = {
    "program cut off": _file_edit(MODEL_FILE, _cut),
    "weights cut off": _file_edit(WEIGHT_FILE, _cut),
    "bit flipped in the program": _file_edit(MODEL_FILE, _flip),
    "bit flipped in a weight record": _file_edit(WEIGHT_FILE, _flip_record),
    "bit flipped in the weight file": _file_edit(WEIGHT_FILE, _flip),
    "wrong type code in a record": _file_edit(WEIGHT_FILE, _type_code),
    "a weight is no number": _file_edit(WEIGHT_FILE, _nan),
    "two weights swapped": _program_edit(_swap),
    "result of another shape stated": _program_edit(_shape),
    "weight of another shape stated": _program_edit(_constant_shape),
    "absurd result shape": _program_edit(_absurd_result),
    "absurd input shape": _program_edit(_absurd_input),
    "huge number in a parameter": _program_edit(_huge_number),
    "a million numbers in a parameter": _program_edit(_many_numbers),
    "result of another element type": _program_edit(_element),
    "unknown name read": _program_edit(_unknown_name),
    "later result read": _program_edit(_cycle),
    "another result read": _program_edit(_other_name),
    "unknown operation": _program_edit(_kind),
    "operation missing": _program_edit(_drop),
    "operation twice": _program_edit(_twice),
    "input renamed on one side": _program_edit(_renamed_input),
    "output renamed on one side": _program_edit(_renamed_output),
    "weight behind the end of the file": _program_edit(_beyond),
    "weight file outside the package": _program_edit(_outside),
    "newer specification": _program_edit(_newer),
    "neural network, not ML Program": _program_edit(_network_kind),
    "unknown opset": _program_edit(_opset),
    "no program file": _remove(MODEL_FILE),
    "no weight file": _remove(WEIGHT_FILE),
    "no manifest": _remove(MANIFEST_FILE),
    "empty program file": _empty(MODEL_FILE),
    "empty weight file": _empty(WEIGHT_FILE),
    "manifest leads nowhere": _manifest,
    "one file, not a folder": _one_file,
}
