"""Computes a saved ML Program with PyTorch kernels, operation by operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from nas.core.errors import InputError, Problem, UnavailableError, VerificationError
from nas.export.mil.operations import KERNELS, Inputs, Value
from nas.export.mil.program import CONSTANT_PREFIX, Function, Operation, Port, Program
from nas.export.mil.values import Constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Precision = Literal["float32", "float16"]


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
    chosen = program.function(function)
    wanted = set(chosen.outputs)
    outputs = {name: tensor for name, tensor in inputs.items() if name in wanted}
    for step in steps(program, inputs, precision=precision, function=function):
        for port, result in zip(step.operation.outputs, step.results, strict=True):
            if port.name in wanted:
                outputs[port.name] = result
    folded = wanted - outputs.keys()
    if folded:  # an output that depends on no input
        outputs |= _Machine(program, chosen, precision).folded(folded)
    return {name: outputs[name] for name in chosen.outputs}


def steps(
    program: Program,
    inputs: Mapping[str, Tensor],
    *,
    precision: Precision = "float32",
    function: str | None = None,
) -> Iterator[Step]:
    """Yield every operation with its results as it is computed; constants are left out.

    A tensor is freed after the last operation that reads it; see ``execute`` for arguments and errors.
    """
    chosen = program.function(function)
    require_known(program, function)
    machine = _Machine(program, chosen, precision)
    machine.feed(inputs)
    last_use = last_uses(chosen)
    for operation in chosen.operations:
        if is_constant(operation):
            continue
        results = machine.compute(operation)
        yield Step(operation=operation, results=results)
        machine.live.update(zip((port.name for port in operation.outputs), results, strict=True))
        for name in {*operation.used_names(), *(port.name for port in operation.outputs)}:
            if last_use.get(name, operation.index) <= operation.index:
                machine.live.pop(name, None)


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
        except (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise VerificationError(f"{where} cannot be computed: {text}", hint="the package is damaged") from error
        several = results if isinstance(results, tuple) else (results,)
        if len(several) != len(operation.outputs):
            raise VerificationError(f"{where} gives {len(several)} results, the program has {len(operation.outputs)}")
        return tuple(self.settled(result, port, where) for result, port in zip(several, operation.outputs, strict=True))

    def settled(self, result: Tensor, port: Port, where: str) -> Tensor:
        element = port.type.element
        if not port.type.fits(result.shape):
            raise VerificationError(f"{where} gives {tuple(result.shape)} for {port.name!r}, stated {port.type}")
        boolean = result.dtype == torch.bool
        if result.is_floating_point() != element.is_float or boolean != (element.name == "bool"):
            raise VerificationError(f"{where} gives {result.dtype} for {port.name!r}, stated {port.type}")
        return self.rounded(result.to(element.compute), port)

    def rounded(self, tensor: Tensor, port: Port) -> Tensor:
        if self.precision == "float16" and port.type.element.name == "float16":
            return tensor.half().float()
        return tensor
