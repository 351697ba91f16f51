"""The table of kernels, and what a kernel is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from nas.core.errors import InputError, UnavailableError, VerificationError
from nas.export.mil.values import TensorType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Value = Tensor | tuple[str, ...]
Result = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of one operation, with their values.

    Every accessor raises ``InputError`` when the parameter is missing and no default is given.

    Attributes:
        location: Where the operation is, for messages.
        values: Values by parameter.
        outputs: Types that the program gives the results.
    """

    location: str
    values: dict[str, tuple[Value, ...]]
    outputs: tuple[TensorType, ...]

    def has(self, name: str) -> bool:
        """Whether the parameter is given."""
        return bool(self.values.get(name))

    def tensors(self, name: str) -> tuple[Tensor, ...]:
        """Return all tensors of a parameter."""
        found = self.values.get(name, ())
        tensors = tuple(item for item in found if isinstance(item, Tensor))
        if not tensors or len(tensors) != len(found):
            raise InputError(f"{self.location}: parameter {name!r} is missing or not a tensor")
        return tensors

    def tensor(self, name: str) -> Tensor:
        """Return the one tensor of a parameter."""
        tensors = self.tensors(name)
        if len(tensors) != 1:
            raise InputError(f"{self.location}: parameter {name!r} has {len(tensors)} values, needs one")
        return tensors[0]

    def optional(self, name: str) -> Tensor | None:
        """Return the one tensor of a parameter, None when it is not given."""
        return self.tensor(name) if self.has(name) else None

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        """Return a vector of whole numbers."""
        if default is not None and not self.has(name):
            return default
        return [int(item) for item in self.tensor(name).reshape(-1).tolist()]

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number."""
        return self.integers(name, None if default is None else [default])[0]

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number."""
        return default if default is not None and not self.has(name) else float(self.tensor(name).reshape(-1)[0])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a truth value."""
        return default if not self.has(name) else bool(self.tensor(name).reshape(-1)[0])

    def flags(self, name: str, count: int) -> list[bool]:
        """Return ``count`` truth values; all false when they are not given."""
        return [bool(item) for item in self.integers(name, [0] * count)]

    def text(self, name: str, default: str) -> str:
        """Return a word, as written."""
        found = self.values.get(name)
        if not found:
            return default
        if isinstance(found[0], Tensor) or len(found[0]) != 1:
            raise InputError(f"{self.location}: parameter {name!r} is not one word")
        return found[0][0]

    def stated(self, shape: Sequence[int]) -> list[int]:
        """Return the shape that a result is about to have, once the program states the same.

        Asked before memory is taken by operations whose result can be larger than what they read.

        Raises:
            VerificationError: The program states another shape: one of the two is damaged.
        """
        if not self.outputs[0].fits(shape):
            raise VerificationError(f"{self.location} gives {tuple(shape)}, stated {self.outputs[0]}")
        return list(shape)

    def unsupported(self, name: str, value: object) -> UnavailableError:
        """Return the error for a setting that no kernel computes."""
        return UnavailableError(f"{self.location}: {name} {value!r} cannot be computed here")


KERNELS: dict[str, Callable[[Inputs], Result]] = {}


def kernel(*names: str) -> Callable[[Callable[[Inputs], Result]], Callable[[Inputs], Result]]:
    """Register a function as the kernel of the operations ``names``."""

    def register(function: Callable[[Inputs], Result]) -> Callable[[Inputs], Result]:
        for name in names:
            if name in KERNELS:
                raise ValueError(f"two kernels for {name!r}")
            KERNELS[name] = function
        return function

    return register
