"""Plan what to measure next for the run's front, and take those measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import latency_models
from latency_models import (
    CalibrationOptions,
    Candidate,
    Group,
    PlannedMeasurement,
    distinct_blocks,
    next_measurements,
)
from latency_models.backends.fresh_process import FreshProcessBackend
from latency_models.calibration import priced_group
from latency_models.dataset import build_dataset, shape_of
from latency_models.designing import front_sd_ratio
from latency_models.observations import observe
from latency_models.posterior import Posterior, fit_posterior
from latency_models.profiles import shape_label
from nas.core.errors import ConfigError
from nas.core.schema import to_data, with_schema
from nas.pipeline.calibrate import known_workloads, read_records
from nas.pipeline.choice import chosen
from nas.pipeline.costs import prior_device, weights_of
from nas.pipeline.job_list import block_entry, network_entry
from nas.pipeline.networks import block_job, network_jobs
from nas.pipeline.phases import phase_jobs
from nas.pipeline.profile import measurement_plan
from nas.runs.front import read_front

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from latency_models import MeasurementJob, NetworkShape
    from latency_models.backends.torch_host import TorchHostBackend
    from latency_models.dataset import Dataset
    from latency_models.devices import DeviceSpec
    from latency_models.observations import Observations
    from nas.core.architecture import Architecture
    from nas.core.protocols import Progress
    from nas.core.workload import BlockSpec
    from nas.pipeline.context import Context

# Networks drawn to be measured or to stand for the front, and how many near the budget stand for it.
_DRAWN = 240
_FRONT = 32
# Seconds to build a block or network and warm it up, on a host; a phone's compilation takes longer for both alike.
_SET_UP_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePlan:
    """Measurements in the order to take them; ``--plan``.

    ``front`` says which networks the plan serves; ``front_sd_ratio`` is the standard deviation of their latencies
    before the first step, root mean square, as each step has it afterwards.
    """

    front: str
    num_front: int
    front_sd_ratio: float
    steps: tuple[PlannedMeasurement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data with its schema line."""
        return with_schema("profile_plan", 1, to_data(self))

    def text(self) -> str:
        """Return the plan for people, one line a step; half-widths are of 90 % intervals."""
        lines = [
            f"{len(self.steps)} measurements for {self.num_front} networks ({self.front}); "
            f"half-width of their latency now {_half_width(self.front_sd_ratio)}"
        ]
        lines += [
            f"{number:3d}. {step.level} {step.subject}: then {_half_width(step.front_sd_ratio)}"
            for number, step in enumerate(self.steps, start=1)
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the plan starts from; ``measured`` are the subjects with a record on the group's unit."""

    posterior: Posterior
    group: Group
    measured: frozenset[str]


def plan_measurements(context: Context, count: int, *, per_cost: bool = False) -> ProfilePlan:
    """Choose the ``count`` blocks or networks not measured yet that shrink the front's uncertainty most.

    The front is the run's own; before there is one, random networks whose expected latency is nearest the budget.

    Raises:
        ConfigError: ``count`` is below 1.
        ProfileError: The records are of several devices, or none of what ``calibrate`` is to price.
    """
    if count < 1:
        raise ConfigError(f"--plan must be at least 1, got {count}")
    drawn = _drawn_networks(context)
    known = _known(context)
    shapes = {network.digest: shape_of(context.space.workload(network, context.scenario)) for network in drawn}
    front, source = _front(context, known, shapes)
    candidates = _candidates(context, known, shapes | _own_front(context))
    return ProfilePlan(
        front=source,
        num_front=len(front),
        front_sd_ratio=front_sd_ratio(known.posterior, front),
        steps=next_measurements(known.posterior, candidates, front, count, per_cost=per_cost),
    )


def take_measurements(
    context: Context, plan: ProfilePlan, backend: TorchHostBackend, folder: Path, progress: Progress
) -> str:
    """Take the measurements of ``plan``, and of phases that are not measured yet, and append them to the profile.

    Raises:
        MeasurementError: A block cannot be run; what was measured is kept.
    """
    planned = list(_jobs(context, plan, backend.device))
    jobs = [*planned, *phase_jobs(context, backend.device)]
    with FreshProcessBackend(backend) as renewed:
        profiles = latency_models.measure_all(
            renewed, jobs, measurement_plan(context), folder / "records.jsonl", progress=progress
        )
    return f"measured {len(planned)} planned blocks and networks on {backend.name}, {len(profiles.records)} records"


def planned_jobs(context: Context, plan: ProfilePlan) -> list[dict[str, Any]]:
    """Return the plan's measurements as entries of a job list, in the plan's order."""
    networks = _plannable_networks(context)
    return [
        block_entry(number, step.subject) if step.level == "block" else network_entry(networks[step.subject])
        for number, step in enumerate(plan.steps)
    ]


def _plannable_networks(context: Context) -> dict[str, Architecture]:
    return {network.digest: network for network in (*_drawn_networks(context), *_front_members(context))}


def _jobs(context: Context, plan: ProfilePlan, device: Any) -> Iterable[MeasurementJob]:
    blocks: dict[str, BlockSpec] = distinct_blocks(context.space, context.scenario)
    networks = _plannable_networks(context)
    for step in plan.steps:
        if step.level == "block":
            yield block_job(blocks[step.subject], context.scenario, device)
        else:
            yield network_jobs(context.space, [networks[step.subject]], context.scenario, device)[0]


def _known(context: Context) -> _Known:
    profiles, _ = read_records(context)
    device = prior_device(context)
    workloads = known_workloads(profiles, context)
    observations = observe(profiles)
    group = _group(context, observations, device)
    weights = weights_of(context.config.device)
    data: Dataset = build_dataset(observations, workloads, context.scenario, device, groups=(group,), weights=weights)
    return _Known(
        posterior=fit_posterior(data.effects, data.blocks, data.networks, data.prior),
        group=group,
        measured=frozenset(
            record.subject for record in profiles.records if record.device.compute_unit == group.compute_unit
        ),
    )


def _group(context: Context, observations: Observations, device: DeviceSpec) -> Group:
    """Return the OS version and unit that a calibration of these records would price."""
    if observations.blocks or observations.networks:
        section = context.config.calibrate
        return priced_group(
            observations,
            context.scenario,
            device,
            CalibrationOptions(
                os_build=section.os_build if section else None, compute_unit=section.compute_unit if section else None
            ),
        )
    unit = device.unit_for(context.scenario.compute_units).compute_unit
    return Group(os_build="", compute_unit=unit)


def _candidates(context: Context, known: _Known, shapes: dict[str, NetworkShape]) -> list[Candidate]:
    """Every block and every given network that no record is of, failed attempts included."""
    plan = measurement_plan(context)
    block_s, network_s = (plan.passes * (seconds + _SET_UP_S) for seconds in (plan.seconds, plan.network_seconds))
    found = [
        Candidate(subject=name, level="block", group=known.group, cost_s=block_s)
        for name in sorted(distinct_blocks(context.space, context.scenario))
        if name not in known.measured
    ]
    found += [
        Candidate(subject=digest, level="network", group=known.group, shape=shapes[digest], cost_s=network_s)
        for digest in sorted(shapes)
        if digest not in known.measured
    ]
    return found


def _front(
    context: Context, known: _Known, shapes: dict[str, NetworkShape]
) -> tuple[list[tuple[NetworkShape, Group]], str]:
    own = _own_front(context)
    if own:
        return [(shape, known.group) for shape in own.values()], "the run's front"
    sample = [(shape, known.group) for shape in shapes.values()]
    call_ms, _ = known.posterior.network_ms(sample)
    budget = context.config.budget.build(float(call_ms.min()), float(call_ms.max()))
    if budget.latency_ms is None:
        return sample[:_FRONT], "random networks of the space"
    calls = 1 if context.config.budget.latency_share is not None else context.scenario.denoiser_calls
    nearest = abs(call_ms - budget.latency_ms / calls).argsort(kind="stable")[:_FRONT]
    return [sample[index] for index in nearest], "random networks nearest the budget"


def _own_front(context: Context) -> dict[str, NetworkShape]:
    return {
        network.digest: shape_of(context.space.workload(network, context.scenario))
        for network in _front_members(context)
    }


def _front_members(context: Context) -> Sequence[Architecture]:
    path = context.path("search", "front.json")
    if not path.is_file():
        return []
    members = [chosen(context, member) for member in read_front(path).members]
    # What is planned is of the run's own frames and size; of members that differ in steps alone one is enough.
    own = shape_label(context.scenario)
    alike = [one.architecture for one in members if shape_label(one.context.scenario) == own]
    return list({network.digest: network for network in alike}.values())


def _drawn_networks(context: Context) -> Sequence[Architecture]:
    count = min(_DRAWN, context.space.count())
    return latency_models.choose_networks(context.space, count, context.streams)


def _half_width(sd_ratio: float) -> str:
    from math import expm1

    return f"{expm1(1.6449 * sd_ratio):.1%}"
