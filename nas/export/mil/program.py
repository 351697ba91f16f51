"""A saved ML Program as plain values: functions, operations, constants; nothing is computed.

coremltools is imported inside functions: it costs seconds and only packages need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import InputError
from nas.export.mil.values import ELEMENT_TYPES, Array, Constant, TensorType, read_blob
from nas.export.package import MODEL_FILE, read_specification

if TYPE_CHECKING:
    from collections.abc import Iterator

# coremltools writes "@model_path/weights/weight.bin"; the model's own folder is where the protobuf lies.
MODEL_PATH = "@model_path/"
# Compressed weights are operations of their own.
CONSTANT_PREFIX = "constexpr_"
# A binding of an operation's input: the name of an earlier result, or a value written in place.
Binding = str | Constant | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A named tensor: an input of a function or a result of an operation."""

    name: str
    type: TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation.

    Attributes:
        type: ``conv``; constants are operations of type ``const``.
        name: Its own name, that of its first result when it has none.
        function: Function it is in.
        index: Position in the block, from 0.
        inputs: Bindings by parameter; a parameter of several tensors has several.
        outputs: Results in order; those that are not tensors (strings) are left out.
        value: The value of a ``const``: a tensor, or a tuple of strings.
        blocks: Operations of nested blocks (loops, conditions), all in one row.
    """

    type: str
    name: str
    function: str
    index: int
    inputs: dict[str, tuple[Binding, ...]]
    outputs: tuple[Port, ...]
    value: Constant | tuple[str, ...] | None = None
    blocks: tuple[Operation, ...] = ()

    @property
    def location(self) -> str:
        """Where it is, for people: ``main #12 conv 'conv2d_3'``."""
        return f"{self.function} #{self.index} {self.type} {self.name!r}"

    def used_names(self) -> Iterator[str]:
        """Yield the name of every earlier result it reads."""
        for bindings in self.inputs.values():
            yield from (item for item in bindings if isinstance(item, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function: its inputs, the names of its outputs, and the operations in the order they are computed."""

    name: str
    opset: str
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]

    def output_ports(self) -> tuple[Port, ...]:
        """Return name and type of every output."""
        known = {port.name: port for port in self.inputs}
        known |= {port.name: port for operation in self.operations for port in operation.outputs}
        return tuple(known[name] for name in self.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A package's program: where it lies, its specification version and its functions by name."""

    path: Path
    specification: int
    functions: dict[str, Function]

    def function(self, name: str | None = None) -> Function:
        """Return a function by name; without one, ``main`` or the only one.

        Raises:
            InputError: There is no such function.
        """
        wanted = name or (
            "main" if "main" in self.functions or len(self.functions) != 1 else next(iter(self.functions))
        )
        if wanted not in self.functions:
            raise InputError(
                f"{self.path}: has no function {wanted!r}, only {', '.join(sorted(self.functions)) or 'none'}"
            )
        return self.functions[wanted]


def read_program(path: Path) -> Program:
    """Read the program of a saved package; weights are mapped, not read.

    Raises:
        InputError: A file is missing or damaged, names do not fit, or the package holds no ML Program.
        UnavailableError: coremltools is missing, or the package's specification is newer than what is known here.
    """
    specification = read_specification(path)
    reader = _Reader(path)
    functions = {name: reader.function(name, item) for name, item in sorted(specification.mlProgram.functions.items())}
    described = {item.name: item for item in specification.description.functions} or {"main": specification.description}
    for name, description in described.items():
        if name in functions:
            _require_described(path, description, functions[name])
    return Program(path=path, specification=specification.specificationVersion, functions=functions)


def _require_described(path: Path, description: Any, function: Function) -> None:
    """Let a function pass only when the package's description, by which Core ML calls it, states the same ports."""
    for kind, ports, own in (
        ("inputs", description.input, function.inputs),
        ("outputs", description.output, function.output_ports()),
    ):
        stated, has = [port.name for port in ports], [port.name for port in own]
        if sorted(stated) != sorted(has):
            raise InputError(
                f"{path}: its description names the {kind} {', '.join(stated) or 'none'}, "
                f"its function {function.name!r} has {', '.join(has) or 'none'}",
                hint="export again",
            )
        types = {port.name: port.type for port in own}
        for port in ports:
            shape = tuple(port.type.multiArrayType.shape)
            fixed = shape and not port.type.multiArrayType.WhichOneof("ShapeFlexibility") and types[port.name].shape
            if fixed and not types[port.name].fits(shape):
                raise InputError(
                    f"{path}: its description states {shape} for {port.name!r}, "
                    f"its function {function.name!r} {types[port.name]}",
                    hint="export again",
                )


class _Reader:
    """Turns protobuf messages into values; keeps the mapped weight files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, Array] = {}

    def function(self, name: str, message: Any) -> Function:
        blocks = message.block_specializations
        if message.opset not in blocks:
            raise InputError(f"{self.path}: function {name!r} has no block for its opset {message.opset!r}")
        block = blocks[message.opset]
        function = Function(
            name=name,
            opset=message.opset,
            inputs=tuple(self.port(item, where=f"function {name!r}") for item in message.inputs),
            outputs=tuple(block.outputs),
            operations=tuple(self.operation(name, index, item) for index, item in enumerate(block.operations)),
        )
        self.check_names(function)
        return function

    def check_names(self, function: Function) -> None:
        known = {port.name for port in function.inputs}
        for operation in function.operations:
            missing = [name for name in operation.used_names() if name not in known]
            if missing:
                raise InputError(
                    f"{self.path}: {operation.location} reads {missing[0]!r}, which nothing before it makes"
                )
            made = [port.name for port in operation.outputs] or [operation.name]
            again = [name for name in made if name in known]
            if again:
                raise InputError(f"{self.path}: {operation.location} makes {again[0]!r}, which is there already")
            known.update(made)
        tensors = {port.name for port in function.inputs}
        tensors |= {port.name for operation in function.operations for port in operation.outputs}
        missing = [name for name in function.outputs if name not in tensors]
        if missing or not function.outputs:
            names = ", ".join(missing) or "at all"
            raise InputError(f"{self.path}: function {function.name!r} makes no tensor {names} for its outputs")

    def operation(self, function: str, index: int, message: Any) -> Operation:
        name = self.name(message)
        where = f"{function} #{index} {message.type} {name!r}"
        text = [item.name for item in message.outputs if not _is_tensor(item.type)]
        return Operation(
            type=message.type,
            name=text[0] if text else name,
            function=function,
            index=index,
            inputs=self.inputs(message, where),
            outputs=tuple(self.port(item, where=where) for item in message.outputs if _is_tensor(item.type)),
            value=self.constant(message.attributes["val"], where=where) if message.type == "const" else None,
            blocks=tuple(
                self.operation(f"{function}/{name}", number, inner)
                for block in message.blocks
                for number, inner in enumerate(block.operations)
            ),
        )

    def inputs(self, message: Any, where: str) -> dict[str, tuple[Binding, ...]]:
        found = {
            key: tuple(self.binding(item, where=where) for item in argument.arguments)
            for key, argument in message.inputs.items()
        }
        if message.type.startswith(CONSTANT_PREFIX):  # those of iOS 16 have their tensors among the attributes
            found |= {
                key: (self.constant(value, where=where),) for key, value in message.attributes.items() if key != "name"
            }
        return found

    @staticmethod
    def name(message: Any) -> str:
        if "name" in message.attributes:
            stored = message.attributes["name"].immediateValue.tensor.strings.values
            if stored:
                return str(stored[0])
        return str(message.outputs[0].name) if message.outputs else "unnamed"

    def binding(self, message: Any, *, where: str) -> Binding:
        return (
            str(message.name) if message.WhichOneof("binding") == "name" else self.constant(message.value, where=where)
        )

    def port(self, message: Any, *, where: str) -> Port:
        return Port(name=message.name, type=self.tensor_type(message.type, where=where))

    def tensor_type(self, message: Any, *, where: str) -> TensorType:
        if not message.HasField("tensorType"):
            raise InputError(f"{self.path}: {where} has a value of kind {message.WhichOneof('type')!r}, needs a tensor")
        tensor = message.tensorType
        names = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
        name = names[tensor.dataType].name.lower() if tensor.dataType in names else str(tensor.dataType)
        if name not in ELEMENT_TYPES:
            raise InputError(
                f"{self.path}: {where} has elements of type {name!r}, known are {', '.join(ELEMENT_TYPES)}"
            )
        axes = tuple(
            int(axis.constant.size) if axis.WhichOneof("dimension") == "constant" else None
            for axis in tensor.dimensions
        )
        if len(axes) != tensor.rank:
            raise InputError(f"{self.path}: {where} has {len(axes)} axes and says rank {tensor.rank}")
        return TensorType(element=ELEMENT_TYPES[name], shape=axes)

    def constant(self, message: Any, *, where: str) -> Constant | tuple[str, ...]:
        if not _is_tensor(message.type):
            return tuple(_strings(message))
        kind = self.tensor_type(message.type, where=where)
        if message.WhichOneof("value") == "blobFileValue":
            blob = message.blobFileValue
            return read_blob(
                self.weights(blob.fileName, where), blob.offset, kind, file=self.file(blob.fileName, where)
            )
        data = _immediate(message.immediateValue.tensor, kind)
        if data.nbytes != kind.num_bytes:
            raise InputError(f"{self.path}: {where}: {data.nbytes} bytes for {kind}, needs {kind.num_bytes}")
        return Constant(type=kind, data=data.view(np.uint8).reshape(-1), where=where, in_file=False)

    def file(self, name: str, where: str) -> Path:
        parts = name.removeprefix(MODEL_PATH).split("/")
        if not name.startswith(MODEL_PATH) or ".." in parts:
            raise InputError(f"{self.path}: {where} reads the file {name!r}, needs one below {MODEL_PATH!r}")
        return (self.path / MODEL_FILE).parent.joinpath(*parts)

    def weights(self, name: str, where: str) -> Array:
        if name not in self.files:
            file = self.file(name, where)
            try:
                # Copy on write: torch takes no read-only memory, and nothing here writes.
                self.files[name] = np.memmap(file, dtype=np.uint8, mode="c")
            except (OSError, ValueError) as error:  # ValueError: the file is empty
                raise InputError(f"{self.path}: no readable {file.name}: {error}", hint="export again") from error
        return self.files[name]


def _is_tensor(kind: Any) -> bool:
    if not kind.HasField("tensorType"):
        return False
    field = kind.tensorType.DESCRIPTOR.fields_by_name["dataType"]
    return bool(kind.tensorType.dataType != field.enum_type.values_by_name["STRING"].number)


def _strings(message: Any) -> Iterator[str]:
    value = message.immediateValue
    if value.WhichOneof("value") == "list":
        for item in value.list.values:
            yield from _strings(item)
    else:
        yield from (str(item) for item in value.tensor.strings.values)


def _immediate(tensor: Any, kind: TensorType) -> Array:
    """Return the values of an immediate tensor as the bytes a weight file would hold."""
    field = tensor.WhichOneof("value")
    if field is None:
        return np.zeros(0, dtype=np.uint8)
    stored = getattr(tensor, field).values
    if field == "bytes":
        return np.frombuffer(stored, dtype=np.uint8)
    if field == "strings":
        raise InputError(f"strings where {kind} is needed")
    return np.array(stored).astype(kind.element.storage)
