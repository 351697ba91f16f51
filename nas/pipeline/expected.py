"""What the device's prior says of calls to be measured: their time, work and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models import covering_architectures
from nas.pipeline.costs import prior_predictor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.config.run import RunConfig
    from nas.core.architecture import Architecture
    from nas.core.scenario import Scenario
    from search_spaces.temporal import TemporalSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedCall:
    """One call of a block alone or of a network."""

    call_ms: float
    flops: int
    parameters: int


def expected_calls(
    config: RunConfig, space: TemporalSpace, scenario: Scenario, networks: Iterable[Architecture]
) -> dict[str, ExpectedCall]:
    """Return what the prior says of every block of the space and of ``networks``, by signature and digest.

    A block measured alone pays for a call, which on a phone takes longer than many a block.
    """
    prior = prior_predictor(config)
    found: dict[str, ExpectedCall] = {}
    for architecture in covering_architectures(space):
        workload = space.workload(architecture, scenario)
        specs, price = dict(workload.blocks), prior.price(workload)
        for block in price.blocks:
            signature = specs[block.block].signature
            if signature in found:
                continue
            operations = [item for item in workload.operations if item.block == block.block]
            found[signature] = ExpectedCall(
                call_ms=price.overhead_ms + block.latency_ms,
                flops=sum(item.flops for item in operations),
                parameters=sum(item.parameters for item in operations),
            )
    for network in networks:
        workload = space.workload(network, scenario)
        found[network.digest] = ExpectedCall(
            call_ms=prior.price(workload).latency_ms, flops=workload.flops, parameters=workload.parameters
        )
    return found
