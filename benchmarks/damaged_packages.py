"""Packages damaged in 200 ways: each must give a clear error or be found to differ, never hang, never be verified.

    python benchmarks/damaged_packages.py --out benchmarks/results [--cases 200]

A small network is exported once; every case damages a copy and verifies it twice: with what the export recorded beside
it (bound by digest), and against the network alone, which knows no digest. A change that the second way lets pass must
leave every output as it was, or within what a float16 package may differ by. Writes ``damaged_packages.json`` and
``damaged_packages.md``.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.core.errors import NasError
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.export.checks import check_package
from nas.export.component import Component, InputPort, OutputPort
from nas.export.coreml import convert, save
from nas.export.mil import compare_outputs, execute, read_program
from nas.export.package import MANIFEST_FILE, MODEL_FILE, WEIGHT_FILE, read_package
from nas.export.parity import compare_with_reference, compute_parity, parity_checks
from nas.export.trace import trace
from nas.export.verification import Reference, read_reference, reference_path
from nas.pipeline.verify_package import VerifyOptions, verify_exported

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SECONDS = 60.0  # of one case, both ways; longer counts as a hang and ends the benchmark
HUGE = 1 << 40


class SmallNetwork(nn.Module):
    """Convolution, group norm, attention and a linear layer: every way a weight is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.conv_out = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """An image (B, C, H, W) of the same shape."""
        hidden = torch.nn.functional.silu(self.norm(self.conv_in(image)))
        tokens = hidden.flatten(2).transpose(1, 2)
        query, key, value = self.qkv(tokens).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        result: Tensor = self.conv_out(tokens.transpose(1, 2).reshape(hidden.shape))
        return result


def small_component() -> Component:
    """Return the network that is damaged, with seeded weights."""
    torch.manual_seed(0)
    module = SmallNetwork().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return Component(
        name="network",
        module=module,
        inputs=(InputPort(name="image", shape=(1, 4, 8, 8), text="Image."),),
        outputs=(OutputPort(name="result", text="Image."),),
    )


@dataclass(frozen=True, slots=True)
class Source:
    """The undamaged package, what it was made from and what it must give."""

    path: Path
    component: Component
    reference: Reference


def make_source(folder: Path) -> Source:
    """Export the network and record its outputs."""
    component, path = small_component(), folder / "network.mlpackage"
    save(convert(trace(component), component), path)
    compute_parity(path, component, record=reference_path(path))
    return Source(path, component, read_reference(reference_path(path)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What verification said of one damaged package.

    Attributes:
        recorded: With the recorded outputs: ``exit 3``, or a verdict.
        alone: Against the network alone: ``exit 3``, ``differs``, ``same outputs`` (bit for bit) or ``below the
            limits`` (outputs differ by less than float16 packages may).
        message: The first error.
        seconds: CPU seconds of both.
    """

    case: str
    recorded: str
    alone: str
    message: str
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether it was not called verified, and the error says why."""
        return self.recorded != "verified" and bool(self.message)


def outcome(case: str, path: Path, source: Source) -> Outcome:
    """Verify a damaged package in both ways; shown is what the second says, which knows no digest."""
    begun = time.process_time()
    recorded, message = _recorded(path)
    alone, second = _alone(path, source)
    return Outcome(case, recorded, alone, second or message, round(time.process_time() - begun, 2))


def _recorded(path: Path) -> tuple[str, str]:
    try:
        (found,) = verify_exported(str(path), VerifyOptions())
    except NasError as error:
        return f"exit {error.exit_code}", error.message
    return found.verdict, ""


def _alone(path: Path, source: Source) -> tuple[str, str]:
    try:
        program = read_program(path)
        report = compare_with_reference([program], source.reference)
        checks = (*check_package(read_package(path), source.component), *parity_checks(report))
        if not all(check.passed for check in checks):
            return "differs", "; ".join(f"{item.name}: {item.found}" for item in checks if not item.passed)
        ours, whole = (execute(item, source.reference.inputs) for item in (program, read_program(source.path)))
        worst = max(item.max_relative for item in compare_outputs(whole, ours))
    except NasError as error:
        return f"exit {error.exit_code}", error.message
    return ("below the limits", f"outputs differ by {worst:.1e}") if worst else ("same outputs", "")


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


# What a kind damages is drawn; of the others one or two forms exist.
DRAWN = (
    "program cut off",
    "weights cut off",
    "bit flipped in the program",
    "bit flipped in a weight record",
    "bit flipped in the weight file",
    "huge number in a parameter",
    "another result read",
    "result of another element type",
    "two weights swapped",
)


def cases(count: int) -> list[tuple[str, int]]:
    """Return kind and seed of every case: every kind twice, then those that chance decides in turn."""
    kinds = [*KINDS, *KINDS, *(DRAWN * (count // len(DRAWN)))][:count]
    return [(kind, kinds[:number].count(kind)) for number, kind in enumerate(kinds)]


def damaged(source: Source, folder: Path, kind: str, seed: int) -> Path:
    """Return a copy of the package and of what is recorded beside it, damaged."""
    folder.mkdir(parents=True)
    path = shutil.copytree(source.path, folder / source.path.name)
    shutil.copytree(source.path.parent / "verification", folder / "verification")
    KINDS[kind](path, Random(f"{kind} {seed}"))
    return path


def main() -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and Markdown")
    parser.add_argument("--cases", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        source = make_source(Path(folder))
        for number, (kind, seed) in enumerate(cases(options.cases)):
            faulthandler.dump_traceback_later(MAX_SECONDS * 5, exit=True)  # five: the machine may be shared
            path = damaged(source, Path(folder) / str(number), kind, seed)
            outcomes.append(outcome(kind, path, source))
            faulthandler.cancel_dump_traceback_later()
            shutil.rmtree(Path(folder) / str(number))
            print(f"{number} {outcomes[-1]}", file=sys.stderr, flush=True)
    result = {
        "schema": "nas/benchmark_damaged_packages/1",
        "created_at": timestamp(),
        "command": f"python benchmarks/damaged_packages.py --cases {options.cases}",
        "outcomes": [asdict(item) | {"sound": item.sound} for item in outcomes],
        "versions": versions(),
        "host": {key: value for key, value in host().items() if key != "name"},
    }
    write_json(options.out / "damaged_packages.json", result)
    write_text_atomically(options.out / "damaged_packages.md", markdown(result))
    print(markdown(result))
    sys.exit(0 if all(item.sound for item in outcomes) else 1)


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a small page."""
    rows = result["outcomes"]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault(row["case"], []).append(row)
    sound, slowest = sum(row["sound"] for row in rows), max(row["seconds"] for row in rows)
    lines = [
        "# Damaged packages",
        "",
        f"{len(rows)} damaged copies of a small package, {sound} found out; none ended in another error than the",
        f"toolkit's own, and the slowest took {slowest:.1f} CPU seconds for both ways of verifying it:",
        "",
        "- *recorded*: with the outputs that the export recorded beside it, bound to the package by SHA-256;",
        "- *network alone*: against the network, knowing no digest. `same outputs` are changes of bytes that nothing",
        "  computes with (texts, padding, unread constants): every output is bit for bit that of the whole package.",
        "  `below the limits` are changes of a constant that is no parameter and that outputs show by less than a",
        f"  float16 package may differ: {_smallest(rows)}; only the digest tells.",
        "",
        "| damage | cases | recorded | network alone | an error as printed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, items in by_kind.items():
        ways = [_counted(row[way] for row in items) for way in ("recorded", "alone")]
        message = items[0]["message"].replace("|", "\\|")
        lines.append(f"| {kind} | {len(items)} | {ways[0]} | {ways[1]} | {_without_folder(message)[:150]} |")
    used = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    lines += [
        "",
        f"Repeat: `{result['command']} --out DIR`; seeds 0, 1, ... per kind. {result['created_at'][:10]}; "
        f"{result['host']['processor']}, {result['host']['logical_processors']} logical processors, {used}.",
    ]
    return "\n".join(lines) + "\n"


def _smallest(rows: list[dict[str, Any]]) -> str:
    found = [row["message"].removeprefix("outputs differ by ") for row in rows if row["alone"] == "below the limits"]
    return f"{', '.join(found)} of the largest value" if found else "none here"


def _counted(words: Any) -> str:
    return ", ".join(f"{word} ({count})" for word, count in sorted(Counter(words).items()))


def _without_folder(message: str) -> str:
    return " ".join(word.rpartition("/")[2] if word.startswith("/") else word for word in message.split())


if __name__ == "__main__":
    main()
