"""Memory that a program needs, read from its shapes; nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Literal

from nas.export.mil.executor import is_constant, last_uses
from nas.export.mil.values import Constant

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from nas.export.mil.program import Operation, Program
    from nas.export.mil.values import TensorType

WeightForm = Literal["plain", "palettised", "linear", "blockwise", "sparse"]
# Form by the operation that expands it; those of iOS 18 with a block smaller than a channel are blockwise.
_FORMS: dict[str, WeightForm] = {
    "constexpr_lut_to_dense": "palettised",
    "constexpr_lut_to_sparse": "palettised",
    "constexpr_affine_dequantize": "linear",
    "constexpr_blockwise_shift_scale": "linear",
    "constexpr_sparse_blockwise_shift_scale": "linear",
    "constexpr_sparse_to_dense": "sparse",
}

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
class FormBytes:
    """Weights of one form: elements, their bytes as stored (tables and scales too) and at 16 bits or as plain."""

    form: WeightForm
    elements: int
    stored_bytes: int
    dense_bytes: int
    dtype: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBytes:
    """Bytes of constants: in the weight file, each counted once, and after decompression; the same by form."""

    stored: int
    decompressed: int
    forms: tuple[FormBytes, ...]

    def resident(self, streamed_forms: Container[str]) -> int:
        """Return what is held in memory where forms in ``streamed_forms`` stay as stored and others are expanded."""
        return sum(
            item.stored_bytes if item.form in streamed_forms or item.form == "plain" else item.dense_bytes
            for item in self.forms
        )


def activation_peak(program: Program, function: str | None = None, *, row_bytes: int = 1) -> ActivationPeak:
    """Return the largest sum of live activations over the operations of a function, in program order.

    A tensor lives from the operation that makes it to the last one that reads it; inputs are the caller's and live
    throughout, outputs live to the end. While an operation runs, what it reads and what it makes are both alive.
    Results of ``VIEWS`` share the memory of what they view. Constants and scratch memory are not counted, nor does the
    order of the program bind a runtime: this is what the program asks for, not what a device takes.

    Args:
        program: From ``read_program``.
        function: Name of the function; ``main`` or the only one when not given.
        row_bytes: The last axis of a tensor of three or more axes is padded to a multiple of this.
    """
    chosen = program.function(function)
    owner: dict[str, str] = {port.name: port.name for port in chosen.inputs}
    sizes = {port.name: _padded_bytes(port.type, row_bytes) for port in chosen.inputs}
    for operation in chosen.operations:
        if is_constant(operation):
            continue
        viewed = next((name for name in operation.used_names() if name in owner), None)
        for port in operation.outputs:
            shares = operation.type in VIEWS and viewed is not None
            owner[port.name] = owner[viewed] if shares and viewed else port.name
            if not shares:
                sizes[port.name] = _padded_bytes(port.type, row_bytes)
    ends = {port.name: len(chosen.operations) for port in chosen.inputs}
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
    constants = {
        port.name: operation for operation in chosen.operations if is_constant(operation) for port in operation.outputs
    }
    packed = {name for operation in constants.values() if operation.type != "const" for name in operation.used_names()}
    seen: set[str] = set()
    forms: dict[WeightForm, FormBytes] = {}
    for name, operation in constants.items():
        if name in packed:
            continue
        sizes = {where: size for where, size in _stored(operation, constants).items() if where not in seen}
        seen |= set(sizes)
        if not sizes:
            continue
        found = weight_form(operation, constants)
        before = forms.get(found.form, FormBytes(form=found.form, elements=0, stored_bytes=0, dense_bytes=0))
        forms[found.form] = FormBytes(
            form=found.form,
            elements=before.elements + found.elements,
            stored_bytes=before.stored_bytes + sum(sizes.values()),
            dense_bytes=before.dense_bytes + found.dense_bytes,
        )
    every = tuple(forms[form] for form in sorted(forms))
    return WeightBytes(
        stored=sum(item.stored_bytes for item in every),
        decompressed=sum(item.dense_bytes for item in every),
        forms=every,
    )


def weight_form(operation: Operation, constants: Mapping[str, Operation]) -> FormBytes:
    """Return how a constant is stored: plain, or by the operation that expands it and those that it expands in turn.

    Args:
        operation: A ``const`` or a ``constexpr_`` operation.
        constants: Every constant of its function by the name of its result.
    """
    kind = operation.outputs[0].type if operation.outputs else None
    elements = kind.num_elements if kind is not None else 0
    dense = kind.num_bytes if kind is not None else 0
    return FormBytes(
        form=_form(operation, constants),
        elements=elements,
        stored_bytes=sum(_stored(operation, constants).values()),
        dense_bytes=dense,
        dtype=kind.element.name if kind is not None else "",
    )


def _form(operation: Operation, constants: Mapping[str, Operation]) -> WeightForm:
    if operation.type == "const":
        return "plain"
    inner = [constants[name] for name in operation.used_names() if name in constants]
    nested = [_form(item, constants) for item in inner if item.type != "const"]
    own = _FORMS.get(operation.type, "plain")
    if own == "linear" and _blocks(operation, constants) > 1:
        own = "blockwise"
    return nested[0] if own == "sparse" and nested else own


def _blocks(operation: Operation, constants: Mapping[str, Operation]) -> int:
    """Return how many scales an output channel has."""
    scales = _operand_type(operation, "scale", constants)
    return prod(axis or 1 for axis in scales.shape[1:]) if scales is not None else 1


def _operand_type(operation: Operation, name: str, constants: Mapping[str, Operation]) -> TensorType | None:
    binding = next(iter(operation.inputs.get(name, ())), None)
    if isinstance(binding, Constant):
        return binding.type
    if isinstance(binding, str) and binding in constants and constants[binding].outputs:
        return constants[binding].outputs[0].type
    return None


def _stored(operation: Operation, constants: Mapping[str, Operation]) -> dict[str, int]:
    """Return the bytes in the weight file that a constant is made of, by where they lie."""
    tensors = [operation.value, *chain.from_iterable(operation.inputs.values())]
    sizes = {item.where: item.type.num_bytes for item in tensors if isinstance(item, Constant) and item.in_file}
    for name in operation.used_names():
        if name in constants:
            sizes |= _stored(constants[name], constants)
    return sizes


def _padded_bytes(kind: TensorType, row_bytes: int) -> int:
    if len(kind.shape) < 3 or row_bytes <= 1 or not kind.num_elements:
        return kind.num_bytes
    last = kind.shape[-1] or 1
    row = -(-last * kind.element.bits // 8)
    return kind.num_elements // last * -(-row // row_bytes) * row_bytes


def _largest_first(live: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(live.items(), key=lambda item: (-item[1], item[0])))
