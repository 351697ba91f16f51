"""Read, check and append profile records, one JSON object a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.errors import InputError, ProfileError
from nas.core.files import JsonLines
from nas.core.profile import ProfileRecord, ProfileSet
from nas.core.schema import check_schema, from_data, to_data, with_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from nas.core.scenario import Scenario

_VERSION = 2


def call_label(scenario: Scenario) -> str:
    """Name what decides the cost of one denoiser call: ``8x32x32 float32 cpu_and_ne``; steps and guidance do not."""
    return f"{scenario.frames}x{scenario.height}x{scenario.width} {scenario.precision} {scenario.compute_units}"


def generation_label(scenario: Scenario) -> str:
    """Name what decides the cost of one generation: the call, the steps, and guidance if any."""
    guided = " guided" if scenario.guidance else ""
    return f"{call_label(scenario)} {scenario.denoising_steps} steps{guided}"


def append_record(path: Path, record: ProfileRecord) -> None:
    """Append one record and force it to the disk.

    Raises:
        UnavailableError: The disk is full or the file cannot be written.
    """
    JsonLines(path).append(record_data(record))


def record_data(record: ProfileRecord) -> dict[str, Any]:
    """Return a record as one line of a profile file, its schema first."""
    return with_schema("profile_record", _VERSION, to_data(record))


def parse_record(data: Any, *, where: str) -> ProfileRecord:
    """Read one line of a profile file, of this version or the first.

    Raises:
        InputError: It is no record, or of an unknown version; all faults are named.
    """
    if isinstance(data, dict) and "schema" not in data:
        return from_data(ProfileRecord, _upgraded(data), where=where)
    return from_data(ProfileRecord, check_schema(data, "profile_record", _VERSION, where=where), where=where)


def read_profile(path: Path, *, scenario: str | None = None, device: str | None = None) -> ProfileSet:
    """Read a profile file; a missing file is an empty set.

    Args:
        path: JSON Lines file that ``append_record`` wrote; an unfinished last line is ignored.
        scenario: The ``call_label`` that every record must have, or None for any.
        device: The device name that every record must have, or None for any.

    Raises:
        ProfileError: A record is damaged, or of another scenario or device; the message names file and line.
    """
    records = []
    for line, data in _numbered(path):
        where = f"{path}: line {line}"
        try:
            record = parse_record(data, where=where)
        except InputError as error:
            raise ProfileError(error.message, hint="remove that line to go on without it") from error
        _check_same(record, scenario=scenario, device=device, where=where)
        records.append(record)
    return ProfileSet(records=tuple(records))


def single_device(profiles: ProfileSet) -> str:
    """Return the one device of the records.

    Raises:
        ProfileError: There are no records, or they are of several devices.
    """
    found = sorted({record.device.name for record in profiles.records})
    if len(found) != 1:
        raise ProfileError(f"profile records must be of one device, found {', '.join(found) or 'no records'}")
    return found[0]


def _upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """Turn a record of version 1, which had no schema line, into one of version 2."""
    body = {key: value for key, value in data.items() if key not in {"cold_load_ms", "placement"}}
    if data.get("cold_load_ms") is not None:
        body["load"] = {"first_load_ms": data["cold_load_ms"]}
    if data.get("placement"):
        body["plan"] = [{"name": name, "kind": "unknown", "preferred": unit} for name, unit in data["placement"]]
    return body


def _numbered(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        records = JsonLines(path).read()
    except InputError as error:
        raise ProfileError(error.message, hint=error.hint) from error
    if not records:
        return
    lines = [number for number, line in enumerate(path.read_bytes().split(b"\n"), start=1) if line]
    yield from zip(lines, records, strict=False)  # the torn last line, if any, has no record


def _check_same(record: ProfileRecord, *, scenario: str | None, device: str | None, where: str) -> None:
    for name, found, expected in (
        ("scenario", record.scenario, scenario),
        ("device", record.device.name, device),
    ):
        if expected is not None and found != expected:
            raise ProfileError(
                f"{where}: {record.subject!r} was measured for {name} {found!r}, this run is for {expected!r}",
                hint="profile again in a new run directory; measurements do not carry over",
            )
