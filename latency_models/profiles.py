"""Read, check and append profile records, one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from latency_models.record_checks import Located, check_records, problem_text
from nas.core.errors import InputError, Problem, ProfileError
from nas.core.files import JsonLines
from nas.core.profile import ProfileRecord, ProfileSet
from nas.core.scenario import ComputeUnits
from nas.core.schema import check_schema, from_data, to_data, with_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from nas.core.scenario import Scenario

_VERSION = 2


def call_label(scenario: Scenario) -> str:
    """Name what decides the cost of one denoiser call: ``8x32x32 float32 cpu_and_ne``; steps and guidance do not."""
    return f"{scenario.frames}x{scenario.height}x{scenario.width} {scenario.precision} {scenario.compute_units}"


def label_units(label: str) -> ComputeUnits:
    """Return the compute units that a ``call_label`` names; ``all`` where it names none."""
    last = label.rpartition(" ")[2]
    return next((setting for setting in get_args(ComputeUnits) if setting == last), "all")


def shape_label(item: Scenario | ProfileRecord) -> str:
    """Name what decides the shapes and formats of one call, whatever unit it runs on: ``8x32x32 float32``."""
    label = item.scenario if isinstance(item, ProfileRecord) else call_label(item)
    return " ".join(label.split(" ")[:2])


def generation_label(scenario: Scenario) -> str:
    """Name what decides the cost of one generation: the call, the steps, and guidance if any."""
    guided = " guided" if scenario.guidance else ""
    return f"{call_label(scenario)} {scenario.denoising_steps} steps{guided}"


def append_record(path: Path, record: ProfileRecord) -> None:
    """Append one record and force it to the disk.

    Raises:
        UnavailableError: The disk is full or the file cannot be written.
    """
    append_records(path, [record])


def append_records(path: Path, records: Iterable[ProfileRecord]) -> None:
    """Append several records with one write and force them to the disk.

    Raises:
        UnavailableError: The disk is full or the file cannot be written.
    """
    JsonLines(path).extend(record_data(record) for record in records)


def record_data(record: ProfileRecord) -> dict[str, Any]:
    """Return a record as one line of a profile file, its schema first."""
    return with_schema("profile_record", _VERSION, to_data(record))


def parse_record(data: Any, *, where: str) -> ProfileRecord:
    """Read one line of a profile file, of this version or the first.

    Raises:
        InputError: It is no record, or of an unknown version; all faults are named.
    """
    if isinstance(data, dict) and "schema" not in data:
        return from_data(ProfileRecord, _upgraded(data, where=where), where=where)
    return from_data(ProfileRecord, check_schema(data, "profile_record", _VERSION, where=where), where=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileReading:
    """What a profile file holds: usable records, faults of lines that were left out, warnings about kept ones."""

    located: tuple[Located, ...]
    dropped: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def profiles(self) -> ProfileSet:
        """The usable records."""
        return ProfileSet(records=tuple(item.record for item in self.located))

    def lines(self, *, most: int = 20) -> list[str]:
        """Return faults and warnings as lines for people, at most ``most`` of either."""
        left_out = [f"{problem_text(problem)}; left out" for problem in self.dropped]
        odd = [problem_text(problem) for problem in self.warnings]
        more = [f"and {len(found) - most} more like that" if len(found) > most else "" for found in (left_out, odd)]
        return [line for line in (*left_out[:most], more[0], *odd[:most], more[1]) if line]


def scan_profile(path: Path, *, scenario: str | None = None, device: str | None = None) -> ProfileReading:
    """Read a profile file and keep what can be used; a missing file is empty.

    Args:
        path: JSON Lines file that ``append_record`` wrote; an unfinished last line is ignored.
        scenario: The ``call_label`` that a record must have, or None for any.
        device: The device name that a record must have, or None for any.
    """
    located: list[Located] = []
    dropped: list[Problem] = []
    for line, data, fault in _numbered(path):
        if fault:
            dropped.append(Problem(message=fault, file=str(path), line=line))
            continue
        try:
            item = Located(record=parse_record(data, where="record"), file=str(path), line=line)
        except InputError as error:
            dropped.append(Problem(message=error.message, file=str(path), line=line))
            continue
        unlike = of_another_run(item.record, scenario=scenario, device=device)
        if unlike:
            dropped.append(item.problem(unlike))
        else:
            located.append(item)
    checked = check_records(located)
    faults = sorted([*dropped, *checked.dropped], key=lambda problem: problem.line or 0)
    return ProfileReading(
        located=checked.kept,
        dropped=tuple(faults),
        warnings=checked.warnings,
    )


def read_profile(path: Path, *, scenario: str | None = None, device: str | None = None) -> ProfileSet:
    """Read a profile file in which every line must be usable; see ``scan_profile``.

    Raises:
        ProfileError: Records are damaged, of another scenario or device, repeated or in mixed units; the message names
            file and lines of the first, ``problems`` has all.
    """
    reading = scan_profile(path, scenario=scenario, device=device)
    if reading.dropped:
        shown = "; ".join(problem_text(problem) for problem in reading.dropped[:5])
        more = f"; and {len(reading.dropped) - 5} more" if len(reading.dropped) > 5 else ""
        raise ProfileError(shown + more, hint="remove those lines to go on without them", problems=reading.dropped)
    return reading.profiles


def single_device(profiles: ProfileSet) -> str:
    """Return the one device of the records.

    Raises:
        ProfileError: There are no records, or they are of several devices.
    """
    found = sorted({record.device.name for record in profiles.records})
    if len(found) != 1:
        raise ProfileError(f"profile records must be of one device, found {', '.join(found) or 'no records'}")
    return found[0]


def _upgraded(data: dict[str, Any], *, where: str) -> dict[str, Any]:
    """Turn a record of version 1, which had no schema line, into one of version 2."""
    body = {key: value for key, value in data.items() if key not in {"cold_load_ms", "placement"}}
    if data.get("cold_load_ms") is not None:
        body["load"] = {"first_load_ms": data["cold_load_ms"]}
    if data.get("placement"):
        try:
            body["plan"] = [{"name": name, "kind": "unknown", "preferred": unit} for name, unit in data["placement"]]
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: placement is no list of operations and units") from error
    return body


def _numbered(path: Path) -> Iterator[tuple[int, Any, str]]:
    """Yield line number, data and fault of every line that is not empty; a torn last line is left out."""
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            yield number, json.loads(line), ""
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number < len(lines):
                yield number, None, f"damaged record: {error}"


def of_another_run(record: ProfileRecord, *, scenario: str | None, device: str | None) -> str:
    """Say what a record was measured for instead, or return an empty text; None stands for any."""
    for name, found, expected in (
        ("scenario", record.scenario, scenario),
        ("device", record.device.name, device),
    ):
        if expected is not None and not found:
            return f"{record.subject!r} states no {name}, this run is for {expected!r}"
        if expected is not None and found != expected:
            return f"{record.subject!r} was measured for {name} {found!r}, this run is for {expected!r}"
    return ""
