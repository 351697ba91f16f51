"""The ``train`` stage: teacher, distillation, trajectory distillation and adversarial tuning of the chosen network."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nas.core.artefacts import TrainedModel
from nas.core.files import sha256_path, write_json
from nas.core.schema import to_data, with_schema
from nas.models.build import build_denoiser
from nas.pipeline.choice import chosen_member
from nas.pipeline.context import present
from nas.pipeline.quality import require_toy_space
from nas.quality.supernet import load_supernet, make_supernet
from nas.training.data import make_latent_clips
from nas.training.noise import FIXED_TIMES, few_step_times
from nas.training.options import RecipeOptions
from nas.training.recipe import train_model

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.protocols import Progress
    from nas.models.unet import VideoUNet
    from nas.pipeline.context import Context
    from nas.quality.supernet import Supernet
    from nas.training.stage import Kit

DENOISER = "adversarial/denoiser"


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Train the chosen network; finished stages are kept, an unfinished one goes on from its last checkpoint.

    Raises:
        ConfigError: The space is not the toy space.
        TrainingError: A loss is not finite; the last good checkpoint is kept.
    """
    require_toy_space(context, "the train stage")
    section = present(context.config.train, "train")
    selected = chosen_member(context)
    scenario, architecture = selected.context.scenario, selected.architecture
    teacher, student = _starting_networks(context, architecture)
    teacher = teacher.with_clips(frames=scenario.frames, size=scenario.height)
    data = make_latent_clips(
        section.clips,
        codec=teacher.codec,
        captions=teacher.captions,
        seed=context.config.run.seed,
        frames=scenario.frames,
        size=scenario.height,
    )
    options = RecipeOptions(
        teacher=section.teacher,
        distillation=section.distillation,
        collection=section.collection,
        trajectory=section.trajectory,
        adversarial=section.adversarial,
        evaluation=section.evaluation,
    )
    own = folder / selected.digest
    # Steps that the search chose are the student's; without that it is the recipe's four-step model, as published.
    times = few_step_times(selected.point.denoising_steps or len(FIXED_TIMES))
    result = train_model(
        teacher, student, data, options=options, folder=own, streams=context.streams, progress=progress, times=times
    )
    final = result.rows[-1]
    model = TrainedModel(
        architecture=architecture,
        folder=f"train/{selected.digest}/{DENOISER}",
        sha256=sha256_path(own / DENOISER),
        stage=result.final.stage,
        steps=sum(stage.steps for stage in result.stages[1:]),
        metrics=tuple(final.metrics.items()),
    )
    write_json(own / "model.json", with_schema("trained_model", 1, to_data(model)))
    rows = {row.stage: row for row in result.rows if row.steps in (0, len(times)) or row.stage == "teacher"}
    what = f"trained for {selected.point.text}; " if selected.point.text else ""
    accuracy = ", ".join(f"{row.name} {row.metrics['mean']:.2f}" for row in rows.values())
    return f"{what}mean attribute accuracy {accuracy}"


def _starting_networks(context: Context, architecture: Architecture) -> tuple[Kit, VideoUNet]:
    """Teacher and student: with a supernet both start from their layers in it, otherwise from fresh weights."""
    import torch

    seed = context.streams.integer("supernet")
    largest = context.space.largest()
    trained = context.path("search", "supernet")
    if (trained / "stage.json").is_file():
        kit = load_supernet(context.space, trained, seed=seed)
        supernet = cast("Supernet", kit.denoiser)
        return kit.with_denoiser(supernet.extract(largest)), supernet.extract(architecture)
    kit = make_supernet(context.space, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.streams.integer("fresh-weights"))
        return kit.with_denoiser(build_denoiser(context.space, largest)), build_denoiser(context.space, architecture)
