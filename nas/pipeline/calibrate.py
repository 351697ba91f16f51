"""The ``calibrate`` stage: fit the predictor to the profile and state its error on held-out networks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from latency_models import CalibrationOptions, calibrate, call_label, choose_networks, save_predictor, scan_profile
from nas.core.errors import ArchitectureError
from nas.core.files import write_json
from nas.core.profile import ProfileSet
from nas.pipeline.context import present
from nas.pipeline.costs import prior_device

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.profile import ProfileRecord
    from nas.core.protocols import Progress
    from nas.core.workload import Workload
    from nas.pipeline.context import Context
    from search_spaces.temporal import TemporalSpace

_log = logging.getLogger(__name__)


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Fit and cross-validate.

    Raises:
        ProfileError: The profile is damaged, mixed, or too small for the asked coverage.
    """
    config = context.config
    reading = scan_profile(
        context.path("profile", "records.jsonl"), scenario=call_label(context.scenario), device=config.device.name
    )
    profiles, unknown = _of_this_space(reading.profiles, context)
    for line in [*reading.lines(), *unknown]:
        _log.warning("%s", line)
    predictor, report = calibrate(
        profiles,
        _workloads(profiles, context),
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
    left_out = len(reading.dropped) + len(unknown)
    return (
        f"{report.num_networks} networks, each predicted by a fit without it: error {error.median_ape:.1%} median, "
        f"{error.mape:.1%} mean, {error.worst_ape:.1%} worst, Spearman {_number(error.spearman)}, "
        f"{error.stated_coverage:.0%} intervals cover {_share(error.coverage)}"
        + (f"; {left_out} records left out, see the warnings" if left_out else "")
    )


def _of_this_space(profiles: ProfileSet, context: Context) -> tuple[ProfileSet, list[str]]:
    """Split off networks that are not of the run's space and version; return the rest and a line for each."""
    kept, faults = [], []
    drawn = {network.digest for network in _drawn(profiles, context)}
    for record in profiles.records:
        fault = None if record.level == "block" else foreign(record, context.space, drawn)
        if fault:
            faults.append(f"{fault}; left out")
        else:
            kept.append(record)
    return ProfileSet(records=tuple(kept)), faults


def foreign(record: ProfileRecord, space: TemporalSpace, known: Collection[str] = ()) -> str | None:
    """Say why a record is of no network of ``space``, or return None.

    Args:
        record: Of a network.
        space: The run's search space.
        known: Digests of networks that need no stored architecture.
    """
    architecture = record.architecture
    if architecture is None:
        return None if record.subject in known else f"{record.subject!r} stores no architecture and is not of this run"
    if architecture.space != space.identifier:
        return f"{record.subject!r} is of space {architecture.space!r}, this run searches {space.identifier!r}"
    try:
        space.validate(architecture)
    except ArchitectureError as error:
        return f"{record.subject!r} is no architecture of {error.message}"
    return None


def _workloads(profiles: ProfileSet, context: Context) -> dict[str, Workload]:
    """Workload of every measured network, from the architecture in its record or, in older files, the run's draw."""
    networks = {network.digest: network for network in _drawn(profiles, context)}
    networks |= {item.subject: item.architecture for item in profiles.records if item.architecture is not None}
    measured = {record.subject for record in profiles.of_level("network")}
    return {
        digest: context.space.workload(network, context.scenario)
        for digest, network in networks.items()
        if digest in measured
    }


def _drawn(profiles: ProfileSet, context: Context) -> tuple[Architecture, ...]:
    """Return the run's own random networks, which records of the first version hold by digest alone."""
    if all(record.architecture is not None for record in profiles.records if record.level == "network"):
        return ()
    return choose_networks(context.space, present(context.config.profile, "profile").networks, context.streams)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "too few to say" if value is None else f"{value:.0%}"
