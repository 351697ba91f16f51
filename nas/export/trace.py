"""A component as a graph of fixed shapes, traced with fake tensors: nothing is computed, whatever the size.

``torch.jit.trace`` would run the network once: hundreds of seconds at full size, and tens of gigabytes for attention
over all pixels of all frames. ``torch.export`` only follows shapes.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from nas.core.errors import VerificationError
from nas.export.component import empty_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram

    from nas.export.component import Component

# Calls of torch functions that must come out of a conversion one for one, under the name of their Core ML operation.
CORE_ML_OPERATIONS = {
    "conv2d": "conv",
    "conv3d": "conv",
    "linear": "linear",
    "scaled_dot_product_attention": "scaled_dot_product_attention",
    "layer_norm": "layer_norm",
    "instance_norm": "instance_norm",
    "einsum": "einsum",
}


M = TypeVar("M", bound=nn.Module)


def exportable(module: M) -> M:
    """Return the network itself when it is float32 on the CPU, a copy that is otherwise.

    Raises:
        VerificationError: A weight is not finite or leaves the range of float16; all such are named.
    """
    plain = all(item.dtype == torch.float32 and item.device.type == "cpu" for item in module.parameters())
    model = module if plain else copy.deepcopy(module).to(device="cpu", dtype=torch.float32)
    limit = torch.finfo(torch.float16).max
    # Also true for a NaN, which no comparison holds for.
    bad = [name for name, item in model.named_parameters() if not bool(item.detach().abs().max() <= limit)]
    if bad:
        raise VerificationError(
            f"{len(bad)} weights do not fit into float16 (finite, at most {limit:.0f}): {', '.join(bad[:5])}",
            hint="train with weight decay, or check the checkpoint",
        )
    return model


def trace(component: Component) -> ExportedProgram:
    """Return the graph of one call of a component, all shapes fixed; its module is left as it is."""
    with evaluating(component.module), warnings.catch_warnings():
        # torch 2.13's own use of its tree nodes; gone when torch stops calling it.
        warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*", category=FutureWarning)
        program = torch.export.export(component.module, empty_inputs(component))
        # An empty table keeps attention, norms and linear layers whole; coremltools wants this form.
        return program.run_decompositions({})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """What one call computes: number of Core ML operations by name, and the shape of each output."""

    operations: dict[str, int]
    output_shapes: tuple[tuple[int, ...], ...]


def inspect_call(component: Component) -> CallFacts:
    """Return what one call computes, from the torch side and without computing.

    The network runs once on the meta device while every call of a torch function in ``CORE_ML_OPERATIONS`` is counted.
    """
    tensors = dict(component.module.named_parameters()) | dict(component.module.named_buffers())
    without_memory = {name: torch.empty_like(item, device="meta") for name, item in tensors.items()}
    counter = _CallCounter()
    with evaluating(component.module), counter:
        outputs = functional_call(component.module, without_memory, empty_inputs(component, "meta"))
    counts = Counter(component.operations)
    for function, number in counter.calls.items():
        if function in CORE_ML_OPERATIONS:
            counts[CORE_ML_OPERATIONS[function]] += number
    return CallFacts(
        operations={name: counts[name] for name in dict.fromkeys(CORE_ML_OPERATIONS.values())},
        output_shapes=tuple(tuple(item.shape) for item in as_tuple(outputs)),
    )


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    """Return the outputs of a module as a tuple, also when there is only one."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


class _CallCounter(TorchFunctionMode):
    """Counts calls of torch functions by name; calls from inside a counted one are not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # torch's signature
        self.calls[getattr(func, "__name__", str(func))] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode, without gradients, for as long as the block runs."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
