"""The ``train`` section: data, network, stages, and what all stages share."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from nas.config.section import Count, Positive, Section
from nas.training.options import (
    MAIN_STAGES,
    AdversarialOptions,
    CollectionOptions,
    ConsistencyOptions,
    DistillationOptions,
    EvaluationOptions,
    ProgressiveOptions,
    StageName,
    TeacherOptions,
    TrajectoryOptions,
)


class ProceduralData(Section):
    """The project's own captioned clips, for the space ``tiny``.

    ``clips`` of them are made once and kept in memory; with ``fresh`` none is kept, each is drawn by its number when a
    step wants it, so ``clips`` may be as many as all steps together see.
    """

    type: Literal["procedural"] = "procedural"
    clips: Count = 8192
    fresh: bool = False


class ShardsData(Section):
    """Latents and text embeddings in a folder of shards; its last ``held_out`` clips are kept for evaluation."""

    type: Literal["shards"]
    path: str
    held_out: Count = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLoop:
    """Options of ``LoopOptions`` for every stage at once; a stage's own ``loop`` goes before, null changes nothing."""

    batch_size: Count | None = None
    accumulation: Count | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    gradient_checkpointing: bool | None = None
    sharding: Literal["none", "full"] | None = None
    checkpoint_every: Count | None = None
    log_every: Count | None = None
    threads: Count | None = None
    tensorboard: bool | None = None


class TrainSection(Section):
    """Stages that turn an architecture into a few-step model; each sub-section is a stage's options.

    ``architecture`` is ``selected`` by the search, ``largest``, ``smallest``, the digest of a candidate of the search,
    or a JSON file with its choices. The teacher is the largest network of the space, or with ``teacher_from`` a
    finished network: a stage's folder, or a ``denoiser`` folder in it. ``image_weights`` is a local SD v1.5 UNet that
    the backbones begin with. ``gpu_memory_gb`` (10^9 bytes) is what a step may need on one GPU: an H200's by default
    (141 GB: NVIDIA's data sheet, 2024).
    """

    needs_gpu: bool = False
    data: Annotated[ProceduralData | ShardsData, Field(discriminator="type")] = ProceduralData()
    architecture: str = "selected"
    stages: tuple[StageName, ...] = MAIN_STAGES
    teacher_from: str | None = None
    image_weights: str | None = None
    gpu_memory_gb: Positive = 141.0
    loop: SharedLoop = SharedLoop()
    teacher: TeacherOptions = TeacherOptions()
    distillation: DistillationOptions = DistillationOptions()
    collection: CollectionOptions = CollectionOptions()
    trajectory: TrajectoryOptions = TrajectoryOptions()
    adversarial: AdversarialOptions = AdversarialOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    consistency: ConsistencyOptions = ConsistencyOptions()
    progressive: ProgressiveOptions = ProgressiveOptions()


def share_loop(train: dict[str, Any]) -> dict[str, Any]:
    """Lay ``train.loop`` under the given ``loop`` of every stage; a faulty one is left for the validation to name."""
    shared = train.get("loop")
    try:
        TypeAdapter(SharedLoop).validate_python(shared or {})
    except ValidationError:
        return train
    given = {key: value for key, value in (shared or {}).items() if value is not None}
    merged = dict(train)
    for name, info in TrainSection.model_fields.items():
        own = train.get(name, {})
        if given and is_dataclass(info.default) and hasattr(info.default, "loop") and isinstance(own, dict):
            loop = own.get("loop", {})
            merged[name] = {**own, "loop": {**given, **loop}} if isinstance(loop, dict) else own
    return merged
