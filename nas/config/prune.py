"""The YAML of ``nas prune``: which image network, under which limits, scored and distilled how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from nas.config.document import Document, apply_overrides, read_document
from nas.config.run import DeviceSection, RunSection, ScenarioSection, over_defaults
from nas.config.section import Count, Positive, Section
from nas.config.train import ShardsData
from nas.config.validation import validate
from nas.training.options import (
    DistillationOptions,
    ImportanceOptions,
    LoopOptions,
    NoiseOptions,
    RobustOptions,
    TeacherOptions,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_IMAGES = NoiseOptions(image_ratio=1.0)
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class SourceSection(Section):
    """The network to prune: a name of ``search_spaces.sources``, and where its weights are.

    ``weights`` is a diffusers folder or one safetensors file of SD v1.5's layout. With procedural data the network is
    trained on from there, or from fresh weights; with shards it is taken as it is.
    """

    name: str
    weights: str | None = None


class PruneBudget(Section):
    """Limits on one call of the pruned network, absolute or as a ratio of the source's; at least one."""

    latency_ms: Positive | None = None
    latency_ratio: Share | None = None
    parameters: Count | None = None
    parameters_ratio: Share | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for name in ("latency", "parameters"):
            absolute = "latency_ms" if name == "latency" else name
            if getattr(self, absolute) is not None and getattr(self, f"{name}_ratio") is not None:
                raise ValueError(f"takes {absolute} or {name}_ratio, not both")
        if all(value is None for value in self.model_dump().values()):
            raise ValueError("needs a limit: latency_ms, latency_ratio, parameters or parameters_ratio")
        return self


class ProceduralImages(Section):
    """Frames of the project's own captioned clips: ``clips`` to train on, ``held_out`` to judge removals on."""

    type: Literal["procedural"] = "procedural"
    clips: Count = 4096
    held_out: Count = 256


class PruneConfig(Section):
    """One pruning.

    ``scores`` is a JSON file of loss rises by unit (``{"down_blocks.0.attentions.0": 0.01, …}``, or with
    ``{"mean": …, "standard_error": …}``) from elsewhere: then nothing is trained or measured, and only the choice is
    made. ``method`` ``best`` makes both choices and takes the one whose measured rise is smaller. ``predictor`` is a
    calibrated predictor's run directory or file; the device's uncalibrated prior counts without one. Of the clips in
    ``data`` single frames are used, or the images that shards hold beside clips.
    """

    run: RunSection
    source: SourceSection
    scenario: ScenarioSection
    device: DeviceSection
    budget: PruneBudget
    predictor: str | None = None
    scores: str | None = None
    method: Literal["greedy", "exact", "best"] = "best"
    per_round: Count = 1
    exchanges: Annotated[int, Field(ge=0)] = 24
    data: Annotated[ProceduralImages | ShardsData, Field(discriminator="type")] = ProceduralImages()
    teacher: TeacherOptions = TeacherOptions(loop=LoopOptions(steps=1200), noise=_IMAGES)
    robust: RobustOptions = RobustOptions()
    importance: ImportanceOptions = ImportanceOptions()
    distillation: DistillationOptions = DistillationOptions(noise=_IMAGES, start_from_teacher=False)


def load_prune(path: Path, overrides: tuple[str, ...] = ()) -> tuple[PruneConfig, Document]:
    """Read and validate the YAML of a pruning.

    Raises:
        InputError: The file is missing or no text.
        ConfigError: With every fault, each with its line.
    """
    document = read_document(path)
    apply_overrides(document, overrides)
    document.data = over_defaults(PruneConfig, document.data)
    return validate(document, PruneConfig), document
