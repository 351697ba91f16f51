"""Architectures and the choices they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from nas.core.errors import InputError
from nas.core.files import canonical_json, sha256_text

ChoiceValue = str | int | float
T = TypeVar("T")


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
    """One point of a search space in canonical form: hashable, ordered by choice name, inactive choices removed.

    One made by ``from_record`` keeps its text and reads ``space`` and ``choices`` from it when they are first used, so
    that a journal of many opens quickly.
    """

    __slots__ = ("__dict__", "choices", "space")

    space: str
    choices: tuple[tuple[str, ChoiceValue], ...]

    def __init__(self, space: str, choices: Mapping[str, ChoiceValue]) -> None:
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "choices", tuple(sorted(choices.items())))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an architecture cannot be changed: {name}")

    def __getattr__(self, name: str) -> Any:
        """Read what a record has left unread; called for attributes that are not set."""
        record = self.__dict__.get("_record")
        if record is None or name not in ("choices", "space"):
            raise AttributeError(f"an architecture has no {name!r}")
        space, *parts = record.split(" ")
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "choices", tuple(map(_pair, parts)))
        del self.__dict__["_record"]
        if _digest(self.space, self.choices) != self.digest:
            raise InputError(
                f"architecture {self.digest} of the journal has choices of another digest: {record}",
                hint="the record was changed; restore the file or start a new run directory",
            )
        return getattr(self, name)

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
        return _digest(self.space, self.choices)

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

    def to_record(self) -> str | dict[str, Any]:
        """Return one line of digest and ``text`` for a journal; ``to_dict`` where ``text`` could be read otherwise."""
        parts = [_text(*pair) for pair in self.choices]
        if None in parts or " " in self.space:
            return self.to_dict()
        return " ".join([self.digest, self.space, *(part for part in parts if part)])

    @classmethod
    def from_record(cls, record: str | Mapping[str, Any]) -> Architecture:
        """Rebuild from ``to_record``; text is read when its choices are first used.

        Raises:
            ValueError: It is neither.
        """
        if not isinstance(record, str):
            if not isinstance(record, Mapping) or set(record) != {"space", "choices"}:
                raise ValueError(_FORMS)
            if not isinstance(record["choices"], Mapping):
                raise ValueError(_FORMS)
            return cls.from_dict(record)
        digest, _, text = record.partition(" ")
        if len(digest) != 16 or "/" not in text.partition(" ")[0]:
            raise ValueError(_FORMS)
        architecture = cls.__new__(cls)
        architecture.__dict__.update(digest=digest, _record=text)
        return architecture

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
            return cls.from_record(value)

        return core_schema.no_info_plain_validator_function(read)


_FORMS = 'an architecture is {"space": …, "choices": {…}} or a line "digest space/version name=value …"'


def _digest(space: str, choices: tuple[tuple[str, ChoiceValue], ...]) -> str:
    inside = ",".join([_json(name, value) for name, value in choices])
    return sha256_text(f'{{"choices":{{{inside}}},"space":{canonical_json(space)}}}')[:16]


def _pair_cache(function: Callable[[str, ChoiceValue], T]) -> Callable[[str, ChoiceValue], T]:
    """Compute each pair of a choice and its value once: a space has some hundred, a journal millions."""
    cached = lru_cache(maxsize=1 << 14, typed=True)(function)
    # 0.0 and -0.0 are one key, and two texts.
    return lambda name, value: cached(name, value) if value or type(value) is not float else function(name, value)


@_pair_cache
def _json(name: str, value: ChoiceValue) -> str:
    return f"{canonical_json(name)}:{canonical_json(value)}"


@_pair_cache
def _text(name: str, value: ChoiceValue) -> str | None:
    """Return ``name=value``; None where ``_pair`` would read something else."""
    text = f"{name}={value}"
    again = None if " " in text or "=" in name else _pair(text)
    return text if again == (name, value) and type(again[1]) is type(value) else None


@lru_cache(maxsize=1 << 14)
def _pair(text: str) -> tuple[str, ChoiceValue]:
    name, _, value = text.partition("=")
    return name, _value(value)


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
