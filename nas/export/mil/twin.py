"""A package computed side by side with the graph it was converted from, layer by layer.

Names do not survive a conversion, the order of layers does: the first ``conv`` of the program is the first convolution
of the graph, and so on for every kind of ``KINDS`` that is there equally often and in the same sizes.

After each matched layer the program goes on with the graph's result: what a layer shows is its own difference, not what
those before it left, so that a fault of 1e-4 in one layer stands out of the 1e-7 of the others.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from math import prod
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Interpreter
from torch.utils import _pytree

from nas.export.mil.chain import chained_steps
from nas.export.mil.compare import OutputError, compare_tensors
from nas.export.mil.executor import Precision, is_constant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    "aten.silu": "silu",
    "aten.softmax": "softmax",
    "aten.einsum": "einsum",
    "aten.instance_norm": "instance_norm",
    "aten.matmul": "matmul",
}
# Place of a package in call order, and of an operation in it.
Place = tuple[int, int]
# A layer stands out when its difference is this many times that of the middle layer, and at least FLOOR: float32 sums
# in another order, and the sinusoid of large times, stay below: 1.4e-5 seen on the toy networks.
STANDS_OUT, FLOOR = 30.0, 3e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """Distance of one operation's result from that of the same layer in torch.

    Attributes:
        location: The operation, for people.
        package: Place of its package in call order.
        index: Its position in the program.
        layer: Path of the torch module: ``down_blocks.0.resnets.0.conv1``.
        error: Distance from torch's result, given torch's results of the layers before it.
    """

    location: str
    package: int
    index: int
    layer: str
    error: OutputError


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """What a program and its graph gave.

    Attributes:
        expected: The graph's outputs, in order.
        found: The last package's outputs, in order, after it went on with the graph's results.
        layers: Distances of the layers that could be matched, in program order.
    """

    expected: tuple[Tensor, ...]
    found: tuple[Tensor, ...]
    layers: tuple[LayerError, ...]

    def usual(self) -> float:
        """Relative difference of the middle layer."""
        return median(item.error.max_relative for item in self.layers) if self.layers else 0.0

    def apart(self, tolerance: float) -> tuple[LayerError, ...]:
        """Return the layers, in program order, whose relative difference exceeds ``tolerance`` or stands out."""
        limit = min(tolerance, max(FLOOR, STANDS_OUT * self.usual()))
        return tuple(item for item in self.layers if not item.error.max_relative <= limit)


def side_by_side(
    programs: Sequence[Program],
    graph: ExportedProgram,
    inputs: Mapping[str, Tensor],
    *,
    precision: Precision = "float32",
) -> SideBySide:
    """Compute packages and their graph on the same inputs and compare every layer that can be matched.

    The graph computes in float32 with its weights rounded to float16 as the package stores them, each as it is used:
    no second copy of the network is made. The program goes on with the graph's results after every matched layer.

    Args:
        programs: The saved packages of the network, in call order.
        graph: What it was converted from, in float32.
        inputs: Tensor by input name, in the graph's order.
        precision: How the program is computed; see ``nas.export.mil.executor.execute``.

    Raises:
        NasError: Whatever ``execute`` raises.
    """
    walk = _Walk(programs, graph, inputs, precision)
    with torch.no_grad(), warnings.catch_warnings():
        # torch 2.13's own use of its tree nodes; gone when torch stops calling it.
        warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*", category=FutureWarning)
        outputs = _pytree.tree_leaves(walk.run(*inputs.values()))
    walk.advance(None)
    return SideBySide(
        expected=tuple(outputs),
        found=tuple(walk.outputs.values()),
        layers=tuple(sorted(walk.errors, key=lambda item: (item.package, item.index))),
    )


class _Walk(Interpreter):
    """Runs the graph; after each matched node it lets the packages catch up and compares."""

    def __init__(
        self, programs: Sequence[Program], graph: ExportedProgram, inputs: Mapping[str, Tensor], precision: Precision
    ) -> None:
        module = graph.module()
        super().__init__(module)
        self.pairs = _matches(programs, list(module.graph.nodes))
        self.matched = {(place, operation.index) for place, operation in self.pairs.values()}
        self.steps = chained_steps(programs, inputs, precision=precision)
        self.forced = precision == "float32"
        self.last: Place | None = None
        self.instead: tuple[Tensor, ...] | None = None
        self.outputs: dict[str, Tensor] = {}
        self.ahead: dict[Place, Tensor] = {}
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
        if n.name in self.pairs:
            package, operation = self.pairs[n.name]
            found = self.advance((package, operation.index))
            error = compare_tensors(operation.outputs[0].name, result, found.reshape(result.shape))
            self.errors.append(
                LayerError(
                    location=operation.location, package=package, index=operation.index, layer=_layer(n), error=error
                )
            )
            if self.forced and self.last == (package, operation.index):
                self.instead = (result.reshape(found.shape),)
        return result

    def advance(self, until: Place | None) -> Any:
        """Compute the packages up to an operation, or to their end; return that operation's result."""
        while until is None or until not in self.ahead:
            try:
                package, step = self.steps.send(self.instead)
            except StopIteration as stop:
                self.outputs = stop.value
                return None
            self.instead, self.last = None, (package, step.operation.index)
            if self.last in self.matched:
                self.ahead[self.last] = step.results[0]
        return self.ahead.pop(until)


def _matches(programs: Sequence[Program], nodes: list[Node]) -> dict[str, tuple[int, Operation]]:
    """Return package and operation of each node; kinds that cannot be matched one for one are left out."""
    layers: dict[str, list[Node]] = defaultdict(list)
    operations: dict[str, list[tuple[int, Operation]]] = defaultdict(list)
    for node in nodes:
        kind = KINDS.get(str(node.target).rpartition(".")[0])
        if kind:
            layers[kind].append(node)
    for package, program in enumerate(programs):
        for operation in program.function().operations:
            if not is_constant(operation):
                operations[operation.type].append((package, operation))
    pairs: dict[str, tuple[int, Operation]] = {}
    for kind, members in layers.items():
        found = operations[kind]
        if len(members) == len(found) and all(
            node.meta["val"].numel() == _size(operation) for node, (_, operation) in zip(members, found, strict=True)
        ):
            pairs |= zip((node.name for node in members), found, strict=True)
    return pairs


def _size(operation: Operation) -> int:
    return prod(axis or 0 for axis in operation.outputs[0].type.shape)


def _layer(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(list(stack.values())[-1][0]) or "the network itself"
