"""The section ``search.scenario``: what of the scenario is chosen together with the architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from nas.config.section import Count, Section

if TYPE_CHECKING:
    from typing import Self

Size = tuple[Count, Count]
NAMES = ("denoising_steps", "frames", "size", "weight_bits")


class WorthSection(Section):
    """What the user holds each value worth, added to the quality; as many numbers as the choice has values.

    A statement, not a measurement: no loss compares clips of different lengths or sizes. The unit is the score's.
    """

    denoising_steps: tuple[float, ...] | None = None
    frames: tuple[float, ...] | None = None
    size: tuple[float, ...] | None = None
    weight_bits: tuple[float, ...] | None = None


class ScenarioSearch(Section):
    """Values to choose among; each list is optional and holds the run's own value. Sizes are height and width in px.

    ``weight_bits`` are those of ``device.weights``, whose ``form`` holds for all bits below 16.
    """

    denoising_steps: tuple[Count, ...] | None = None
    frames: tuple[Count, ...] | None = None
    size: tuple[Size, ...] | None = None
    weight_bits: tuple[Literal[16, 8, 6, 4], ...] | None = None
    worth: WorthSection = WorthSection()

    @model_validator(mode="after")
    def _lists_fit(self) -> Self:
        if not self.names():
            raise ValueError(f"needs at least one of {', '.join(NAMES)}")
        for name in NAMES:
            values, worth = getattr(self, name), getattr(self.worth, name)
            if values is not None and (not values or len(set(values)) != len(values)):
                raise ValueError(f"{name} needs one or more different values, got {_listed(values)}")
            if worth is not None and len(worth) != len(values or ()):
                raise ValueError(
                    f"worth.{name} needs one number for each value of {name}, {len(values or ())}, got {len(worth)}"
                )
        return self

    def names(self) -> tuple[str, ...]:
        """Names of what is a choice."""
        return tuple(name for name in NAMES if getattr(self, name) is not None)


def _listed(values: tuple[object, ...]) -> list[object]:
    return [list(value) if isinstance(value, tuple) else value for value in values]
