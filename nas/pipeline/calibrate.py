"""The ``calibrate`` stage: fit the predictor to the profile and state its error on held-out networks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from latency_models import (
    CalibrationOptions,
    calibrate,
    choose_networks,
    covering_architectures,
    save_predictor,
    scan_profile,
)
from latency_models.profiles import shape_label
from latency_models.record_checks import problem_text
from nas.core.errors import ArchitectureError
from nas.core.files import write_json
from nas.core.profile import ProfileSet
from nas.pipeline.context import present
from nas.pipeline.costs import lowerings_of, prior_device, weights_of
from nas.pipeline.scenarios import shape_contexts, stage_folder

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from latency_models import CalibrationReport, ProfileReading
    from nas.core.architecture import Architecture
    from nas.core.profile import ProfileRecord
    from nas.core.protocols import Progress
    from nas.core.workload import Workload
    from nas.pipeline.context import Context
    from search_spaces.temporal import TemporalSpace

_log = logging.getLogger(__name__)
_NO_BLOCKS = (
    "no block was measured alone: all are priced by the device's prior, corrected by the whole networks; every "
    "estimate counts as outside the calibration and keeps at least the prior's interval"
)


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Fit and cross-validate, at every frames and size that is a choice of the search.

    Raises:
        ProfileError: The profile is damaged, mixed, or too small for the asked coverage.
    """
    shapes = shape_contexts(context)
    texts = []
    for number, own in enumerate(shapes, start=1):
        text = _calibrate(own, folder if own is context else stage_folder(own, "calibrate"))
        texts.append(f"{shape_label(own.scenario)}: {text}" if len(shapes) > 1 else text)
        progress.update(number, len(shapes))
    return "\n  ".join(texts)


def _calibrate(context: Context, folder: Path) -> str:
    config = context.config
    section = present(config.calibrate, "calibrate")
    profiles, faults = read_records(context)
    for line in faults:
        _log.warning("%s", line)
    predictor, report = calibrate(
        profiles,
        known_workloads(profiles, context),
        context.scenario,
        prior_device(context),
        CalibrationOptions(
            coverage=config.budget.coverage,
            folds=section.folds,
            os_build=section.os_build,
            compute_unit=section.compute_unit,
            weights=weights_of(config.device),
            lowerings=lowerings_of(config.device),
            seed=context.streams.integer("folds"),
        ),
    )
    save_predictor(folder / "predictor.json", predictor)
    write_json(folder / "report.json", report.to_dict())
    return summary_text(report) + (f"\n  {len(faults)} faults in the records, see the warnings" if faults else "")


def read_records(context: Context) -> tuple[ProfileSet, list[str]]:
    """Return the usable records of the run's profile, and a line for every fault found in the rest."""
    reading = scan_profile(stage_folder(context, "profile") / "records.jsonl", device=context.config.device.name)
    profiles, unknown = _of_this_space(reading, context)
    return profiles, [*reading.lines(), *unknown]


def summary_text(report: CalibrationReport) -> str:
    """Return what a calibration found for people: a line on its error, and one on each thing out of the ordinary."""
    error = report.latency_error
    unsteady = [block for block in report.worst_blocks if block.repeat_ratio > 1.0]
    worst = ", ".join(f"{block.signature} x{block.repeat_ratio:.2f}" for block in unsteady[:3])
    lines = [
        f"{report.num_networks} networks, each predicted by a fit without it: error {error.median_ape:.1%} median, "
        f"{error.mape:.1%} mean, {error.worst_ape:.1%} worst, Spearman {_number(error.spearman)}, "
        f"{error.stated_coverage:.0%} intervals cover {_share(error.coverage)}",
        f"blocks whose repeats disagree most: {worst or 'none was measured twice'}"
        if report.num_blocks
        else _NO_BLOCKS,
    ]
    lines += _interval_lines(report)
    lines += [
        f"{group.os_build or 'unnamed OS'} on {group.compute_unit}: {group.ratio:.3f} times the best known "
        f"(standard deviation {group.ratio_sd:.1%}), {group.num_records} records"
        for group in report.groups
        if len(report.groups) > 1
    ]
    counts = report.records
    unusual = [
        (len(report.outliers), f"outliers given little weight: {', '.join(report.outliers[:3])}"),
        (counts.throttled_samples, "samples taken while the device was hot, left out"),
        (counts.throttled_records, "records taken while the device was hot, left out where there were others"),
        (counts.anchored_records, "records taken while the device was hot, kept: their anchor divides it out"),
        (counts.drifting_records, "records that drifted, left out where there were others"),
        (counts.warmup_samples, "samples slower than the rest at the start of a record, left out"),
        (report.num_bounds, "measurements stopped at a limit, used as bounds"),
        (report.num_infeasible, "blocks or networks that did not compile, load or run"),
    ]
    return "\n  ".join([*lines, *(f"{count} {text}" for count, text in unusual if count)])


def _interval_lines(report: CalibrationReport) -> list[str]:
    """Return what the error of networks is made of, and how well single blocks are known."""
    lines = []
    parts, check = report.latency_error_parts, report.block_check
    if parts is not None:
        lines.append(
            f"the error is made of {parts.model_ratio:.1%} model, {parts.repeat_ratio:.1%} a single reading, "
            f"{parts.shift_ratio:.1%} shift of a pass (standard deviations)"
        )
    if check is not None and check.repeat_ratio is not None:
        lines.append(
            f"single blocks: measured ones within {check.repeat_ratio - 1:.1%} (covers "
            f"{_share(check.repeat_coverage)}), "
            + (
                f"others within a factor of {check.prior_ratio:.2f} (covers {_share(check.prior_coverage)})"
                if check.prior_ratio is not None
                else "too few to say of others"
            )
        )
    return lines


def _of_this_space(reading: ProfileReading, context: Context) -> tuple[ProfileSet, list[str]]:
    """Split off networks that are not of the run's space and version; return the rest and a line for each.

    Phases are in neither: their price is their measurement, no predictor is fitted to them.
    """
    kept, faults = [], []
    drawn = {network.digest for network in _drawn(reading.profiles, context)}
    for item in reading.located:
        if item.record.level == "phase":
            continue
        fault = None if item.record.level == "block" else foreign(item.record, context.space, drawn)
        if fault:
            faults.append(f"{problem_text(item.problem(fault))}; left out")
        else:
            kept.append(item.record)
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


def known_workloads(profiles: ProfileSet, context: Context) -> dict[str, Workload]:
    """Return the workloads of every network in the records, and of enough others to know every block of the space.

    A network is rebuilt from the architecture in its record or, in older files, from the run's draw.
    """
    networks = {network.digest: network for network in _drawn(profiles, context)}
    networks |= {item.subject: item.architecture for item in profiles.records if item.architecture is not None}
    recorded = {record.subject for record in profiles.records}
    chosen = [network for digest, network in networks.items() if digest in recorded]
    return {
        network.digest: context.space.workload(network, context.scenario)
        for network in (*covering_architectures(context.space), *chosen)
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
