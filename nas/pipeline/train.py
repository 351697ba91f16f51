"""The ``train`` stage: teacher, distillation, trajectory distillation and adversarial tuning of the chosen network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nas.core.artefacts import TrainedModel
from nas.core.errors import ConfigError, InputError
from nas.core.files import sha256_path, write_json
from nas.core.schema import to_data, with_schema
from nas.models.build import build_denoiser
from nas.models.unet import VideoUNet
from nas.models.weights import load_image_weights
from nas.pipeline.context import present
from nas.pipeline.memory_plan import plan
from nas.pipeline.sample import PIPELINE, write_pipeline
from nas.pipeline.train_choice import chosen_network
from nas.quality.supernet import load_supernet, make_supernet
from nas.training.acceleration import training_device
from nas.training.compatibility import require_same_world
from nas.training.data import ProceduralClips, TrainingClips, make_latent_clips
from nas.training.held_out import ClipRange
from nas.training.noise import FIXED_TIMES, few_step_times
from nas.training.options import MAIN_STAGES, RecipeOptions
from nas.training.processes import is_main, num_processes, tell_all
from nas.training.recipe import sampler_of, train_model
from nas.training.shards import ShardedClips
from nas.training.stage import Kit, StageResult, load_kit

if TYPE_CHECKING:
    from nas.config.train import ProceduralData, ShardsData, TrainSection
    from nas.core.architecture import Architecture
    from nas.core.protocols import Progress
    from nas.pipeline.choice import Chosen
    from nas.pipeline.context import Context
    from nas.quality.supernet import Supernet
    from nas.training.recipe import RecipeResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the recipe is given: networks around their captions, and clips.

    ``held_out`` judges where there is no codec; ``taught`` is a teacher that was trained elsewhere.
    """

    teacher: Kit
    student: VideoUNet
    data: TrainingClips
    held_out: TrainingClips | None = None
    taught: StageResult | None = None


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Train the chosen network; finished stages are kept, an unfinished one goes on from its last checkpoint.

    Raises:
        ConfigError: Networks, clips and text do not fit each other.
        InputError: Clips, a teacher or a stage that is started from are missing or damaged.
        TrainingError: A loss is not finite or explodes; the last good checkpoint is kept.
    """
    if is_main():
        tell_all(str(context.directory.path))  # those that follow wait for it, see nas.pipeline.together
    section = present(context.config.train, "train")
    selected = chosen_network(context, context.train_choice.architecture or section.architecture)
    own = folder / selected.digest
    require_memory(selected, section, own, only=context.train_choice.only)
    material = prepare(selected, section)
    # Steps that the search chose are the student's; without that it is the recipe's four-step model, as published.
    times = few_step_times(selected.point.denoising_steps or len(FIXED_TIMES))
    only = context.train_choice.only
    result = train_model(
        material.teacher,
        material.student,
        material.data,
        options=recipe_options(section),
        folder=own,
        streams=context.streams,
        progress=progress,
        times=times,
        stages=(only,) if only else section.stages,
        held_out=material.held_out,
        taught=material.taught,
    )
    if is_main() and _is_the_model(own, result.final.stage):
        _record(own, selected.architecture, result)
        shards = Path(section.data.path) if section.data.type == "shards" else None
        sampler = sampler_of(result.final.stage, recipe_options(section))
        write_pipeline(result.final, own / PIPELINE, times=times, shards=shards, sampler=sampler)
    what = f"trained for {selected.point.text}; " if selected.point.text else ""
    return f"{what}{selected.digest}: {_figures(result, few_steps=len(times))}"


def require_memory(selected: Chosen, section: TrainSection, own: Path, *, only: str | None) -> None:
    """Hold every stage's step against the memory of the GPU, if there is one, and keep the plan beside the training.

    Raises:
        UnavailableError: A step needs more than ``train.gpu_memory_gb`` or the GPU has; with what would lower it.
    """
    import torch

    if not torch.cuda.is_available():
        return
    there_gb = torch.cuda.get_device_properties(training_device()).total_memory / 1e9
    limit_gb = min(section.gpu_memory_gb, there_gb)
    planned = plan(selected, section, limit_gb=limit_gb, processes=num_processes(), only=only)
    if is_main():
        write_json(own / "memory_plan.json", with_schema("memory_plan", 1, planned.data()))
    planned.require_fits()


def recipe_options(section: TrainSection) -> RecipeOptions:
    """Return the options of every stage of the YAML's section."""
    return RecipeOptions(**{name: getattr(section, name) for name in RecipeOptions.__dataclass_fields__})


def prepare(selected: Chosen, section: TrainSection) -> Material:
    """Return networks with their first weights, and clips.

    Raises:
        ConfigError: Networks, clips and text do not fit each other.
        InputError: Clips, a teacher or image weights are missing or damaged.
    """
    context, architecture = selected.context, selected.architecture
    taught = None if section.teacher_from is None else load_kit(Path(section.teacher_from))
    if section.data.type == "shards":
        material = _with_shards(context, architecture, section.data)
    else:
        material = _with_procedural(context, architecture, section.data, taught)
    if section.image_weights is not None:
        for network in (material.teacher.denoiser, material.student):
            load_image_weights(cast("VideoUNet", network), Path(section.image_weights))
    if taught is None:
        return material
    require_same_world(material.student, taught.denoiser, latent_shape=material.teacher.latent_shape)
    kit = material.teacher.with_denoiser(taught.denoiser)
    place = Path(str(section.teacher_from))
    result = StageResult(stage="teacher", folder=place, kit=kit, steps=0, loss=0.0, seconds=0.0, reused=True)
    return replace(material, teacher=kit, taught=result)


def _with_procedural(
    context: Context, architecture: Architecture, procedural: ProceduralData, taught: Kit | None
) -> Material:
    """Our own clips: with a supernet both networks start from their layers in it, otherwise from fresh weights.

    Captions and codec of a teacher that was trained elsewhere go before the fresh ones.
    """
    if context.space.name != "tiny":
        raise ConfigError(
            f"procedural clips are 32 x 32 px, which fit space 'tiny', not {context.space.name!r}",
            hint="write `data: {type: shards, path: DIR}` with latents that `nas data encode` made of your own clips",
        )
    scenario, seed = context.scenario, context.streams.integer("supernet")
    trained = context.path("search", "supernet")
    if (trained / "stage.json").is_file():
        kit = load_supernet(context.space, trained, seed=seed)
        supernet = cast("Supernet", kit.denoiser)
        teacher, student = supernet.extract(context.space.largest()), supernet.extract(architecture)
    else:
        kit = make_supernet(context.space, seed=seed)
        teacher, student = _fresh(context, architecture)
    kit = (taught or kit).with_denoiser(teacher).with_clips(frames=scenario.frames, size=scenario.height)
    data: TrainingClips
    seed, frames, size = context.config.run.seed, scenario.frames, scenario.height
    count, codec = procedural.clips, kit.own_codec
    if procedural.fresh:
        data = ProceduralClips(count=count, codec=codec, captions=kit.captions, seed=seed, frames=frames, size=size)
    else:
        data = make_latent_clips(count, codec=codec, captions=kit.captions, seed=seed, frames=frames, size=size)
    return Material(teacher=kit, student=student, data=data)


def _with_shards(context: Context, architecture: Architecture, section: ShardsData) -> Material:
    backbone, scenario = context.space.backbone, context.scenario
    clips = ShardedClips(Path(section.path))
    shape = (scenario.frames, backbone.latent_channels, *backbone.latent_size(scenario))
    clips.require(latent_shape=shape, text_width=backbone.text_width, network=context.space.identifier)
    if len(clips) <= section.held_out:
        raise InputError(
            f"{section.path}: holds {len(clips)} clips, and train.data.held_out keeps {section.held_out} of them back",
            hint="encode more clips, or lower train.data.held_out",
        )
    teacher, student = _fresh(context, architecture)
    border = len(clips) - section.held_out
    return Material(
        teacher=Kit(denoiser=teacher, captions=clips.captions(), codec=None, latent_shape=shape),
        student=student,
        data=ClipRange(clips=clips, first=0, end=border),
        held_out=ClipRange(clips=clips, first=border, end=len(clips)),
    )


def _fresh(context: Context, architecture: Architecture) -> tuple[VideoUNet, VideoUNet]:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.streams.integer("fresh-weights"))
        return build_denoiser(context.space, context.space.largest()), build_denoiser(context.space, architecture)


def _is_the_model(own: Path, stage: str) -> bool:
    """Whether a stage's network is the run's so far: no teacher, no baseline, and no later stage is finished."""
    if stage not in MAIN_STAGES[1:]:
        return False
    later = MAIN_STAGES[[*MAIN_STAGES].index(stage) + 1 :]
    return not any((own / name / "stage.json").is_file() for name in later)


def _record(own: Path, architecture: Architecture, result: RecipeResult) -> None:
    denoiser = f"{result.final.stage}/denoiser"
    model = TrainedModel(
        architecture=architecture,
        folder=f"train/{own.name}/{denoiser}",
        sha256=sha256_path(own / denoiser),
        stage=result.final.stage,
        steps=sum(stage.steps for stage in result.stages[1:]),
        metrics=tuple(result.rows[-1].metrics.items()) if result.rows else (),
    )
    write_json(own / "model.json", with_schema("trained_model", 1, to_data(model)))


def _figures(result: RecipeResult, *, few_steps: int) -> str:
    judged = [row for row in result.rows if "mean" in row.metrics]
    if judged:
        rows = {row.stage: row for row in judged if row.steps in (0, few_steps) or row.stage == "teacher"}
        return "mean attribute accuracy " + ", ".join(f"{row.name} {row.metrics['mean']:.2f}" for row in rows.values())
    return ", ".join(f"{row.name} {row.metrics['flow_loss']:.4f}" for row in result.rows) or "finished"
