"""Which quality estimators a run's YAML names, built for the search stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from nas.config.quality import ShortTrainingEstimator
    from nas.config.search import CapacityEstimator, SupernetEstimator
    from nas.core.protocols import Progress, QualityEstimator
    from nas.models.stored_forms import StoredForm
    from nas.pipeline.context import Context
    from nas.quality.held_out_loss import SupernetQuality
    from nas.quality.short_training import ShortTraining
    from nas.quality.supernet import Supernet
    from nas.search.judging import QualityLevel

ESTIMATORS = {
    "levels": "several of the others, cheapest first: the best of each level are judged at the next",
    "short_training": "every candidate trained alone for some steps from a common backbone (toy space)",
    "supernet": "weight-sharing network trained once; scores by held-out flow-matching loss (toy space)",
    "temporal_capacity": "training-free analytic proxy of the temporal layers; ranks, does not measure quality",
}


def make_levels(context: Context, folder: Path, progress: Progress) -> tuple[QualityLevel, ...]:
    """Return the levels of quality, one where the run has a single estimator.

    A supernet, or the backbone of short trainings, is trained in ``folder`` first, or goes on, or is read from it.

    Raises:
        ConfigError: An estimator that trains is asked for outside the toy space.
        TrainingError: Its training diverged.
    """
    from nas.search.judging import QualityLevel

    section = context.config.quality
    if section.type != "levels":
        return (QualityLevel(estimator=_estimator(context, section, folder, progress)),)
    return tuple(
        QualityLevel(
            estimator=_estimator(context, level, folder, progress),
            price=level.price,
            resources=None if level.resources is None else level.resources.build(),
        )
        for level in section.levels
    )


def _estimator(
    context: Context,
    section: SupernetEstimator | CapacityEstimator | ShortTrainingEstimator,
    folder: Path,
    progress: Progress,
) -> QualityEstimator:
    if section.type == "supernet":
        return in_scenario(context, _supernet(context, section, folder / "supernet", progress))
    if section.type == "short_training":
        return in_scenario(context, _short_training(context, section, folder, progress))
    from nas.quality.capacity import TemporalCapacity

    return in_scenario(context, TemporalCapacity(context.space, context.scenario))


def in_scenario(context: Context, estimator: QualityEstimator) -> QualityEstimator:
    """Return an estimator of the run's candidates: of pairs of architecture and scenario where both are searched.

    What the estimator does not judge itself counts as the user stated in ``search.scenario.worth``, else as nothing.
    """
    if context.joint is None or context.config.search is None or context.config.search.scenario is None:
        return estimator
    from nas.quality.in_scenario import ScenarioQuality

    stated, values = context.config.search.scenario.worth, context.joint.values
    names = [name for name in values.names() if name not in getattr(estimator, "judges", ())]
    worth = {name: getattr(stated, name) or (0.0,) * len(getattr(values, name)) for name in names}
    return ScenarioQuality(context.joint, estimator, worth=worth)


def require_toy_space(context: Context, what: str) -> None:
    """Raise unless the run's space fits the project's own clips.

    Raises:
        ConfigError: It does not.
    """
    if context.space.name != "tiny":
        raise ConfigError(
            f"{what} trains on the project's own 32 x 32 px clips, which fit space 'tiny', not {context.space.name!r}",
            hint="training at full size needs latents of real video, which this release does not read yet",
        )


def _supernet(context: Context, section: SupernetEstimator, folder: Path, progress: Progress) -> SupernetQuality:
    require_toy_space(context, "quality 'supernet'")
    from nas.quality.held_out_loss import supernet_quality
    from nas.quality.supernet import make_supernet, train_supernet
    from nas.training.data import make_latent_clips

    seed = context.streams.integer("supernet")
    kit = make_supernet(context.space, seed=seed)
    data = make_latent_clips(section.clips, codec=kit.own_codec, captions=kit.captions, seed=context.config.run.seed)
    result = train_supernet(
        kit, data, options=section.options, folder=folder, streams=context.streams, progress=progress
    )
    return supernet_quality(
        result.kit,
        seed=seed,
        trained_steps=result.steps,
        num_clips=section.held_out_clips,
        most_steps=max(context.joint.values.denoising_steps, default=0) if context.joint else 0,
        form=cast("StoredForm", context.config.device.weights.form) if context.config.device.weights else "palettised",
    )


def _short_training(
    context: Context, section: ShortTrainingEstimator, folder: Path, progress: Progress
) -> ShortTraining:
    """Return the estimator; with a teacher, ``folder`` holds the trained supernet of a level below."""
    require_toy_space(context, "quality 'short_training'")
    from nas.quality.options import ShortTrainingOptions
    from nas.quality.short_training import ShortTraining, shared_start, trained_start

    names = ShortTrainingOptions.__dataclass_fields__
    options = ShortTrainingOptions(**{name: getattr(section, name) for name in names})
    if getattr(section, "teacher", None) is None:
        start = trained_start(
            context.space, options, folder=folder / "backbone", streams=context.streams, progress=progress
        )
        return ShortTraining(context.space, start, options.loop)
    from nas.quality.supernet import load_supernet
    from nas.training.data import make_latent_clips

    seed = context.streams.integer("supernet")
    kit = load_supernet(context.space, folder / "supernet", seed=seed)
    teacher = kit.with_denoiser(cast("Supernet", kit.denoiser).extract(context.space.largest()))
    data = make_latent_clips(section.clips, codec=kit.own_codec, captions=kit.captions, seed=context.config.run.seed)
    start = shared_start(teacher, options, data=data, seed=seed, is_teacher=True)
    return ShortTraining(context.space, start, options.loop)
