"""The ``profile`` stage: measure every distinct block of the space and some whole networks on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models import MeasurementPlan, call_label, measure_all
from latency_models.backends.torch_host import TorchHostBackend
from nas.core.errors import UnavailableError
from nas.pipeline.context import present
from nas.pipeline.networks import block_job, calibration_networks, distinct_blocks, network_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.pipeline.context import Context


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Measure; records already in ``records.jsonl`` are not measured again.

    Raises:
        UnavailableError: The device is not this host.
        MeasurementError: A block cannot be run; what was measured is kept.
    """
    section = present(context.config.profile, "profile")
    backend = host_backend(context)
    blocks = distinct_blocks(context.space, context.scenario)
    networks = calibration_networks(context, section.networks)
    jobs = [block_job(spec, context.scenario, backend.device) for spec in blocks]
    jobs += network_jobs(context.space, networks, context.scenario, backend.device)
    profiles = measure_all(backend, jobs, measurement_plan(context), folder / "records.jsonl", progress=progress)
    return (
        f"measured {len(blocks)} blocks and {len(networks)} networks on {backend.name} "
        f"({backend.describe().chip}), {len(profiles.records)} records"
    )


def host_backend(context: Context) -> TorchHostBackend:
    """Return the backend of the run's device.

    Raises:
        UnavailableError: The device is a phone, which this machine cannot measure.
    """
    name = context.config.device.name
    if name == "host-cpu":
        return TorchHostBackend("cpu", threads=context.config.device.threads)
    if name == "host-cuda":
        return TorchHostBackend("cuda", threads=context.config.device.threads)
    raise UnavailableError(
        f"device {name!r} cannot be measured from here: host-cpu and host-cuda can",
        hint="leave out the sections profile, calibrate and closed_loop to search with the device's prior",
    )


def measurement_plan(context: Context, *, network_seconds: float | None = None) -> MeasurementPlan:
    """Return the plan of the ``profile`` section; its defaults where the YAML has none."""
    from nas.config.run import ProfileSection

    section = context.config.profile or ProfileSection()
    return MeasurementPlan(
        scenario=call_label(context.scenario),
        passes=section.passes,
        warmup=section.warmup,
        seconds=section.seconds,
        network_seconds=network_seconds or section.network_seconds,
        seed=context.streams.integer("measurement"),
    )
