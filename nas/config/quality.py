"""The ``quality`` section: one estimator, or several levels of them from the cheapest to the dearest."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from nas.config.search import CapacityEstimator, ProxyEstimator, SensitivityEstimator, SupernetEstimator
from nas.config.section import Count, Positive, Section
from nas.core.resources import Resources
from nas.quality.options import ShortTrainingOptions, SupernetOptions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

_DEFAULT = ShortTrainingOptions()


class ShortTrainingEstimator(Section):
    """Every candidate trained alone for ``steps``; toy space only.

    All start from a common backbone without temporal layers, or inherit the weights of a ``supernet``, which is trained
    on ``clips`` clips first.
    """

    type: Literal["short_training"]
    start: Literal["backbone", "supernet"] = "backbone"
    supernet: SupernetOptions = SupernetOptions()
    steps: Count = _DEFAULT.steps
    batch_size: Count = _DEFAULT.batch_size
    learning_rate: Positive = _DEFAULT.learning_rate
    layers: Literal["all", "temporal"] = _DEFAULT.layers
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


class ProxyLevel(ProxyEstimator, LevelSection):
    """A training-free proxy by name as a level."""


class SensitivityLevel(SensitivityEstimator, LevelSection):
    """Sensitivities of a supernet as a level."""


class ShortTrainingLevel(ShortTrainingEstimator, LevelSection):
    """Short trainings as a level; with ``teacher`` they are distilled from the largest network of the supernet."""

    teacher: Literal["supernet"] | None = None

    @model_validator(mode="after")
    def _students_train_all(self) -> Self:
        if self.teacher and self.layers != "all":
            raise ValueError("students of a teacher train all layers: leave out layers, or the teacher")
        return self


Level = SupernetLevel | CapacityLevel | ProxyLevel | SensitivityLevel | ShortTrainingLevel


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
        if len(_distinct(_supernet_of(level) for level in self.levels)) > 1:
            raise ValueError("levels share one supernet: its options and clips must be equal at every level")
        if len(_distinct(_backbone_of(level) for level in self.levels)) > 1:
            raise ValueError("levels share one backbone: backbone_steps and clips must be equal at every level")
        names = [level.type for level in self.levels]
        taught = any(isinstance(level, ShortTrainingLevel) and level.teacher for level in self.levels)
        if taught and "supernet" not in names:
            raise ValueError("teacher 'supernet' needs a level of type supernet")
        return self


Estimator = SupernetEstimator | CapacityEstimator | ProxyEstimator | SensitivityEstimator | ShortTrainingEstimator
Quality = Estimator | LevelsEstimator


def _supernet_of(level: Level) -> object:
    if isinstance(level, (SupernetLevel, SensitivityLevel)):
        return level.options, level.clips
    if isinstance(level, ShortTrainingLevel) and level.start == "supernet":
        return level.supernet, level.clips
    return None


def _backbone_of(level: Level) -> object:
    if isinstance(level, (SupernetLevel, SensitivityLevel)) and level.options.backbone_steps:
        return level.options.backbone_steps, level.clips
    if isinstance(level, ShortTrainingLevel) and level.start == "supernet" and level.supernet.backbone_steps:
        return level.supernet.backbone_steps, level.clips
    if isinstance(level, ShortTrainingLevel) and level.start == "backbone" and level.teacher is None:
        return level.backbone_steps, level.clips
    if isinstance(level, ProxyLevel) and level.name in ("grad_norm", "feature_alignment"):
        return level.backbone_steps, level.clips
    return None


def _distinct(values: Iterable[object]) -> list[object]:
    kept: list[object] = []
    for value in values:
        if value is not None and value not in kept:
            kept.append(value)
    return kept
