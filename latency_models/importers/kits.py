"""Profiling kits: what their manifest says, how big and long they are, and whether a record is of one of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from latency_models.importers.device_record_schema import Configuration, DeviceRecord, Model
from nas.core.errors import InputError
from nas.core.files import canonical_json, read_json, sha256_text
from nas.core.scenario import Scenario
from nas.core.schema import check_schema, from_data, to_data, with_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MANIFEST = "manifest.json"
RECORD_SCHEMA = "device_record.schema.json"
ANCHOR_EVERY = 10  # jobs between two repeats of the anchor, to see drift by


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """How the runner measures each job; the constants of the protocol.

    Attributes:
        warmup: Calls before the first counted sample, the first call after loading apart.
        min_repeats: Counted samples at least.
        max_repeats: Counted samples at most.
        min_seconds: Measured time at least, within ``max_repeats``.
        rest_seconds: Pause after each job; it goes on while the device is warmer than nominal.
        first_rest_seconds: Pause before the first job.
        max_rest_seconds: The longest pause.
        sample_every_ms: Between two readings of the memory.
    """

    warmup: int = 3
    min_repeats: int = 20
    max_repeats: int = 1000
    min_seconds: float = 2.0
    rest_seconds: float = 1.0
    first_rest_seconds: float = 60.0
    max_rest_seconds: float = 600.0
    sample_every_ms: int = 10

    def call_seconds(self, call_ms: float) -> float:
        """Return how long the calls of a job take whose call takes ``call_ms``."""
        least, most = (1 + self.warmup + count for count in (self.min_repeats, self.max_repeats))
        return min(max(1e-3 * call_ms * least, self.min_seconds), 1e-3 * call_ms * most)


@dataclass(frozen=True, slots=True, kw_only=True)
class KitJob:
    """One job: ``package`` is relative to the kit, ``model`` and ``config`` go into its record as they are."""

    job: str
    package: str
    scenario: str
    seed: int
    model: Model
    config: Configuration
    anchor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KitManifest:
    """A kit: the run it is for, how to measure, and the jobs in their order; ``kit`` is the digest of all the rest."""

    space: str
    device: str
    scenario: str
    conditions: Scenario
    measuring: Measuring
    jobs: tuple[KitJob, ...]
    kit: str = ""

    def named(self) -> KitManifest:
        """Return the manifest with its name."""
        return replace(self, kit=sha256_text(canonical_json(to_data(replace(self, kit=""))))[:16])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with its schema line."""
        return with_schema("kit", 1, to_data(self))


def read_manifest(path: Path) -> KitManifest:
    """Read ``manifest.json``.

    Raises:
        InputError: It is missing, damaged, of another schema, or was changed by hand.
    """
    manifest = from_data(KitManifest, check_schema(read_json(path), "kit", 1, where=str(path)), where=str(path))
    if manifest.named().kit != manifest.kit:
        raise InputError(f"{path}: does not belong to its name {manifest.kit!r}: it was changed", hint="write it again")
    return manifest


def num_anchors(num_jobs: int) -> int:
    """Return how many repeats of the anchor ``with_anchors`` adds."""
    return len(range(0, num_jobs, ANCHOR_EVERY)) + 1


def with_anchors(jobs: Sequence[KitJob], anchor: KitJob | None) -> tuple[KitJob, ...]:
    """Put a repeat of ``anchor`` before the first job, after every ``ANCHOR_EVERY`` and at the end."""
    if anchor is None:
        return tuple(jobs)
    found: list[KitJob] = []
    for number, start in enumerate([*range(0, len(jobs), ANCHOR_EVERY), len(jobs)]):
        found.append(replace(anchor, job=f"anchor-{number:03d}", anchor=True))
        found += jobs[start : start + ANCHOR_EVERY]
    return tuple(found)


def check_kit(line: DeviceRecord, kits: Mapping[str, KitManifest]) -> None:
    """Check that a record is of one of ``kits`` and measured the package that the kit holds.

    Raises:
        ValueError: It is not; the message says what was expected.
    """
    manifest = kits.get(line.kit)
    if manifest is None:
        known = ", ".join(kits) or "none"
        raise ValueError(f"job {line.job!r} is of kit {line.kit!r}, the kits of this run are: {known}")
    job = next((item for item in manifest.jobs if item.job == line.job), None)
    if job is None:
        raise ValueError(f"kit {line.kit!r} has no job {line.job!r}")
    expected, found = job.model, line.model
    for name in ("sha256", "kind", "block_path", "arch_id"):
        if getattr(found, name) != getattr(expected, name):
            raise ValueError(
                f"job {line.job!r} measured a package of {name} {getattr(found, name)!r}, "
                f"the kit's has {getattr(expected, name)!r}"
            )
    if line.config.requested_units != job.config.requested_units:
        raise ValueError(
            f"job {line.job!r} asked for {line.config.requested_units!r}, the kit says {job.config.requested_units!r}"
        )


def record_schema_text() -> str:
    """Return the JSON Schema of a line that a runner writes, as shipped with every kit."""
    return files("latency_models.importers").joinpath(RECORD_SCHEMA).read_text(encoding="utf-8")


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``DeviceRecord``, which the shipped file must equal."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(DeviceRecord).json_schema()
    for kind in (schema, *schema["$defs"].values()):
        kind["additionalProperties"] = False  # as the importer has it
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "nas/device_record/1"}
    return json.loads(json.dumps(head | schema))  # type: ignore[no-any-return]  # a dict
