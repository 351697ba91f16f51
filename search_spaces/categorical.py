"""A search space made of categorical choices grouped by slot, with exact counting and index vectors."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from nas.core.architecture import Architecture, ChoiceSpec, ChoiceValue
from nas.core.errors import ArchitectureError, Problem, ProblemCollector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Setting = dict[str, ChoiceValue]


class CategoricalSpace:
    """Choices grouped by slot; a choice may depend on earlier choices of its own slot only.

    Because slots do not depend on each other, the number of architectures is the product of the numbers of distinct
    settings (options) of the slots.

    Args:
        name: Name of the space, without its version.
        version: Raised whenever a choice or value set changes.
        slots: Choices of every slot in execution order. The first value of the first choice stands for "nothing here".

    Raises:
        ValueError: A choice name is used twice, or a condition refers to something other than an earlier choice of
            the same slot.
    """

    def __init__(self, name: str, version: int, slots: Mapping[str, Sequence[ChoiceSpec]]) -> None:
        self.name = name
        self.version = version
        self._slots = {slot: tuple(choices) for slot, choices in slots.items()}
        self._choices = tuple(choice for choices in self._slots.values() for choice in choices)
        self._by_name = {choice.name: choice for choice in self._choices}
        if len(self._by_name) != len(self._choices):
            raise ValueError(f"space {name!r} uses a choice name twice")
        for slot, choices in self._slots.items():
            _check_conditions(slot, choices)

    @property
    def identifier(self) -> str:
        """Name and version: ``tiny/1``."""
        return f"{self.name}/{self.version}"

    def choices(self) -> tuple[ChoiceSpec, ...]:
        """Every choice, in the order of the index vector."""
        return self._choices

    def slots(self) -> tuple[str, ...]:
        """Names of the slots in execution order."""
        return tuple(self._slots)

    def options(self, slot: str) -> tuple[Mapping[str, ChoiceValue], ...]:
        """Distinct canonical settings of one slot; keys are full choice names.

        Raises:
            ArchitectureError: There is no such slot.
        """
        if slot not in self._slots:
            raise ArchitectureError(f"{self.identifier}: unknown slot {slot!r}; known are {', '.join(self._slots)}")
        return self._options[slot]

    def count(self) -> int:
        """Exact number of distinct architectures."""
        return prod(len(options) for options in self._options.values())

    def encode(self, architecture: Architecture) -> tuple[int, ...]:
        """Index vector over ``choices()``; inactive choices are 0.

        Raises:
            ArchitectureError: The architecture is not of this space.
        """
        self.validate(architecture)
        return tuple(
            choice.values.index(architecture[choice.name]) if choice.name in architecture else 0
            for choice in self._choices
        )

    def decode(self, indices: Sequence[int]) -> Architecture:
        """Architecture of an index vector; positions of inactive choices are ignored.

        Raises:
            ArchitectureError: The length or an index is out of range; all faults are named.
        """
        if len(indices) != len(self._choices):
            raise ArchitectureError(f"{self.identifier}: needs {len(self._choices)} indices, got {len(indices)}")
        faults = ProblemCollector()
        for choice, index in zip(self._choices, indices, strict=True):
            if not 0 <= index < len(choice.values):
                faults.add(f"index must be 0 to {len(choice.values) - 1}, got {index}", path=choice.name)
        self._raise(faults)
        setting: Setting = {}
        for choice, index in zip(self._choices, indices, strict=True):
            if _is_active(choice, setting):
                setting[choice.name] = choice.values[index]
        return Architecture(self.identifier, setting)

    def from_options(self, options: Sequence[int]) -> Architecture:
        """Architecture with option ``options[i]`` in slot ``slots()[i]``.

        Raises:
            ArchitectureError: The length or an option is out of range.
        """
        if len(options) != len(self._slots):
            raise ArchitectureError(f"{self.identifier}: needs {len(self._slots)} options, got {len(options)}")
        setting: Setting = {}
        for (slot, known), option in zip(self._options.items(), options, strict=True):
            if not 0 <= option < len(known):
                raise ArchitectureError(f"{self.identifier}: slot {slot!r} has {len(known)} options, got {option}")
            setting.update(known[option])
        return Architecture(self.identifier, setting)

    def to_options(self, architecture: Architecture) -> tuple[int, ...]:
        """Option index per slot; the inverse of ``from_options``.

        Raises:
            ArchitectureError: The architecture is not of this space.
        """
        options = self._known_options(architecture)
        if options is None:
            self.validate(architecture)
            raise AssertionError(f"{architecture!r} is valid and yet no combination of options")
        return options

    def validate(self, architecture: Architecture) -> None:
        """Return if the architecture is a canonical point of this space.

        Raises:
            ArchitectureError: Another space, an unknown or inactive choice, a missing choice or a value outside its
                set; every fault is named.
        """
        if self._known_options(architecture) is not None:
            return
        faults = ProblemCollector()
        if architecture.space != self.identifier:
            faults.add(f"belongs to space {architecture.space!r}, not to {self.identifier!r}", path="space")
        for name in architecture:
            if name not in self._by_name:
                near = get_close_matches(name, self._by_name, n=1)
                faults.add("unknown choice" + (f"; did you mean {near[0]!r}?" if near else ""), path=name)
        for choice in self._choices:
            fault = _fault_of(choice, architecture)
            if fault:
                faults.add(fault, path=choice.name)
        self._raise(faults)

    @cached_property
    def _options(self) -> dict[str, tuple[Setting, ...]]:
        return {slot: _settings(choices) for slot, choices in self._slots.items()}

    @cached_property
    def _numbers(self) -> tuple[tuple[tuple[str, ...], dict[tuple[Any, ...], int]], ...]:
        """By slot: the names of its choices, and the number of each option by their values and types."""
        numbers = []
        for slot, options in self._options.items():
            names = tuple(choice.name for choice in self._slots[slot])
            numbers.append((names, {_exactly(map(option.get, names)): at for at, option in enumerate(options)}))
        return tuple(numbers)

    def _known_options(self, architecture: Architecture) -> tuple[int, ...] | None:
        """Return the option index per slot, None for an architecture that is not of this space."""
        setting = dict(architecture.choices)
        if architecture.space != self.identifier or not setting.keys() <= self._by_name.keys():
            return None
        if not all(isinstance(value, (str, int, float)) for value in setting.values()):
            return None
        options = tuple(known.get(_exactly(map(setting.get, names)), -1) for names, known in self._numbers)
        return None if -1 in options else options

    def _raise(self, faults: ProblemCollector) -> None:
        if faults.problems:
            text = "; ".join(_text(problem) for problem in faults.problems[:8])
            more = len(faults.problems) - 8
            raise ArchitectureError(
                f"{self.identifier}: {text}" + (f"; and {more} more" if more > 0 else ""),
                problems=tuple(faults.problems),
            )


def _text(problem: Problem) -> str:
    return f"{problem.path}: {problem.message}"


def _exactly(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the values so that 1, 1.0 and True, equal in Python, stay apart: they are different JSON and digests."""
    given = tuple(values)
    return (*given, *map(type, given))


def _is_active(choice: ChoiceSpec, setting: Mapping[str, ChoiceValue]) -> bool:
    return all(name in setting and setting[name] in values for name, values in choice.active_when)


def _fault_of(choice: ChoiceSpec, architecture: Architecture) -> str | None:
    if not _is_active(choice, architecture):
        return "is set although its condition does not hold" if choice.name in architecture else None
    if choice.name not in architecture:
        return "is missing"
    value = architecture[choice.name]
    # 1 == 1.0 == True in Python, but they are different JSON and so different digests.
    if not any(type(value) is type(allowed) and value == allowed for allowed in choice.values):
        return f"must be one of {', '.join(map(repr, choice.values))}, got {value!r}"
    return None


def _settings(choices: tuple[ChoiceSpec, ...]) -> tuple[Setting, ...]:
    settings: list[Setting] = [{}]
    for choice in choices:
        settings = [
            {**setting, **addition}
            for setting in settings
            for addition in (
                [{choice.name: value} for value in choice.values] if _is_active(choice, setting) else [Setting()]
            )
        ]
    return tuple(settings)


def _check_conditions(slot: str, choices: tuple[ChoiceSpec, ...]) -> None:
    earlier: dict[str, ChoiceSpec] = {}
    for choice in choices:
        for name, values in choice.active_when:
            if name not in earlier:
                raise ValueError(f"choice {choice.name!r} depends on {name!r}, not an earlier choice of slot {slot!r}")
            if not set(values) <= set(earlier[name].values):
                raise ValueError(f"choice {choice.name!r} waits for values that {name!r} does not have: {values}")
        earlier[choice.name] = choice
