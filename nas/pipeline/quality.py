"""Which quality estimator a run's YAML names, built for the search stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from nas.config.search import SupernetEstimator
    from nas.core.protocols import Progress, QualityEstimator
    from nas.models.stored_forms import StoredForm
    from nas.pipeline.context import Context
    from nas.quality.held_out_loss import SupernetQuality

ESTIMATORS = {
    "supernet": "weight-sharing network trained once; scores by held-out flow-matching loss (toy space)",
    "temporal_capacity": "training-free analytic proxy of the temporal layers; ranks, does not measure quality",
}


def make_estimator(context: Context, folder: Path, progress: Progress) -> QualityEstimator:
    """Return the estimator; a supernet is trained in ``folder`` first, or goes on, or is read from it.

    Raises:
        ConfigError: A supernet is asked for outside the toy space.
        TrainingError: The supernet's training diverged.
    """
    section = context.config.quality
    if section.type == "supernet":
        return in_scenario(context, _supernet(context, section, folder / "supernet", progress))
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
    data = make_latent_clips(section.clips, codec=kit.codec, captions=kit.captions, seed=context.config.run.seed)
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
