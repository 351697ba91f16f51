"""The ``profile`` stage on a Mac or an attached phone: the packages of a kit, measured through coremltools."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from latency_models import distinct_blocks, measure_all
from nas.core.architecture import Architecture
from nas.core.errors import ConfigError
from nas.pipeline.context import present
from nas.pipeline.costs import prior_device
from nas.pipeline.job_list import all_jobs
from nas.pipeline.kit import lowering_of, package_path, plan_kit, subject_of, write_kit
from nas.pipeline.networks import block_job, network_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from latency_models import MeasurementJob, MeasurementPlan
    from latency_models.backends.coreml import CoreMLBackend, PackageOf
    from nas.core.protocols import Progress
    from nas.pipeline.context import Context


def measure_packages(context: Context, measuring: MeasurementPlan, folder: Path, progress: Progress) -> str:
    """Write the packages of all jobs into the run and measure them; both go on where they were stopped.

    Raises:
        UnavailableError: This machine lacks macOS, Xcode or the device; nothing is written then.
        VerificationError: A package cannot be made.
        MeasurementError: The device was lost; what was measured is kept.
    """
    start = time.monotonic()
    plan = plan_kit(context, all_jobs(context.config, context.space, context.scenario))
    kit = context.path("kits", "packages")
    lowering = lowering_of(context.scenario.compute_units)
    packages = {subject_of(entry): kit / package_path(entry["job"], lowering) for entry in plan.entries}
    backend = _backend(context, lambda job: packages[job.subject])
    write_kit(context, kit, plan, progress)
    blocks = distinct_blocks(context.space, context.scenario)
    jobs: list[MeasurementJob] = []
    for entry in plan.entries:
        if entry["kind"] == "block":
            jobs.append(block_job(blocks[entry["block_path"]], context.scenario, "cpu"))
        else:
            network = Architecture.from_text(entry["arch_id"])
            jobs += network_jobs(context.space, [network], context.scenario, "cpu")
    profiles = measure_all(backend, jobs, measuring, folder / "records.jsonl", progress=progress)
    failed = len(profiles.failures())
    return (
        f"measured {len(jobs)} packages on {backend.name} ({backend.describe().chip}), "
        f"{len(profiles.records)} records, {failed} of them failures, {time.monotonic() - start:.0f} s"
    )


def _backend(context: Context, package_of: PackageOf) -> CoreMLBackend:
    from latency_models.backends import coreml_device, coreml_host

    section = present(context.config.profile, "profile").backend
    if section is None:
        raise ConfigError("the YAML has no profile.backend", hint="add `backend: {type: coreml_host}` to `profile`")
    spec, units = prior_device(context), context.scenario.compute_units
    if section.type == "coreml_host":
        return coreml_host.connect(spec, package_of, compute_units=units)
    return coreml_device.connect(
        spec, package_of, compute_units=units, udid=section.udid, team=section.development_team
    )
