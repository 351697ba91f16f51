"""Computes a saved ML Program with PyTorch kernels, operation by operation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from nas.core.errors import InputError, Problem, UnavailableError, VerificationError
from nas.export.mil.operations import KERNELS, Inputs, Value
from nas.export.mil.program import CONSTANT_PREFIX, Function, Operation, Port, Program
from nas.export.mil.values import Constant

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

Precision = Literal["float32", "float16"]

# Results that hold nothing but values of their inputs: in float16 these are rounded already.
MOVES = frozenset(
    {
        "concat", "crop", "depth_to_space", "expand_dims", "gather", "gather_along_axis", "gather_nd", "identity",
        "max_pool", "pixel_shuffle", "pixel_unshuffle", "relu", "reshape", "resize_nearest_neighbor", "reverse",
        "select",
        "slice_by_index", "slice_by_size", "slice_update", "space_to_depth", "split", "squeeze", "stack", "tile",
        "transpose", "upsample_nearest_neighbor",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One computed operation and its results, in the order of ``operation.outputs``."""

    operation: Operation
    results: tuple[Tensor, ...]


def execute(
    program: Program,
    inputs: Mapping[str, Tensor],
    *,
    precision: Precision = "float32",
    function: str | None = None,
) -> dict[str, Tensor]:
    """Compute a function of a program; float results are float32.

    Args:
        program: From ``read_program``.
        inputs: Tensor by input name, in the shape the program states.
        precision: ``float32`` computes every operation in float32 on the weights as stored. ``float16`` also rounds
            inputs and the results of every operation to float16 where the program says float16: hardware that adds up
            in float32 and stores float16. What an operation does inside (the softmax of an attention) is not rounded.
        function: Name of the function; ``main`` or the only one when not given.

    Returns:
        Tensor by output name.

    Raises:
        InputError: Inputs do not fit the program, or it is damaged.
        UnavailableError: The program has operations without a kernel; all are named, nothing was computed.
        VerificationError: An operation fails or gives another shape than the program states.
    """
    walk = steps(program, inputs, precision=precision, function=function)
    while True:
        try:
            next(walk)
        except StopIteration as stop:
            outputs: dict[str, Tensor] = stop.value
            return outputs


def steps(
    program: Program,
    inputs: Mapping[str, Tensor],
    *,
    precision: Precision = "float32",
    function: str | None = None,
) -> Generator[Step, tuple[Tensor, ...] | None, dict[str, Tensor]]:
    """Yield every operation with its results as it is computed; constants are left out.

    A tensor is freed after the last operation that reads it; see ``execute`` for arguments and errors. Results that are
    sent into the generator are what later operations read in place of those it gave. The generator's value are the
    outputs by name.
    """
    chosen = program.function(function)
    require_known(program, function)
    _require_memory(program, chosen)
    machine = _Machine(program, chosen, precision)
    machine.feed(inputs)
    last_use = last_uses(chosen)
    for operation in chosen.operations:
        if is_constant(operation):
            continue
        results = machine.compute(operation)
        results = (yield Step(operation=operation, results=results)) or results
        machine.live.update(zip((port.name for port in operation.outputs), results, strict=True))
        for name in {*operation.used_names(), *(port.name for port in operation.outputs)}:
            if last_use.get(name, operation.index) <= operation.index:
                machine.live.pop(name, None)
    # One that no operation makes depends on no input.
    outputs = {name: machine.live[name] for name in chosen.outputs if name in machine.live}
    outputs |= machine.folded(set(chosen.outputs) - outputs.keys())
    return {name: outputs[name] for name in chosen.outputs}


def is_constant(operation: Operation) -> bool:
    """Whether an operation is a constant, stored plainly or compressed."""
    return operation.type == "const" or operation.type.startswith(CONSTANT_PREFIX)


def last_uses(function: Function) -> dict[str, int]:
    """Return the index of the last operation that reads each name; outputs are never freed."""
    uses = {name: operation.index for operation in function.operations for name in operation.used_names()}
    return uses | dict.fromkeys(function.outputs, len(function.operations))


def missing_operations(program: Program, function: str | None = None) -> tuple[Operation, ...]:
    """Return the operations that have no kernel, those of nested blocks included."""

    def missing(operations: tuple[Operation, ...]) -> Iterator[Operation]:
        for operation in operations:
            if operation.type != "const" and operation.type not in KERNELS:
                yield operation
            yield from missing(operation.blocks)

    return tuple(missing(program.function(function).operations))


def require_known(program: Program, function: str | None = None) -> None:
    """Let a program pass only when every operation has a kernel.

    Raises:
        UnavailableError: Operations without a kernel, each with its location.
    """
    missing = missing_operations(program, function)
    if missing:
        kinds = sorted({operation.type for operation in missing})
        raise UnavailableError(
            f"{program.path}: {len(missing)} operations of {len(kinds)} kinds cannot be computed here "
            f"({', '.join(kinds)}); the first is {missing[0].location}",
            hint="add a kernel in nas.export.mil.operations",
            problems=tuple(Problem(message=item.location, file=str(program.path)) for item in missing),
        )


def _require_memory(program: Program, function: Function) -> None:
    """Let a function pass only when its largest tensor, in float32, fits into this machine's memory.

    Raises:
        UnavailableError: It does not; a damaged shape is refused here before anything is allocated.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    ports = [(f"input {port.name!r}", port) for port in function.inputs]
    ports += [(item.location, port) for item in function.operations for port in item.outputs]
    where, largest = max(ports, key=lambda item: item[1].type.num_elements, default=("", None))
    if largest is not None and 4 * largest.type.num_elements > memory:
        raise UnavailableError(
            f"{program.path}: {where} is {largest.type}: {4 * largest.type.num_elements / 1e9:,.1f} GB in float32, "
            f"this machine has {memory / 1e9:,.1f} GB",
            hint="compute it on a larger machine, or export again if the shape is wrong",
        )


class _Machine:
    """Live tensors of one computation; constants are decoded, compressed ones made dense, for each operation anew."""

    def __init__(self, program: Program, function: Function, precision: Precision) -> None:
        self.program = program
        self.function = function
        self.precision = precision
        self.live: dict[str, Tensor] = {}
        self.constants: dict[str, Operation] = {}
        for operation in function.operations:
            if is_constant(operation):
                self.constants |= {port.name: operation for port in operation.outputs} or {operation.name: operation}

    def feed(self, inputs: Mapping[str, Tensor]) -> None:
        ports = {port.name: port for port in self.function.inputs}
        if set(inputs) != set(ports):
            raise InputError(
                f"{self.program.path}: takes the inputs {', '.join(sorted(ports))}, given {', '.join(sorted(inputs))}"
            )
        for name, tensor in inputs.items():
            port = ports[name]
            if not port.type.fits(tensor.shape) or tensor.is_floating_point() != port.type.element.is_float:
                raise InputError(
                    f"{self.program.path}: input {name!r} is {port.type}, given {tensor.dtype} {tuple(tensor.shape)}"
                )
            self.live[name] = self.rounded(tensor.detach().to("cpu", port.type.element.compute), port)

    def folded(self, names: set[str]) -> dict[str, Tensor]:
        values = {name: self.value(name) for name in names}
        return {name: value for name, value in values.items() if not isinstance(value, tuple)}

    def value(self, binding: str | Constant | tuple[str, ...]) -> Value:
        if isinstance(binding, Constant):
            return binding.tensor()
        if isinstance(binding, tuple):
            return binding
        if binding in self.live:
            return self.live[binding]
        operation = self.constants[binding]
        if operation.type == "const":
            value = operation.value
            if value is None:
                raise InputError(f"{self.program.path}: {operation.location} has no value")
            return value.tensor() if isinstance(value, Constant) else value
        results = self.compute(operation)
        return results[[port.name for port in operation.outputs].index(binding)]

    @torch.inference_mode()
    def compute(self, operation: Operation) -> tuple[Tensor, ...]:
        where = f"{self.program.path}: {operation.location}"
        values = {name: tuple(map(self.value, bindings)) for name, bindings in operation.inputs.items()}
        inputs = Inputs(location=where, values=values, outputs=tuple(port.type for port in operation.outputs))
        try:
            results = KERNELS[operation.type](inputs)
        except (
            RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError, MemoryError
        ) as error:  # fmt: skip
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise VerificationError(f"{where} cannot be computed: {text}", hint="the package is damaged") from error
        several = results if isinstance(results, tuple) else (results,)
        if len(several) != len(operation.outputs):
            raise VerificationError(f"{where} gives {len(several)} results, the program has {len(operation.outputs)}")
        settled = tuple(self.settled(item, port, where) for item, port in zip(several, operation.outputs, strict=True))
        if operation.type in MOVES:
            return settled
        return tuple(self.rounded(item, port) for item, port in zip(settled, operation.outputs, strict=True))

    def settled(self, result: Tensor, port: Port, where: str) -> Tensor:
        element = port.type.element
        if not port.type.fits(result.shape):
            raise VerificationError(f"{where} gives {tuple(result.shape)} for {port.name!r}, stated {port.type}")
        boolean = result.dtype == torch.bool
        if result.is_floating_point() != element.is_float or boolean != (element.name == "bool"):
            raise VerificationError(f"{where} gives {result.dtype} for {port.name!r}, stated {port.type}")
        return result.to(element.compute)

    def rounded(self, tensor: Tensor, port: Port) -> Tensor:
        if self.precision == "float16" and port.type.element.name == "float16":
            return tensor.half().float()
        return tensor
