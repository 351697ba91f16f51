"""A space of architectures and scenarios: the slots of a temporal space and one more, whose options are scenarios."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from nas.core.architecture import Architecture, ChoiceSpec, ChoiceValue
from nas.core.scenario import SCENARIO_SLOT, scenario_point
from search_spaces.categorical import CategoricalSpace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nas.core.scenario import Scenario, ScenarioPoint
    from nas.core.workload import Workload
    from search_spaces.temporal import TemporalSpace

SPACE_SUFFIX = "+scenario"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioValues:
    """Values of the scenario that a search chooses among, in the user's order; empty where it is no choice.

    Attributes:
        denoising_steps: Numbers of denoising steps.
        frames: Numbers of latent frames.
        size: Heights and widths in pixels.
        weight_bits: Bits of a stored weight.
    """

    denoising_steps: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    size: tuple[tuple[int, int], ...] = ()
    weight_bits: tuple[int, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Names of what is a choice, in a fixed order."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))


class JointSpace:
    """Architecture and scenario chosen together; meets ``nas.core.protocols.SearchSpace``.

    An architecture of this space has the choices of its inner architecture and ``scenario.denoising_steps``,
    ``scenario.frames``, ``scenario.size`` (``512x512``, height first) and ``scenario.weight_bits`` as far as they are
    choices, so that its digest tells scenarios apart. The last slot, ``scenario``, has one option a combination.

    Args:
        inner: The space of architectures.
        values: What the scenario is chosen from.

    Raises:
        ValueError: Nothing is a choice, or a value is repeated.
    """

    def __init__(self, inner: TemporalSpace, values: ScenarioValues) -> None:
        if not values.names():
            raise ValueError("a joint space needs at least one choice of the scenario")
        self.inner = inner
        self.values = values
        self.name = f"{inner.name}{SPACE_SUFFIX}"
        self.version = inner.version
        slots: dict[str, list[ChoiceSpec]] = {slot: [] for slot in inner.slots()}
        for choice in inner.choices():
            slots[choice.name.rpartition(".")[0]].append(choice)
        slots[SCENARIO_SLOT] = [
            ChoiceSpec(name=f"{SCENARIO_SLOT}.{name}", values=tuple(map(_as_choice, getattr(values, name))))
            for name in values.names()
        ]
        self._categorical = CategoricalSpace(self.name, self.version, slots)
        self._points = tuple(scenario_point(option) for option in self._categorical.options(SCENARIO_SLOT))

    @property
    def identifier(self) -> str:
        """Name and version: ``tiny+scenario/1``."""
        return self._categorical.identifier

    @property
    def points(self) -> tuple[ScenarioPoint, ...]:
        """Every combination, in the order of the options of the last slot."""
        return self._points

    def choices(self) -> tuple[ChoiceSpec, ...]:
        """Every choice, those of the scenario last."""
        return self._categorical.choices()

    def slots(self) -> tuple[str, ...]:
        """Names of the temporal slots in execution order, then ``scenario``."""
        return self._categorical.slots()

    def options(self, slot: str) -> tuple[Mapping[str, ChoiceValue], ...]:
        """Distinct canonical settings of one slot; keys are full choice names."""
        return self._categorical.options(slot)

    def count(self) -> int:
        """Exact number of distinct pairs of architecture and scenario."""
        return self._categorical.count()

    def encode(self, architecture: Architecture) -> tuple[int, ...]:
        """Index vector over ``choices()``; inactive choices are 0."""
        return self._categorical.encode(architecture)

    def decode(self, indices: Sequence[int]) -> Architecture:
        """Architecture of an index vector, inactive positions dropped."""
        return self._categorical.decode(indices)

    def from_options(self, options: Sequence[int]) -> Architecture:
        """Architecture with option ``options[i]`` in slot ``slots()[i]``."""
        return self._categorical.from_options(options)

    def to_options(self, architecture: Architecture) -> tuple[int, ...]:
        """Option index per slot; the inverse of ``from_options``."""
        return self._categorical.to_options(architecture)

    def validate(self, architecture: Architecture) -> None:
        """Raise ``ArchitectureError`` naming every fault, or return."""
        self._categorical.validate(architecture)

    def workload(self, architecture: Architecture, scenario: Scenario) -> Workload:
        """What the architecture computes in one denoiser call of its own scenario.

        Args:
            architecture: Of this space.
            scenario: Gives what is no choice.
        """
        inner, point = self.split(architecture)
        return self.inner.workload(inner, point.applied(scenario))

    def split(self, architecture: Architecture) -> tuple[Architecture, ScenarioPoint]:
        """Return the architecture of the inner space, which is built and trained, and the scenario it is meant for.

        Raises:
            ArchitectureError: The architecture is not of this space.
        """
        options = self.to_options(architecture)
        return self.inner.from_options(options[:-1]), self._points[options[-1]]

    def join(self, inner: Architecture, point: ScenarioPoint) -> Architecture:
        """Return the architecture of this space; the inverse of ``split``.

        Raises:
            ArchitectureError: The architecture is not of the inner space.
            ValueError: The point is none of this space's.
        """
        return self.from_options([*self.inner.to_options(inner), self._points.index(point)])


def _as_choice(value: int | tuple[int, int]) -> ChoiceValue:
    return value if isinstance(value, int) else f"{value[0]}x{value[1]}"
