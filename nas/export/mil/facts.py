"""What the operations of a program work on: shapes, types, arithmetic and weights of each; nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from nas.export.mil.executor import is_constant
from nas.export.mil.memory import VIEWS, WeightForm, weight_form
from nas.export.mil.values import Constant

if TYPE_CHECKING:
    from nas.export.mil.program import Function, Operation, Port, Program

# What an operation is to a cost model; ``pointwise`` keeps its shape and makes no sums.
Family = Literal["convolution", "linear", "product", "attention", "pointwise", "reduction", "layout", "view", "other"]
_POINTWISE = frozenset(
    {"add", "sub", "mul", "real_div", "square", "sqrt", "rsqrt", "pow", "abs", "exp", "log", "erf", "silu", "gelu"}
    | {"relu", "sigmoid", "tanh", "softplus", "leaky_relu", "clip", "maximum", "minimum", "batch_norm", "select"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFact:
    """A tensor that is no constant: name, shape and element type; an axis of unknown length counts as one."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    element_bytes: int

    @property
    def num_bytes(self) -> int:
        """Bytes without padding."""
        return prod(self.shape) * self.element_bytes

    def padded_bytes(self, row_bytes: int) -> int:
        """Bytes with the last axis padded to a multiple of ``row_bytes``, of tensors of three or more axes."""
        if len(self.shape) < 3 or not prod(self.shape):
            return self.num_bytes
        row = self.shape[-1] * self.element_bytes
        return prod(self.shape[:-1]) * -(-row // row_bytes) * row_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFact:
    """One operation that is no constant.

    Attributes:
        location: Where it is, for people.
        index: Position in the function.
        type: Its MIL type.
        name: Its name.
        family: What it is to a cost model.
        inputs: Tensors it reads that are no constants, each once.
        outputs: Its results.
        flops: Arithmetic of convolutions, products and attention, a multiply-add as two.
        weight_elements: Elements of the constants of the weight file that it reads.
        weight_bits: Mean stored bits of one of them; 16 where it reads none.
        weight_form: How they are stored.
        weight_dtypes: Element types of the weights it computes with, sorted.
        options: Kernel, stride and channels of a convolution, width of a product, heads of attention.
    """

    location: str
    index: int
    type: str
    name: str
    family: Family
    inputs: tuple[TensorFact, ...]
    outputs: tuple[TensorFact, ...]
    flops: int
    weight_elements: int
    weight_bits: float
    weight_form: WeightForm
    weight_dtypes: tuple[str, ...]
    options: tuple[tuple[str, int], ...] = ()


def operation_facts(program: Program, function: str | None = None) -> tuple[OperationFact, ...]:
    """Describe every operation of a function but its constants, in program order."""
    return _Reader(program.function(function)).facts()


class _Reader:
    def __init__(self, function: Function) -> None:
        self.function = function
        self.tensors = {port.name: _tensor(port) for port in function.inputs}
        self.constants: dict[str, Operation] = {}

    def facts(self) -> tuple[OperationFact, ...]:
        found = []
        for operation in self.function.operations:
            if is_constant(operation):
                self.constants |= {port.name: operation for port in operation.outputs} or {operation.name: operation}
                continue
            self.tensors |= {port.name: _tensor(port) for port in operation.outputs}
            found.append(self.fact(operation))
        return tuple(found)

    def fact(self, operation: Operation) -> OperationFact:
        inputs = tuple(self.tensors[name] for name in dict.fromkeys(operation.used_names()) if name in self.tensors)
        outputs = tuple(self.tensors[port.name] for port in operation.outputs)
        weights = [self.constants[name] for name in operation.used_names() if name in self.constants]
        stored = [weight_form(item, self.constants) for item in weights]
        # Long lists of whole numbers (sizes of a split) lie in the weight file too, and are no weights.
        stored = [item for item in stored if item.stored_bytes and item.dtype in ("float16", "float32")]
        elements = sum(item.elements for item in stored)
        flops, options = self.arithmetic(operation, outputs)
        return OperationFact(
            location=operation.location,
            index=operation.index,
            type=operation.type,
            name=operation.name,
            family=self.family(operation, outputs),
            inputs=inputs,
            outputs=outputs,
            flops=flops,
            weight_elements=elements,
            weight_bits=8.0 * sum(item.stored_bytes for item in stored) / elements if elements else 16.0,
            weight_form=max(stored, key=lambda item: item.elements).form if stored else "plain",
            weight_dtypes=tuple(sorted({item.dtype for item in stored})),
            options=tuple(sorted(options.items())),
        )

    def family(self, operation: Operation, outputs: tuple[TensorFact, ...]) -> Family:
        kind = operation.type
        if kind in VIEWS:
            return "view"
        if kind in ("conv", "conv_transpose"):
            return "convolution"
        if kind == "scaled_dot_product_attention":
            return "attention"
        if kind in ("linear", "matmul", "einsum"):
            return (
                "linear" if any(self.shape(operation, name, 0) is None for name in self.operands(kind)) else "product"
            )
        if kind == "transpose":
            return "layout"
        if kind.startswith("reduce_"):
            return "reduction"
        return "pointwise" if kind in _POINTWISE and len(outputs) == 1 else "other"

    @staticmethod
    def operands(kind: str) -> tuple[str, ...]:
        return {"linear": ("weight",), "matmul": ("x", "y"), "einsum": ("values",)}[kind]

    def shape(self, operation: Operation, name: str, position: int) -> tuple[int, ...] | None:
        """Return the shape of an operand that is no constant; None for a constant."""
        bindings = operation.inputs.get(name, ())
        binding = bindings[position] if position < len(bindings) else None
        return self.tensors[binding].shape if isinstance(binding, str) and binding in self.tensors else None

    def any_shape(self, operation: Operation, name: str, position: int = 0) -> tuple[int, ...]:
        """Return the shape of an operand, constant or not; empty where there is none."""
        bindings = operation.inputs.get(name, ())
        binding = bindings[position] if position < len(bindings) else None
        if isinstance(binding, Constant):
            return _axes(binding.type.shape)
        if not isinstance(binding, str):
            return ()
        if binding in self.tensors:
            return self.tensors[binding].shape
        ports = [port for port in self.constants[binding].outputs if port.name == binding]
        return _axes(ports[0].type.shape) if ports else ()

    def numbers(self, operation: Operation, name: str) -> list[int]:
        """Return the values of a short constant operand; empty where it is absent."""
        bindings = operation.inputs.get(name, ())
        value: object = bindings[0] if bindings else None
        if isinstance(value, str) and value in self.constants:
            value = self.constants[value].value
        return [int(item) for item in value.array().reshape(-1)] if isinstance(value, Constant) else []

    def arithmetic(self, operation: Operation, outputs: tuple[TensorFact, ...]) -> tuple[int, dict[str, int]]:
        kind = operation.type
        elements = prod(outputs[0].shape) if outputs else 0
        if kind in ("conv", "conv_transpose"):
            return self.convolution(operation, elements)
        if kind == "linear":
            weight = self.any_shape(operation, "weight")
            return 2 * elements * weight[-1], {"in_channels": weight[-1], "out_channels": weight[0]}
        if kind == "matmul":
            left = self.any_shape(operation, "x")
            inner = left[-2 if self.numbers(operation, "transpose_x") == [1] else -1] if len(left) > 1 else left[0]
            return 2 * elements * inner, {}
        if kind == "einsum":
            return self.einsum_flops(operation), {}
        if kind == "scaled_dot_product_attention":
            query, key = self.any_shape(operation, "query"), self.any_shape(operation, "key")
            heads = prod(query[1:-2]) if len(query) > 3 else 1
            return 4 * prod(query) * key[-2], {"heads": heads}
        return 0, {}

    def convolution(self, operation: Operation, elements: int) -> tuple[int, dict[str, int]]:
        weight, groups = self.any_shape(operation, "weight"), (self.numbers(operation, "groups") or [1])[0]
        source = self.any_shape(operation, "x")
        strides = self.numbers(operation, "strides") or [1]
        transposed = operation.type == "conv_transpose"
        out_channels = weight[1] * groups if transposed else weight[0]
        options = {"in_channels": source[1], "out_channels": out_channels, "stride": max(strides), "groups": groups}
        options |= {f"kernel_{axis}": length for axis, length in enumerate(weight[2:])}
        # A transposed one multiplies every input element with the kernel of every output channel of its group.
        work = prod(source) * weight[1] if transposed else elements * weight[1]
        return 2 * work * prod(weight[2:]), options

    def einsum_flops(self, operation: Operation) -> int:
        value = operation.inputs.get("equation", ("",))[0]
        if isinstance(value, str) and value in self.constants:
            value = self.constants[value].value or ""
        equation = value[0] if isinstance(value, tuple) else value
        if not isinstance(equation, str) or "->" not in equation:
            return 0
        letters: dict[str, int] = {}
        for position, term in enumerate(equation.split("->")[0].split(",")):
            letters |= dict(zip(term.strip(), self.any_shape(operation, "values", position), strict=False))
        return 2 * prod(letters.values())


def _tensor(port: Port) -> TensorFact:
    element = port.type.element
    return TensorFact(
        name=port.name, shape=_axes(port.type.shape), dtype=element.name, element_bytes=-(-element.bits // 8)
    )


def _axes(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(1 if axis is None else axis for axis in shape)
