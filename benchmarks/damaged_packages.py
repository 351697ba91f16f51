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
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.damages import KINDS
from nas.core.errors import NasError
from nas.core.files import write_json, write_text_atomically
from nas.core.provenance import host, timestamp, versions
from nas.export.checks import check_package
from nas.export.component import Component, InputPort, OutputPort
from nas.export.coreml import convert, save
from nas.export.mil import compare_outputs, execute, read_program
from nas.export.package import read_package
from nas.export.parity import compare_with_reference, compute_parity, parity_checks
from nas.export.trace import trace
from nas.export.verification import Reference, read_reference, reference_path
from nas.pipeline.verify_package import VerifyOptions, verify_exported

MAX_SECONDS = 60.0  # of one case, both ways; longer counts as a hang and ends the benchmark


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
