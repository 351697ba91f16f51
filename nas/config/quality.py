"""The ``quality`` section: one estimator, or several levels of them from the cheapest to the dearest."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from nas.config.search import CapacityEstimator, SupernetEstimator
from nas.config.section import Count, Positive, Section
from nas.core.resources import Resources
from nas.quality.options import ShortTrainingOptions

if TYPE_CHECKING:
    from typing import Self

_DEFAULT = ShortTrainingOptions()


class ShortTrainingEstimator(Section):
    """Every candidate trained alone for ``steps`` from a common backbone without temporal layers; toy space only."""

    type: Literal["short_training"]
    steps: Count = _DEFAULT.steps
    batch_size: Count = _DEFAULT.batch_size
    learning_rate: Positive = _DEFAULT.learning_rate
    backbone_steps: Count = _DEFAULT.backbone_steps
    clips: Count = _DEFAULT.clips
    held_out_clips: Annotated[int, Field(ge=18)] = _DEFAULT.held_out_clips


class ResourcesSection(Section):
    """What one evaluation of a level reserves on an executor; the executor's own figures when left out."""

    cpus: Annotated[float, Field(ge=0.0)] = 1.0
    gpus: Annotated[float, Field(ge=0.0)] = 0.0
    memory_mb: Positive | None = None

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        self.build()
        return self

    def build(self) -> Resources:
        """Return the domain value."""
        return Resources(cpus=self.cpus, gpus=self.gpus, memory_mb=self.memory_mb)


class LevelSection(Section):
    """What a level has beside its estimator: the ``price`` of one evaluation, in evaluations of the highest level."""

    price: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    resources: ResourcesSection | None = None


class SupernetLevel(SupernetEstimator, LevelSection):
    """A supernet as a level."""

    type: Literal["supernet"]


class CapacityLevel(CapacityEstimator, LevelSection):
    """The training-free proxy as a level."""


class ShortTrainingLevel(ShortTrainingEstimator, LevelSection):
    """Short trainings as a level; with ``teacher`` they are distilled from the largest network of the supernet."""

    teacher: Literal["supernet"] | None = None


Level = SupernetLevel | CapacityLevel | ShortTrainingLevel


class LevelsEstimator(Section):
    """Several estimators, cheapest first; the last has price 1, and the front is made of what it judged.

    ``ratio`` fixes how many candidates are judged at a level for one at the next; left out, it is learned from how well
    they agree.
    """

    type: Literal["levels"]
    levels: Annotated[tuple[Annotated[Level, Field(discriminator="type")], ...], Field(min_length=2)]
    ratio: Annotated[float, Field(gt=1.0, le=1000.0)] | None = None

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        prices = [level.price for level in self.levels]
        if prices[-1] != 1.0 or any(low >= high for low, high in pairwise(prices)):
            raise ValueError(f"prices must rise from level to level and end with 1, the highest level's, got {prices}")
        supernets = [level for level in self.levels if isinstance(level, SupernetLevel)]
        if any((one.options, one.clips) != (supernets[0].options, supernets[0].clips) for one in supernets):
            raise ValueError("levels share one supernet: its options and clips must be equal at every level")
        trainings = [level for level in self.levels if isinstance(level, ShortTrainingLevel)]
        if any(
            (one.backbone_steps, one.clips) != (trainings[0].backbone_steps, trainings[0].clips) for one in trainings
        ):
            raise ValueError(
                "short trainings share one backbone: backbone_steps and clips must be equal at every level"
            )
        if any(level.teacher for level in trainings) and not supernets:
            raise ValueError("teacher 'supernet' needs a level of type supernet")
        return self


Quality = SupernetEstimator | CapacityEstimator | ShortTrainingEstimator | LevelsEstimator
