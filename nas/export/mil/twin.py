"""A package computed side by side with the graph it was converted from, layer by layer.

Names do not survive a conversion, the order of layers does: the first ``conv`` of the program is the first convolution
of the graph, and so on for every kind of ``KINDS`` that is there equally often and in the same shapes.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Interpreter
from torch.utils import _pytree

from nas.export.mil.compare import OutputError, compare_tensors
from nas.export.mil.executor import Precision, Step, is_constant, steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.export import ExportedProgram
    from torch.fx import Node

    from nas.export.mil.program import Operation, Program

# Operation of a graph, without its overload, → operation of MIL that computes the same tensor.
KINDS = {
    "aten.conv1d": "conv",
    "aten.conv2d": "conv",
    "aten.conv3d": "conv",
    "aten.linear": "linear",
    "aten.scaled_dot_product_attention": "scaled_dot_product_attention",
    "aten.layer_norm": "layer_norm",
    "aten.group_norm": "batch_norm",  # of its last step, gamma and beta
    "aten.gelu": "gelu",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """Distance of one operation's result from that of the same layer in torch.

    Attributes:
        location: The operation, for people.
        index: Its position in the program.
        layer: Path of the torch module: ``down_blocks.0.resnets.0.conv1``.
        error: Distance from torch's result.
    """

    location: str
    index: int
    layer: str
    error: OutputError


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """What a program and its graph gave.

    Attributes:
        expected: The graph's outputs, in order.
        found: The program's outputs, in order.
        layers: Distances of the layers that could be matched, in program order.
    """

    expected: tuple[Tensor, ...]
    found: tuple[Tensor, ...]
    layers: tuple[LayerError, ...]

    def first_apart(self, tolerance: float) -> LayerError | None:
        """Return the first layer whose relative difference exceeds ``tolerance``, None when none does."""
        return next((item for item in self.layers if not item.error.max_relative <= tolerance), None)


def side_by_side(
    program: Program, graph: ExportedProgram, inputs: Mapping[str, Tensor], *, precision: Precision = "float32"
) -> SideBySide:
    """Compute a program and its graph on the same inputs and compare every layer that can be matched.

    The graph computes in float32 with its weights rounded to float16 as the package stores them, each as it is used:
    no second copy of the network is made.

    Args:
        program: A saved package.
        graph: What it was converted from, in float32.
        inputs: Tensor by input name, in the graph's order.
        precision: How the program is computed; see ``nas.export.mil.executor.execute``.

    Raises:
        NasError: Whatever ``execute`` raises.
    """
    walk = _Walk(program, graph, inputs, precision)
    with torch.no_grad(), warnings.catch_warnings():
        # torch 2.13's own use of its tree nodes; gone when torch stops calling it.
        warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*", category=FutureWarning)
        outputs = _pytree.tree_leaves(walk.run(*inputs.values()))
    walk.advance(None)
    names = program.function().outputs
    return SideBySide(
        expected=tuple(outputs),
        found=tuple(walk.outputs[name] for name in names),
        layers=tuple(sorted(walk.errors, key=lambda item: item.index)),
    )


class _Walk(Interpreter):
    """Runs the graph; after each matched node it lets the program catch up and compares."""

    def __init__(
        self, program: Program, graph: ExportedProgram, inputs: Mapping[str, Tensor], precision: Precision
    ) -> None:
        module = graph.module()
        super().__init__(module)
        self.pairs = _matches(program, list(module.graph.nodes))
        self.matched = {operation.index for operation in self.pairs.values()}
        self.steps: Iterator[Step] = steps(program, inputs, precision=precision)
        self.wanted = set(program.function().outputs)
        self.outputs: dict[str, Tensor] = {}
        self.ahead: dict[int, Tensor] = {}
        self.weights: set[int] = set()
        self.errors: list[LayerError] = []

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        self.weights.add(id(value))
        return value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = _pytree.tree_map_only(torch.Tensor, self._as_stored, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def _as_stored(self, tensor: Tensor) -> Tensor:
        return tensor.half().float() if id(tensor) in self.weights and tensor.is_floating_point() else tensor

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        operation = self.pairs.get(n.name)
        if operation is not None:
            found = self.advance(operation.index)
            error = compare_tensors(operation.outputs[0].name, result, found)
            self.errors.append(
                LayerError(location=operation.location, index=operation.index, layer=_layer(n), error=error)
            )
        return result

    def advance(self, index: int | None) -> Any:
        """Compute the program up to operation ``index``, or to its end; return that operation's result."""
        while index is None or index not in self.ahead:
            step = next(self.steps, None)
            if step is None:
                return None
            if step.operation.index in self.matched:
                self.ahead[step.operation.index] = step.results[0]
            for port, result in zip(step.operation.outputs, step.results, strict=True):
                if port.name in self.wanted:
                    self.outputs[port.name] = result
        return self.ahead.pop(index)


def _matches(program: Program, nodes: list[Node]) -> dict[str, Operation]:
    """Return the operation that computes each node; kinds that cannot be matched one for one are left out."""
    layers: dict[str, list[Node]] = defaultdict(list)
    operations: dict[str, list[Operation]] = defaultdict(list)
    for node in nodes:
        kind = KINDS.get(str(node.target).rpartition(".")[0])
        if kind:
            layers[kind].append(node)
    for operation in program.function().operations:
        if not is_constant(operation):
            operations[operation.type].append(operation)
    pairs: dict[str, Operation] = {}
    for kind, members in layers.items():
        if len(members) == len(operations[kind]):
            several = dict(zip((node.name for node in members), operations[kind], strict=True))
            if all(tuple(node.meta["val"].shape) == several[node.name].outputs[0].type.shape for node in members):
                pairs |= several
    return pairs


def _layer(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(list(stack.values())[-1][0]) or "the network itself"
