"""What can be said of a program's values when there is nothing to compare it with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas.core.errors import InputError
from nas.export.mil.chain import execute_chain
from nas.export.mil.values import Constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from nas.export.mil.executor import Step
    from nas.export.mil.program import Program

FLOAT16_MAX = float(torch.finfo(torch.float16).max)
# Inputs beyond this are a damaged shape: 512 frames of 4 x 256 x 256 latents have an eighth of it.
MAX_INPUT_ELEMENTS = 1 << 30
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRanges:
    """Values that a program took on its way.

    Attributes:
        largest: Largest absolute finite value.
        largest_at: Operation that gave it.
        first_not_finite: First operation that gave a value that is not finite, None when none did.
        beyond_float16: Operations whose float16 results leave its range when computed in float32.
    """

    largest: float
    largest_at: str
    first_not_finite: str | None
    beyond_float16: tuple[str, ...]

    @property
    def words(self) -> str:
        """Say what leaves float16."""
        count = len(self.beyond_float16)
        return f"{count} results leave float16, first {self.beyond_float16[0]}" if count else "all fit float16"


def not_numbers(program: Program) -> Iterator[str]:
    """Yield the location of every operation that holds a NaN among its constants; infinities may be masks."""
    for function in program.functions.values():
        for operation in function.operations:
            held = [operation.value, *(item for bindings in operation.inputs.values() for item in bindings)]
            for item in held:
                if isinstance(item, Constant) and item.type.element.is_float and bool(np.isnan(item.array()).any()):
                    yield f"{operation.location} ({item.where})"
                    break


def seeded_inputs(programs: Sequence[Program]) -> tuple[dict[str, Tensor], str]:
    """Return inputs for programs of unknown meaning: standard normal floats, zeros for whole numbers; and in words.

    Raises:
        InputError: An axis has no fixed length, or an input is absurdly large.
    """
    generator = torch.Generator().manual_seed(SEED)
    inputs: dict[str, Tensor] = {}
    made: set[str] = set()
    for program in programs:
        function = program.function()
        for port in function.inputs:
            if port.name in made or port.name in inputs:
                continue
            shape = [axis for axis in port.type.shape if axis is not None]
            if len(shape) != len(port.type.shape):
                raise InputError(f"{program.path}: input {port.name!r} is {port.type}: its shape is not fixed")
            if math.prod(shape) > MAX_INPUT_ELEMENTS:
                raise InputError(f"{program.path}: input {port.name!r} is {port.type}: absurdly large")
            if port.type.element.is_float:
                inputs[port.name] = torch.randn(shape, generator=generator).half().float()
            else:
                inputs[port.name] = torch.zeros(shape, dtype=port.type.element.compute)
        made |= set(function.outputs)
    return inputs, f"standard normal numbers (seed {SEED}), zeros for whole numbers"


def value_ranges(programs: Sequence[Program], inputs: Mapping[str, Tensor]) -> ValueRanges:
    """Compute programs in float32 and note the range of every result.

    Raises:
        NasError: Whatever ``execute`` raises.
    """
    notes = _Notes()
    execute_chain(programs, inputs, watch=notes)
    return ValueRanges(
        largest=notes.largest,
        largest_at=notes.largest_at,
        first_not_finite=notes.not_finite,
        beyond_float16=tuple(notes.beyond),
    )


class _Notes:
    def __init__(self) -> None:
        self.largest, self.largest_at = 0.0, "the inputs"
        self.not_finite: str | None = None
        self.beyond: list[str] = []

    def __call__(self, step: Step) -> None:
        where = step.operation.location
        for port, result in zip(step.operation.outputs, step.results, strict=True):
            if not port.type.element.is_float or not result.numel():
                continue
            low, high = (float(item) for item in torch.aminmax(result))
            peak = max(-low, high)
            if not math.isfinite(low) or not math.isfinite(high):
                self.not_finite = self.not_finite or where
            elif peak > self.largest:
                self.largest, self.largest_at = peak, where
            if port.type.element.name == "float16" and not peak <= FLOAT16_MAX:
                self.beyond.append(where)
