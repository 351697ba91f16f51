"""How blocks and networks of a space become measurement jobs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from latency_models.jobs import MeasurementJob, Prepared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.core.architecture import Architecture
    from nas.core.scenario import Scenario
    from nas.core.workload import BlockSpec
    from search_spaces.temporal import TemporalSpace


def block_job(spec: BlockSpec, scenario: Scenario, device: str) -> MeasurementJob:
    """Return the job that measures one block."""
    return MeasurementJob(
        subject=spec.signature, level="block", make=partial(_make_block, spec, scenario, device), block=spec
    )


def network_jobs(
    space: TemporalSpace, architectures: Iterable[Architecture], scenario: Scenario, device: str
) -> list[MeasurementJob]:
    """Return the jobs that measure one denoiser call of whole networks."""
    return [
        MeasurementJob(
            subject=architecture.digest,
            level="network",
            make=partial(_make_network, space, architecture, scenario, device),
            architecture=architecture,
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
