"""The ``calibrate`` stage: fit the predictor to the profile and state its error on held-out networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models import CalibrationOptions, calibrate, call_label, choose_networks, read_profile, save_predictor
from nas.core.files import write_json
from nas.pipeline.context import present
from nas.pipeline.costs import prior_device

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.pipeline.context import Context


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Fit and cross-validate.

    Raises:
        ProfileError: The profile is damaged, mixed, or too small for the asked coverage.
    """
    config = context.config
    networks = choose_networks(context.space, present(config.profile, "profile").networks, context.streams)
    profiles = read_profile(
        context.path("profile", "records.jsonl"), scenario=call_label(context.scenario), device=config.device.name
    )
    predictor, report = calibrate(
        profiles,
        {network.digest: context.space.workload(network, context.scenario) for network in networks},
        context.scenario,
        prior_device(context),
        CalibrationOptions(
            coverage=config.budget.coverage,
            folds=present(config.calibrate, "calibrate").folds,
            seed=context.streams.integer("folds"),
        ),
    )
    progress.update(1, 1)
    save_predictor(folder / "predictor.json", predictor)
    write_json(folder / "report.json", report.to_dict())
    error = report.latency_error
    return (
        f"{report.num_networks} networks, each predicted by a fit without it: error {error.median_ape:.1%} median, "
        f"{error.mape:.1%} mean, {error.worst_ape:.1%} worst, Spearman {_number(error.spearman)}, "
        f"{error.stated_coverage:.0%} intervals cover {_share(error.coverage)}"
    )


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "too few to say" if value is None else f"{value:.0%}"
