"""Which blocks and networks of a space are measured, and how each becomes a measurement job."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from latency_models.jobs import MeasurementJob, Prepared
from search_spaces.operators import sample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.core.architecture import Architecture
    from nas.core.scenario import Scenario
    from nas.core.workload import BlockSpec
    from nas.pipeline.context import Context
    from search_spaces.temporal import TemporalSpace


def distinct_blocks(space: TemporalSpace, scenario: Scenario) -> tuple[BlockSpec, ...]:
    """Return every distinct block of the space: the backbone's, and each option of each slot."""
    base = [0] * len(space.slots())
    found: dict[str, BlockSpec] = {}
    for position, slot in enumerate(space.slots()):
        for option in range(len(space.options(slot))):
            options = [*base[:position], option, *base[position + 1 :]]
            workload = space.workload(space.from_options(options), scenario)
            found.update((spec.signature, spec) for _, spec in workload.blocks)
    return tuple(found[signature] for signature in sorted(found))


def calibration_networks(context: Context, count: int) -> tuple[Architecture, ...]:
    """Return ``count`` networks to calibrate on: the smallest, the largest, and distinct random ones."""
    rng = context.streams.python("calibration-networks")
    found = dict.fromkeys([context.space.smallest(), context.space.largest()])
    while len(found) < count and len(found) < context.space.count():
        found.setdefault(sample(context.space, rng))
    return tuple(found)[:count]


def block_job(spec: BlockSpec, scenario: Scenario, device: str) -> MeasurementJob:
    """Return the job that measures one block."""
    return MeasurementJob(subject=spec.signature, level="block", make=partial(_make_block, spec, scenario, device))


def network_jobs(
    space: TemporalSpace, architectures: Iterable[Architecture], scenario: Scenario, device: str
) -> list[MeasurementJob]:
    """Return the jobs that measure one denoiser call of whole networks."""
    return [
        MeasurementJob(
            subject=architecture.digest,
            level="network",
            make=partial(_make_network, space, architecture, scenario, device),
        )
        for architecture in architectures
    ]


def _make_block(spec: BlockSpec, scenario: Scenario, device: str) -> Prepared:
    import torch

    from nas.models.build import build_block

    module, inputs = build_block(spec, dtype=getattr(torch, scenario.precision), device=device)
    return module, inputs


def _make_network(space: TemporalSpace, architecture: Architecture, scenario: Scenario, device: str) -> Prepared:
    import torch

    from nas.models.build import build_denoiser, example_inputs

    dtype = getattr(torch, scenario.precision)
    network = build_denoiser(space, architecture, dtype=dtype, device=device).eval()
    return network, example_inputs(space, scenario, dtype=dtype, device=device)
