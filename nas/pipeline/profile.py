"""The ``profile`` stage: measure every distinct block of the space and some whole networks on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from latency_models import MeasurementPlan, call_label, choose_networks, distinct_blocks, measure_all
from latency_models.backends.fresh_process import FreshProcessBackend
from latency_models.backends.torch_host import TorchHostBackend
from latency_models.profiles import shape_label
from nas.core.errors import UnavailableError
from nas.pipeline.context import present
from nas.pipeline.networks import block_job, network_jobs
from nas.pipeline.phases import phase_jobs
from nas.pipeline.scenarios import shape_contexts, stage_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.pipeline.context import Context


_HOSTS: Mapping[str, Literal["cpu", "cuda"]] = {"host-cpu": "cpu", "host-cuda": "cuda"}


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Measure, at every frames and size that is a choice; records already in ``records.jsonl`` are not measured again.

    Raises:
        UnavailableError: The device is not this host.
        MeasurementError: A block cannot be run; what was measured is kept.
    """
    shapes = shape_contexts(context)
    texts = []
    for own in shapes:
        text = _measure(own, folder if own is context else stage_folder(own, "profile"), progress)
        texts.append(f"{shape_label(own.scenario)}: {text}" if len(shapes) > 1 else text)
    return "\n  ".join(texts)


def _measure(context: Context, folder: Path, progress: Progress) -> str:
    section = present(context.config.profile, "profile")
    if section.backend is not None:
        from nas.pipeline.profile_packages import measure_packages

        return measure_packages(context, measurement_plan(context), folder, progress)
    backend = host_backend(context)
    blocks = distinct_blocks(context.space, context.scenario)
    networks = choose_networks(context.space, section.networks, context.streams)
    jobs = [block_job(spec, context.scenario, backend.device) for spec in blocks.values()]
    jobs += phase_jobs(context, backend.device)
    jobs += network_jobs(context.space, networks, context.scenario, backend.device)
    start = time.monotonic()
    with FreshProcessBackend(backend) as renewed:
        profiles = measure_all(renewed, jobs, measurement_plan(context), folder / "records.jsonl", progress=progress)
    return (
        f"measured {len(blocks)} blocks and {len(networks)} networks on {backend.name} "
        f"({backend.describe().chip}), {len(profiles.records)} records, {time.monotonic() - start:.0f} s"
    )


def host_backend(context: Context) -> TorchHostBackend:
    """Return the backend of the run's device.

    Raises:
        UnavailableError: The device is a phone, which this machine cannot measure.
    """
    name = context.config.device.name
    kind = _HOSTS.get(name)
    if kind is None:
        if context.config.profile is not None and context.config.profile.backend is not None:
            raise UnavailableError(
                f"backend {context.config.profile.backend.type!r} takes whole profiles, not single measurements",
                hint="`nas profile RUN` measures everything, `nas profile RUN --plan N --kit DIR` what is planned",
            )
        raise UnavailableError(
            f"device {name!r} cannot be measured from here: {' and '.join(_HOSTS)} can",
            hint="`nas profile RUN --kit DIR` writes what to measure, `--import FILE` takes the results; or leave "
            "out the sections profile, calibrate and closed_loop to search with the device's prior",
        )
    # The bare backbone runs beside every network, so that what slows it down is divided out of what slows them down.
    anchor = network_jobs(context.space, [context.space.smallest()], context.scenario, kind)[0]
    return TorchHostBackend(kind, threads=context.config.device.threads, network_anchor=anchor)


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
