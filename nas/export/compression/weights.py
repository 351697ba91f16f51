"""Weights of a saved program that compression may touch: which operations read them and along which axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.errors import InputError
from nas.export.mil.executor import is_constant
from nas.export.mil.program import CONSTANT_PREFIX
from nas.export.mil.values import Constant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.export.mil.program import Function, Operation, Program
    from nas.export.mil.values import Array

# coremltools.optimize.coreml: ``weight_threshold`` of every operation's configuration, version 9.0.
WEIGHT_THRESHOLD = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One stored float16 tensor.

    Attributes:
        name: Of the constant in the program.
        constant: Where its values lie.
        shape: Its shape.
        readers: Indices of the operations that read it.
        output_axis: Axis of output channels.
        input_axis: Axis of input channels.
    """

    name: str
    constant: Constant
    shape: tuple[int, ...]
    readers: tuple[int, ...]
    output_axis: int
    input_axis: int

    @property
    def num_elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def values(self) -> Array:
        """Return the values, a view of the mapped file."""
        return self.constant.array().view(np.float16)


def compressible(program: Program, *, weight_threshold: int = WEIGHT_THRESHOLD) -> tuple[Weight, ...]:
    """Return the float16 weights with more than ``weight_threshold`` values and at least two axes, in program order.

    Raises:
        InputError: The program has several functions, is compressed already, or has no such weight.
    """
    if set(program.functions) != {"main"}:
        raise InputError(
            f"{program.path}: has the functions {', '.join(sorted(program.functions))}; only a package with 'main' "
            "alone can be compressed",
            hint="compress each function's own package, then merge them",
        )
    function = program.function()
    packed = [operation for operation in function.operations if operation.type.startswith(CONSTANT_PREFIX)]
    if packed:
        raise InputError(
            f"{program.path}: is compressed already: {len(packed)} weights, the first is {packed[0].location}",
            hint="compress the package that it was made from",
        )
    found = tuple(_weights(function, weight_threshold))
    if not found:
        raise InputError(
            f"{program.path}: has no float16 weight of more than {weight_threshold} values to compress",
            hint="lower the weight threshold",
        )
    return found


def _weights(function: Function, threshold: int) -> Iterator[Weight]:
    readers: dict[str, list[Operation]] = {}
    for operation in function.operations:
        for name in set(operation.used_names()):
            readers.setdefault(name, []).append(operation)
    outputs = set(function.outputs)
    constants = {op.outputs[0].name: op for op in function.operations if is_constant(op) and op.outputs}
    for name, operation in constants.items():
        value = operation.value
        if not isinstance(value, Constant) or not value.in_file or value.type.element.name != "float16":
            continue
        shape = tuple(axis or 0 for axis in value.type.shape)
        if len(shape) < 2 or math.prod(shape) <= threshold or name in outputs or not readers.get(name):
            continue
        axes = {_axes(reader, name, len(shape), constants) for reader in readers[name]}
        if len(axes) != 1:  # coremltools leaves a weight as it is whose readers differ in their channels' axes
            continue
        ((output_axis, input_axis),) = axes
        yield Weight(
            name=name,
            constant=value,
            shape=shape,
            readers=tuple(reader.index for reader in readers[name]),
            output_axis=output_axis,
            input_axis=input_axis,
        )


def _axes(reader: Operation, name: str, rank: int, constants: dict[str, Operation]) -> tuple[int, int]:
    """Return the axes of output and input channels as ``coremltools.optimize`` takes them (9.0, ``_utils.py``)."""
    if reader.type == "conv_transpose":
        return 1, 0
    if reader.type != "matmul":
        return 0, 1
    second = name in reader.inputs["y"]
    transposed = _flag(reader, "transpose_y" if second else "transpose_x", constants)
    return (rank - 2, rank - 1) if second == transposed else (rank - 1, rank - 2)


def _flag(reader: Operation, name: str, constants: dict[str, Operation]) -> bool:
    for binding in reader.inputs.get(name, ()):
        value = constants[binding].value if isinstance(binding, str) else binding
        if isinstance(value, Constant):
            return bool(value.array().reshape(-1)[0])
    return False
