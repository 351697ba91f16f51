"""Memory that a program needs, read from its shapes; nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from nas.export.mil.executor import is_constant, last_uses
from nas.export.mil.values import Constant

if TYPE_CHECKING:
    from nas.export.mil.program import Program

# Results that are another view of their input's memory.
VIEWS = frozenset({"reshape", "expand_dims", "squeeze", "identity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPeak:
    """The moment with most activations alive.

    Attributes:
        num_bytes: Bytes of all that is alive there, in the types of the program.
        location: The operation under way.
        tensors: Name and bytes of what is alive, largest first.
    """

    num_bytes: int
    location: str
    tensors: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBytes:
    """Bytes of constants: in the weight file, each counted once, and after decompression."""

    stored: int
    decompressed: int


def activation_peak(program: Program, function: str | None = None) -> ActivationPeak:
    """Return the largest sum of live activations over the operations of a function, in program order.

    A tensor lives from the operation that makes it to the last one that reads it; inputs live from the start and
    outputs to the end. While an operation runs, what it reads and what it makes are both alive. Results of ``VIEWS``
    share the memory of what they view. Constants, scratch memory and alignment are not counted, nor does the order of
    the program bind a runtime: this is what the program asks for, not what a device takes.
    """
    chosen = program.function(function)
    owner: dict[str, str] = {port.name: port.name for port in chosen.inputs}
    sizes = {port.name: port.type.num_bytes for port in chosen.inputs}
    for operation in chosen.operations:
        if is_constant(operation):
            continue
        viewed = next((name for name in operation.used_names() if name in owner), None)
        for port in operation.outputs:
            shares = operation.type in VIEWS and viewed is not None
            owner[port.name] = owner[viewed] if shares and viewed else port.name
            if not shares:
                sizes[port.name] = port.type.num_bytes
    ends: dict[str, int] = {}
    for name, index in last_uses(chosen).items():
        if name in owner:
            ends[owner[name]] = max(ends.get(owner[name], 0), index)
    live = {name: sizes[name] for name in sizes if name in {port.name for port in chosen.inputs}}
    peak = ActivationPeak(num_bytes=sum(live.values()), location="inputs", tensors=_largest_first(live))
    for operation in chosen.operations:
        if is_constant(operation):
            continue
        live |= {port.name: sizes[port.name] for port in operation.outputs if owner[port.name] == port.name}
        if sum(live.values()) > peak.num_bytes:
            peak = ActivationPeak(
                num_bytes=sum(live.values()), location=operation.location, tensors=_largest_first(live)
            )
        touched = {owner[name] for name in operation.used_names() if name in owner}
        touched |= {owner[port.name] for port in operation.outputs}
        for name in touched:
            if ends.get(name, operation.index) <= operation.index:
                live.pop(name, None)
    return peak


def weight_bytes(program: Program, function: str | None = None) -> WeightBytes:
    """Return the bytes of the weights of a function as stored and as an operation reads them.

    Counted are constants in the weight file; short ones in the protobuf (shapes, axes) are not.
    """
    chosen = program.function(function)
    constants = [operation for operation in chosen.operations if is_constant(operation)]
    compressed = [operation for operation in constants if operation.type != "const"]
    packed = {name for operation in compressed for name in operation.used_names()}
    stored: dict[str, int] = {}
    plain: dict[str, int] = {}
    for operation in constants:
        tensors = [operation.value, *chain.from_iterable(operation.inputs.values())]
        sizes = {item.where: item.type.num_bytes for item in tensors if isinstance(item, Constant) and item.in_file}
        stored |= sizes
        if operation.type == "const" and not packed & {port.name for port in operation.outputs}:
            plain |= sizes
    dense = sum(
        port.type.num_bytes for operation in compressed for port in operation.outputs if port.name not in packed
    )
    return WeightBytes(stored=sum(stored.values()), decompressed=sum(plain.values()) + dense)


def _largest_first(live: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(live.items(), key=lambda item: (-item[1], item[0])))
