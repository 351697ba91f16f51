"""The ``closed_loop`` stage: measure the front's own networks on the host and hold them against their prediction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latency_models import compare, measure_all
from latency_models.backends.fresh_process import FreshProcessBackend
from latency_models.comparison import merged
from latency_models.memory import memory_graph
from latency_models.profiles import shape_label
from nas.core.evaluation import Evaluation
from nas.core.files import write_json
from nas.pipeline.choice import Chosen, chosen
from nas.pipeline.context import present
from nas.pipeline.costs import load_predictor
from nas.pipeline.networks import network_jobs
from nas.pipeline.phases import generation_job, phase_weights_mb, profiled_phases
from nas.pipeline.profile import host_backend, measurement_plan
from nas.pipeline.scenarios import stage_folder
from nas.runs.front import read_front

if TYPE_CHECKING:
    from pathlib import Path

    from latency_models import Comparison
    from nas.core.architecture import Architecture
    from nas.core.profile import ProfileSet
    from nas.core.protocols import Progress
    from nas.core.scenario import Scenario
    from nas.pipeline.context import Context
    from nas.runs.front import FrontFile


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Measure, each member in its own scenario; goes on with the records it finds.

    Raises:
        UnavailableError: The device is not this host.
        InputError: There is no front.
    """
    count = present(context.config.closed_loop, "closed_loop").networks
    front = read_front(context.path("search", "front.json"))
    members = [_Member(chosen=chosen(context, item), evaluation=item) for item in spread_members(front, count)]
    backend = host_backend(context)
    by_shape: dict[str, list[_Member]] = {}
    for member in members:
        by_shape.setdefault(shape_label(member.chosen.context.scenario), []).append(member)
    comparisons = []
    for alike in by_shape.values():
        own = stage_folder(alike[0].chosen.context, "closed_loop")
        comparisons += _measured(alike, folder if own == context.path("closed_loop") else own, front, progress)
    comparison = merged(comparisons)
    what = "generations with networks of the front" if _whole(context) else "networks of the front"
    if context.joint is not None:
        scenarios = {member.chosen.context.scenario for member in members}
        what += f", each in its own of {len(scenarios)} scenarios,"
    after = comparison.corrected_coverage
    write_json(folder / "closed_loop.json", comparison.to_dict())
    return (
        f"{len(members)} {what} measured on {backend.name}: latency error "
        f"{comparison.median_error_ratio:.1%} median, "
        f"{comparison.stated_coverage:.0%} intervals cover {comparison.coverage:.0%}"
        + ("" if after is None else f", {after:.0%} when they allow for the selection")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A member of the front that is measured."""

    chosen: Chosen
    evaluation: Evaluation


def _whole(context: Context) -> bool:
    return context.config.phases is not None and bool(profiled_phases(context))


def _measured(members: list[_Member], folder: Path, front: FrontFile, progress: Progress) -> list[Comparison]:
    """Measure members of one frames and size, and compare those of each number of steps."""
    context = members[0].chosen.context
    phases, whole = context.config.phases, _whole(context)
    backend = host_backend(context)
    plan = measurement_plan(context)
    if phases is not None and whole:
        jobs = [
            replace(
                generation_job(item.chosen.context, item.chosen.architecture, backend.device),
                subject=item.chosen.digest,
            )
            for item in members
        ]
        plan = replace(plan, measure_memory=phases.memory == "together")
    else:
        networks = {item.chosen.architecture.digest: item.chosen.architecture for item in members}
        jobs = network_jobs(context.space, networks.values(), context.scenario, backend.device)
    with FreshProcessBackend(backend) as renewed:
        profiles = measure_all(renewed, jobs, plan, folder / "records.jsonl", progress=progress)
    by_scenario: dict[Scenario, list[_Member]] = {}
    for item in members:
        by_scenario.setdefault(item.chosen.context.scenario, []).append(item)
    return [_compared(alike, profiles, front) for alike in by_scenario.values()]


def _compared(members: list[_Member], measured: ProfileSet, front: FrontFile) -> Comparison:
    """Hold predictions of one scenario against what was measured; rows are named by the members of the front."""
    context = members[0].chosen.context
    whole = _whole(context)
    subjects = {item.chosen.digest if whole else item.chosen.architecture.digest: item for item in members}
    model = getattr(load_predictor(context), "model", None)
    corrected = {}
    if front.selection_effect:
        by_member = {item.digest: item.latency_interval_ms for item in front.selection_effect.members}
        corrected = {
            name: by_member[item.chosen.digest] for name, item in subjects.items() if item.chosen.digest in by_member
        }
    comparison = compare(
        {name: item.evaluation.cost for name, item in subjects.items()},
        measured,
        context.scenario,
        reference=model.network_anchor if model else None,
        level="pipeline" if whole else "network",
        held_mb={
            name: phase_weights_mb(context) if whole else _inputs_mb(context, item.chosen.architecture)
            for name, item in subjects.items()
        },
        corrected=corrected or None,
    )
    rows = tuple(replace(row, digest=subjects[row.digest].chosen.digest) for row in comparison.rows)
    return replace(comparison, rows=rows)


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
