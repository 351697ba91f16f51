"""Which quality estimators a run's YAML names, built for the search stage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from nas.config.quality import Estimator, ShortTrainingEstimator
    from nas.config.search import ProxyEstimator, SensitivityEstimator, SupernetEstimator
    from nas.core.protocols import Progress, QualityEstimator
    from nas.models.stored_forms import StoredForm
    from nas.pipeline.context import Context
    from nas.quality.held_out_loss import SupernetQuality
    from nas.quality.options import ShortTrainingOptions, SupernetOptions
    from nas.quality.sensitivity import SensitivityQuality
    from nas.quality.short_training import SharedStart, ShortTraining
    from nas.quality.supernet import Supernet
    from nas.search.judging import QualityLevel
    from nas.training.stage import StageResult

ESTIMATORS = {
    "levels": "several of the others, cheapest first: the best of each level are judged at the next",
    "proxy": "training-free proxy by name: grad_norm, synflow, feature_alignment, parameters, flops; ranks at most",
    "removal_sensitivity": "sums of what changing slots does to a trained supernet's loss (toy space)",
    "short_training": "every candidate trained alone for some steps from a backbone or a supernet (toy space)",
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


def _estimator(context: Context, section: Estimator, folder: Path, progress: Progress) -> QualityEstimator:
    return in_scenario(context, _of_architectures(context, section, folder, progress))


def _of_architectures(context: Context, section: Estimator, folder: Path, progress: Progress) -> QualityEstimator:
    if section.type == "supernet":
        return _supernet(context, section, folder, progress)
    if section.type == "removal_sensitivity":
        return _sensitivity(context, section, folder, progress)
    if section.type == "short_training":
        return _short_training(context, section, folder, progress)
    if section.type == "proxy":
        return _proxy(context, section, folder, progress)
    from nas.quality.capacity import TemporalCapacity

    return TemporalCapacity(context.space, context.scenario)


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
    from nas.quality.held_out_loss import supernet_quality

    trained = _trained_supernet(context, section.options, clips=section.clips, folder=folder, progress=progress)
    return supernet_quality(
        trained.kit,
        seed=context.streams.integer("supernet"),
        trained_steps=trained.steps,
        num_clips=section.held_out_clips,
        times=section.times,
        most_steps=max(context.joint.values.denoising_steps, default=0) if context.joint else 0,
        form=cast("StoredForm", context.config.device.weights.form) if context.config.device.weights else "palettised",
    )


def _trained_supernet(
    context: Context, options: SupernetOptions, *, clips: int, folder: Path, progress: Progress
) -> StageResult:
    """Train the run's supernet, or go on with it, or read it."""
    require_toy_space(context, "a supernet")
    from nas.quality.supernet import make_supernet, on_backbone, train_supernet
    from nas.training.data import make_latent_clips

    kit = make_supernet(context.space, seed=context.streams.integer("supernet"), sharing=options.sharing)
    if options.backbone_steps:
        from nas.quality.options import ShortTrainingOptions

        shared = ShortTrainingOptions(backbone_steps=options.backbone_steps, clips=clips)
        kit = on_backbone(kit, _backbone(context, shared, folder, progress).kit)
    data = make_latent_clips(clips, codec=kit.own_codec, captions=kit.captions, seed=context.config.run.seed)
    return train_supernet(
        kit, data, options=options, folder=folder / "supernet", streams=context.streams, progress=progress
    )


def _sensitivity(
    context: Context, section: SensitivityEstimator, folder: Path, progress: Progress
) -> SensitivityQuality:
    trained = _trained_supernet(context, section.options, clips=section.clips, folder=folder, progress=progress)
    from nas.quality.sensitivity import supernet_sensitivities

    return supernet_sensitivities(
        trained.kit,
        reference=section.reference,
        pairs=section.pairs,
        seed=context.streams.integer("supernet"),
        num_clips=section.held_out_clips,
        trained_steps=trained.steps,
        progress=progress,
    )


def _short_training(
    context: Context, section: ShortTrainingEstimator, folder: Path, progress: Progress
) -> ShortTraining:
    """Return the estimator; with a teacher, ``folder`` holds the trained supernet of a level below."""
    require_toy_space(context, "quality 'short_training'")
    from nas.quality.options import ShortTrainingOptions
    from nas.quality.short_training import ShortTraining, shared_start

    names = ShortTrainingOptions.__dataclass_fields__
    options = ShortTrainingOptions(**{name: getattr(section, name) for name in names})
    is_teacher = getattr(section, "teacher", None) is not None
    if section.start == "backbone" and not is_teacher:
        return ShortTraining(
            context.space, _backbone(context, options, folder, progress), options.loop, layers=options.layers
        )
    from nas.quality.supernet import load_supernet
    from nas.training.data import make_latent_clips

    seed = context.streams.integer("supernet")
    if is_teacher:
        kit = load_supernet(context.space, folder / "supernet", seed=seed)
        kit = kit.with_denoiser(cast("Supernet", kit.denoiser).extract(context.space.largest()))
    else:
        kit = _trained_supernet(context, section.supernet, clips=section.clips, folder=folder, progress=progress).kit
    data = make_latent_clips(section.clips, codec=kit.own_codec, captions=kit.captions, seed=context.config.run.seed)
    start = shared_start(kit, options, data=data, seed=seed, is_teacher=is_teacher)
    return ShortTraining(context.space, start, options.loop, layers=options.layers)


def _backbone(context: Context, options: ShortTrainingOptions, folder: Path, progress: Progress) -> SharedStart:
    from nas.quality.short_training import trained_start

    return trained_start(context.space, options, folder=folder / "backbone", streams=context.streams, progress=progress)


def _proxy(context: Context, section: ProxyEstimator, folder: Path, progress: Progress) -> QualityEstimator:
    from nas.quality.proxies import NEED_CLIPS, make_proxy

    if section.name not in NEED_CLIPS:
        return make_proxy(section.name, context.space, scenario=context.scenario, start=None)
    require_toy_space(context, f"proxy {section.name!r}")
    from nas.quality.options import ShortTrainingOptions

    options = ShortTrainingOptions(
        backbone_steps=section.backbone_steps, clips=section.clips, held_out_clips=section.held_out_clips
    )
    start = _backbone(context, options, folder, progress)
    if section.name != "feature_alignment":
        return make_proxy(section.name, context.space, scenario=context.scenario, start=start)
    from nas.quality.alignment import alignment_to_largest

    loop = replace(options, steps=section.teacher_steps).loop
    return alignment_to_largest(
        context.space,
        start,
        loop=loop,
        folder=folder / "alignment_teacher",
        streams=context.streams,
        progress=progress,
    )
