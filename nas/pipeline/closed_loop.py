"""The ``closed_loop`` stage: measure the front's own networks on the host and hold them against their prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from latency_models import compare, measure_all
from latency_models.backends.fresh_process import FreshProcessBackend
from latency_models.memory import memory_graph
from nas.core.files import write_json
from nas.pipeline.context import present
from nas.pipeline.costs import load_predictor
from nas.pipeline.networks import network_jobs
from nas.pipeline.phases import generation_job, phase_weights_mb, profiled_phases
from nas.pipeline.profile import host_backend, measurement_plan
from nas.runs.front import read_front

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import Progress
    from nas.pipeline.context import Context
    from nas.runs.front import FrontFile


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Measure; goes on with the records it finds.

    Raises:
        UnavailableError: The device is not this host.
        InputError: There is no front.
    """
    count = present(context.config.closed_loop, "closed_loop").networks
    front = read_front(context.path("search", "front.json"))
    members = spread_members(front, count)
    backend = host_backend(context)
    architectures = [member.architecture for member in members]
    plan = measurement_plan(context)
    phases = context.config.phases
    whole = phases is not None and bool(profiled_phases(context))
    if phases is not None and whole:
        jobs = [generation_job(context, architecture, backend.device) for architecture in architectures]
        plan = replace(plan, measure_memory=phases.memory == "together")
    else:
        jobs = network_jobs(context.space, architectures, context.scenario, backend.device)
    with FreshProcessBackend(backend) as renewed:
        measured = measure_all(renewed, jobs, plan, folder / "records.jsonl", progress=progress)
    model = getattr(load_predictor(context), "model", None)
    comparison = compare(
        {member.architecture.digest: member.cost for member in members},
        measured,
        context.scenario,
        reference=model.network_anchor if model else None,
        level="pipeline" if whole else "network",
        held_mb={
            architecture.digest: phase_weights_mb(context) if whole else _inputs_mb(context, architecture)
            for architecture in architectures
        },
        corrected=(
            {item.digest: item.latency_interval_ms for item in front.selection_effect.members}
            if front.selection_effect
            else None
        ),
    )
    what = "generations with networks of the front" if whole else "networks of the front"
    after = comparison.corrected_coverage
    write_json(folder / "closed_loop.json", comparison.to_dict())
    return (
        f"{len(members)} {what} measured on {backend.name}: latency error "
        f"{comparison.median_error_ratio:.1%} median, "
        f"{comparison.stated_coverage:.0%} intervals cover {comparison.coverage:.0%}"
        + ("" if after is None else f", {after:.0%} when they allow for the selection")
    )


def _inputs_mb(context: Context, architecture: Architecture) -> float:
    """Memory of one denoiser call's inputs, which the caller holds."""
    return memory_graph(context.space.workload(architecture, context.scenario)).input_bytes / 1e6


def spread_members(front: FrontFile, count: int) -> tuple[Evaluation, ...]:
    """Return ``count`` members of the front, the chosen one and otherwise evenly spread by latency."""
    members = front.members
    if count >= len(members):
        return members
    chosen = next(index for index, member in enumerate(members) if member.architecture.digest == front.selected)
    others = [index for index in range(len(members)) if index != chosen]
    kept = {chosen} | {others[round(place * (len(others) - 1) / max(count - 2, 1))] for place in range(count - 1)}
    return tuple(members[index] for index in sorted(kept))
