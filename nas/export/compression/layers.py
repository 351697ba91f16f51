"""How much noise each form of each weight puts on the output of the layers that read it: one pass over the program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.core.protocols import Progress, SilentProgress
from nas.export.compression.candidates import as_read
from nas.export.mil.executor import is_constant, steps
from nas.export.mil.operations import KERNELS, Inputs, Value
from nas.export.mil.values import Constant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nas.export.compression.cache import Cache, Errors
    from nas.export.compression.forms import Form
    from nas.export.compression.weights import Weight
    from nas.export.mil.program import Function, Operation, Program

# Noise where a layer's true output is zero throughout and the compressed one is not.
_NO_SIGNAL = 1e6


def measure_layers(
    program: Program,
    inputs: Mapping[str, Tensor],
    forms: Mapping[str, Sequence[Form]],
    weights: Sequence[Weight],
    *,
    cache: Cache,
    errors: Errors,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Measure what ``errors`` does not know yet, and return the program's outputs, computed in float32.

    At every operation that reads a weight the output is computed once more with each form's values on the same incoming
    activations; its noise is the mean square difference over the mean square of the true output.

    Args:
        program: In float16, not compressed.
        inputs: Tensor by input name.
        forms: Forms to measure, by weight.
        weights: The weights.
        cache: For look-up tables.
        errors: What is known; new errors are added weight by weight, sums over the operations that read a weight.
        progress: Told of every weight.

    Raises:
        NasError: Whatever ``execute`` raises.
    """
    report = progress or SilentProgress()
    function = program.function()
    missing = {
        weight.name: tuple(form for form in forms[weight.name] if errors.known(weight.name, form) is None)
        for weight in weights
    }
    by_reader: dict[int, list[Weight]] = {}
    for weight in weights:
        for reader in weight.readers if missing[weight.name] else ():
            by_reader.setdefault(reader, []).append(weight)
    memory = _Memory(program, function, set(by_reader), inputs)
    sums: dict[str, dict[Form, float]] = {}
    outputs = {name: tensor for name, tensor in inputs.items() if name in function.outputs}
    done, total = 0, sum(1 for found in missing.values() if found)
    for step in steps(program, inputs):
        for weight in by_reader.get(step.operation.index, ()):
            noise = sums.setdefault(weight.name, dict.fromkeys(missing[weight.name], 0.0))
            for form in noise:
                other = memory.recompute(step.operation, weight.name, as_read(weight, form, cache))
                noise[form] += noise_ratio(step.results[0], other)
            if step.operation.index == weight.readers[-1]:
                errors.add(weight.name, sums.pop(weight.name))
                done += 1
                report.update(done, total, weight.name)
        memory.keep(step.operation, step.results)
        for port, result in zip(step.operation.outputs, step.results, strict=True):
            if port.name in function.outputs:
                outputs[port.name] = result
    return outputs


def noise_ratio(expected: Tensor, found: Tensor) -> float:
    """Return the mean square difference over the mean square of ``expected``."""
    signal = float(expected.double().square().sum())
    noise = float((found.double() - expected.double()).square().sum())
    if signal == 0:
        return _NO_SIGNAL if noise else 0.0
    return noise / signal


class _Memory:
    """Activations that weighted operations still have to read."""

    def __init__(self, program: Program, function: Function, readers: set[int], inputs: Mapping[str, Tensor]) -> None:
        self.path = program.path
        self.constants = {
            op.outputs[0].name if op.outputs else op.name: op for op in function.operations if is_constant(op)
        }
        self.last = {name: op.index for op in function.operations if op.index in readers for name in op.used_names()}
        self.live = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}

    def keep(self, operation: Operation, results: Sequence[Tensor]) -> None:
        for port, result in zip(operation.outputs, results, strict=True):
            if self.last.get(port.name, -1) > operation.index:
                self.live[port.name] = result
        for name in operation.used_names():
            if self.last.get(name, operation.index) <= operation.index:
                self.live.pop(name, None)

    @torch.inference_mode()
    def recompute(self, operation: Operation, name: str, weight: Tensor) -> Tensor:
        def value(binding: str | Constant | tuple[str, ...]) -> Value:
            if binding == name:
                return weight
            if isinstance(binding, str):
                if binding in self.live:
                    return self.live[binding]
                stored = self.constants[binding].value
                return stored.tensor() if isinstance(stored, Constant) else stored or ()
            return binding.tensor() if isinstance(binding, Constant) else binding

        values = {key: tuple(map(value, bindings)) for key, bindings in operation.inputs.items()}
        result = KERNELS[operation.type](
            Inputs(
                location=f"{self.path}: {operation.location}",
                values=values,
                outputs=tuple(port.type for port in operation.outputs),
            )
        )
        return result[0] if isinstance(result, tuple) else result
