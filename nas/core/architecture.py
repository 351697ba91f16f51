"""Architectures and the choices they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nas.core.files import canonical_json, sha256_text

ChoiceValue = str | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceSpec:
    """One named decision and its fixed set of values.

    ``active_when`` lists conditions on other choices, all of which must hold: ``(("down0.0.kind", ("conv1d",)),)``.
    An inactive choice is left out of the canonical architecture.
    """

    name: str
    values: tuple[ChoiceValue, ...]
    active_when: tuple[tuple[str, tuple[ChoiceValue, ...]], ...] = ()

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"choice {self.name!r} has no values")
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"choice {self.name!r} repeats a value: {self.values}")


class Architecture(Mapping[str, ChoiceValue]):
    """One point of a search space in canonical form: hashable, ordered by choice name, inactive choices removed."""

    __slots__ = ("__dict__", "choices", "space")

    space: str
    choices: tuple[tuple[str, ChoiceValue], ...]

    def __init__(self, space: str, choices: Mapping[str, ChoiceValue]) -> None:
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "choices", tuple(sorted(choices.items())))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an architecture cannot be changed: {name}")

    def __getitem__(self, name: str) -> ChoiceValue:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    def __hash__(self) -> int:
        return hash((self.space, self.choices))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Architecture):
            return NotImplemented
        return self.space == other.space and self.choices == other.choices

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value}" for name, value in self.choices)
        return f"Architecture({self.space} {self.digest}: {inside})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Architecture, (self.space, dict(self.choices))

    @cached_property
    def _by_name(self) -> dict[str, ChoiceValue]:
        return dict(self.choices)

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        return sha256_text(canonical_json(self.to_dict()))[:16]

    @property
    def text(self) -> str:
        """One line for tables and job lists: ``tiny/1 mid.kind=conv1d mid.kernel=3``; ``from_text`` reads it."""
        return " ".join([self.space, *(f"{name}={value}" for name, value in self.choices)])

    @classmethod
    def from_text(cls, text: str) -> Architecture:
        """Rebuild from ``text``.

        Raises:
            ValueError: It does not begin with ``space/version``, or a part is not ``name=value``.
        """
        space, *parts = text.split()
        if "/" not in space:
            raise ValueError(f"an architecture's text begins with its space and version, as in 'tiny/1', got {space!r}")
        pairs = [part.partition("=") for part in parts]
        broken = [name for name, equals, value in pairs if not (name and equals and value)]
        if broken:
            raise ValueError(f"an architecture's text is 'space/version name=value …', got {broken[0]!r}")
        return cls(space, {name: _value(value) for name, _, value in pairs})

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"space": …, "choices": {…}}``."""
        return {"space": self.space, "choices": dict(self.choices)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Rebuild from ``to_dict``; whether it belongs to its space is the space's ``validate`` to say."""
        return cls(str(data["space"]), dict(data["choices"]))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        def read(value: Any) -> Architecture:
            if isinstance(value, Architecture):
                return value
            whole = isinstance(value, dict) and set(value) == {"space", "choices"}
            if not whole or not isinstance(value["choices"], dict):
                raise ValueError('an architecture is {"space": …, "choices": {…}}')
            return cls.from_dict(value)

        return core_schema.no_info_plain_validator_function(read)


def _value(text: str) -> ChoiceValue:
    """Read a value as ``str`` printed it: whole numbers, then others, then text."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text:
            return number
    return text
