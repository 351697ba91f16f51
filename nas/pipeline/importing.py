"""Take measurements of the run's device from a file into its profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency_models import append_records, call_label, distinct_blocks, scan_profile
from latency_models.importers import ImportOptions, ImportResult, read_file
from latency_models.importers.detection import detect
from latency_models.importers.kits import KitManifest, read_manifest
from latency_models.profiles import of_another_run
from latency_models.record_checks import check_records, problem_text
from nas.config.run import RunConfig
from nas.core.errors import Problem, ProfileError
from nas.core.scenario import Scenario
from nas.core.schema import to_data
from nas.pipeline.calibrate import foreign
from nas.pipeline.checks import HOSTS
from nas.pipeline.costs import prior_of
from nas.pipeline.expected import expected_calls
from nas.pipeline.spaces import space_of
from search_spaces.temporal import TemporalSpace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.record_checks import Located
    from nas.core.profile import ProfileRecord
    from nas.runs.directory import RunDirectory

_SHOWN = 20
# A chip's rated peak is up to 2.3 times the sustained one that the device files give (35 TOPS of 8 bits on an A18 Pro
# are 17.5 TFLOP/s of 16 beside 7.64), and Winograd's 3x3 convolutions save 2.25 of the multiplications counted here.
_BEYOND_PEAK = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What a file gave.

    Attributes:
        file: The file.
        format: Its format.
        kept: Records for the run's profile, by level; failures are counted as level ``failed``.
        already: Records that the profile holds already.
        dropped: Rows that cannot be used, with file and line.
        warnings: Records that are used although something is odd about them.
        remarks: What else was not read.
        written: Whether the profile was added to.
        dry_run: Whether it was only to be said what would be added.
    """

    file: str
    format: str
    kept: dict[str, int]
    already: int
    dropped: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    remarks: tuple[str, ...]
    written: bool
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return to_data(self)  # type: ignore[no-any-return]  # a dataclass gives a dict

    def lines(self) -> list[str]:
        """Return the counts, then every fault and warning up to a screen of them."""
        parts = [f"{count} {level}" for level, count in self.kept.items()]
        done = "would import" if self.dry_run else "imported"
        head = f"{self.file} ({self.format}): {done} {sum(self.kept.values())} records"
        head += f" ({', '.join(parts)})" if parts else ""
        head += f", {self.already} already there, {len(self.dropped)} left out"
        faults = [f"  left out: {problem_text(problem)}" for problem in self.dropped]
        odd = [f"  kept: {problem_text(problem)}" for problem in self.warnings]
        return [head, *_first(faults), *_first(odd), *(f"  {remark}" for remark in self.remarks)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The run that measurements are for; ``profile`` may not exist yet, ``kits`` are those written for it, by name."""

    config: RunConfig
    space: TemporalSpace
    scenario: Scenario
    profile: Path
    kits: Mapping[str, KitManifest]


def target_of(config: RunConfig, directory: RunDirectory | None) -> Target:
    """Return what a run imports into; ``directory`` is None for a run that has not begun, which holds nothing yet.

    Raises:
        ConfigError: The search space is unknown.
        InputError: The manifest of a kit is damaged.
    """
    parent = directory.path if directory else Path(config.run.directory) / config.run.name
    return Target(
        config=config,
        space=space_of(config.space),
        scenario=config.scenario.build(),
        profile=parent / "profile" / "records.jsonl",
        kits=kits_of(directory.path) if directory else {},
    )


def kits_of(run: Path) -> dict[str, KitManifest]:
    """Return the kits that were written for a run, by name; see ``nas.pipeline.kit``.

    Raises:
        InputError: A manifest is damaged.
    """
    manifests = [read_manifest(file) for file in sorted((run / "kits").glob("*.json"))]
    return {manifest.kit: manifest for manifest in manifests}


def import_file(
    path: Path, target: Target, options: ImportOptions, *, format_name: str = "auto", write: bool = True
) -> ImportReport:
    """Add a file's records of the run's device, scenario and space to its profile; a record is added once.

    Args:
        path: The file.
        target: The run.
        options: What the file does not say itself; the scenario is the run's where none is given.
        format_name: A name of ``latency_models.importers.FORMATS``, or ``auto``.
        write: Whether to add, or only to say what would be added.

    Raises:
        ConfigError: The format is unknown.
        InputError: The file is missing, or damaged as a whole, or nothing in it can be used.
        UnavailableError: The profile cannot be written.
    """
    name = detect(path) if format_name == "auto" else format_name
    scenario = options.scenario or call_label(target.scenario)
    result = read_file(path, replace(options, scenario=scenario, kits=target.kits), format_name=name)
    mine, dropped = _of_this_run(result, target)
    present = scan_profile(target.profile)
    known = {item.record for item in present.located}
    new = [item for item in mine if item.record not in known]
    expected_ms, least_ms = _expected_ms(target, new)
    checked = check_records([*present.located, *new], expected_ms=expected_ms, least_ms=least_ms)
    added = [item for item in checked.kept if item.file == str(path)]
    gates = [problem for problem in checked.dropped if problem.file == str(path)]
    report = ImportReport(
        file=str(path),
        format=name,
        kept=_counts(item.record for item in added),
        already=len(mine) - len(new),
        dropped=tuple(sorted([*result.problems, *dropped, *gates], key=lambda problem: problem.line or 0)),
        warnings=tuple(problem for problem in checked.warnings if problem.file == str(path)),
        remarks=result.remarks,
        written=write and bool(added),
        dry_run=not write,
    )
    if report.dropped and not added and not report.already:
        raise ProfileError("\n".join(report.lines()), hint="nothing was imported", problems=report.dropped)
    if report.written:
        append_records(target.profile, [item.record for item in added])
    return report


def _of_this_run(result: ImportResult, target: Target) -> tuple[list[Located], list[Problem]]:
    kept: list[Located] = []
    dropped: list[Problem] = []
    label, device = call_label(target.scenario), target.config.device.name
    blocks = distinct_blocks(target.space, target.scenario)
    for item in result.located:
        fault = of_another_run(item.record, scenario=label, device=device)
        fault = fault or _foreign(item.record, target.space, blocks)
        if fault:
            dropped.append(item.problem(fault))
        else:
            kept.append(item)
    return kept, dropped


def _foreign(record: ProfileRecord, space: TemporalSpace, blocks: Iterable[str]) -> str:
    if record.level == "block" and record.subject not in blocks:
        return f"{record.subject!r} is no block of {space.identifier!r} in this run's scenario"
    return (foreign(record, space) or "") if record.level == "network" else ""


def _expected_ms(target: Target, located: Iterable[Located]) -> tuple[dict[str, float], dict[str, float]]:
    """Return what the prior says of every measured subject, and how short a time no chip of the kind could reach."""
    records = [item.record for item in located if item.record.samples_ms]
    if not records:
        return {}, {}
    networks = {
        record.subject: record.architecture
        for record in records
        if record.architecture is not None and record.level == "network"
    }
    found = expected_calls(target.config, target.space, target.scenario, networks.values())
    expected = {subject: call.call_ms for subject, call in found.items()}
    if target.config.device.name in HOSTS:
        return expected, {}  # their files describe no particular machine
    per_ms = 1e-3 * _BEYOND_PEAK * sum(unit.peak_flops.value for unit in prior_of(target.config.device).units)
    return expected, {subject: call.flops / per_ms for subject, call in found.items()}


def _counts(records: Iterable[ProfileRecord]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        level = "failed" if record.failure is not None else record.level
        counts[level] = counts.get(level, 0) + 1
    return dict(sorted(counts.items()))


def _first(lines: list[str]) -> list[str]:
    return [*lines[:_SHOWN], *([f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])]
