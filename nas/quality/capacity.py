"""Stated proxies for machines that cannot train: how large an architecture is, and how much it can mix over frames."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from nas.core.evaluation import Quality

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.core.protocols import SearchSpace
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload

TEMPORAL_KINDS = (
    "conv1d",
    "conv3d",
    "self_attention_1d",
    "self_attention_3d",
    "cross_attention_1d",
    "cross_attention_3d",
)


class TemporalCapacity:
    """Training-free PROXY, not a measurement of quality; meets ``QualityEstimator``.

    The score is the sum over temporal slots of log2(1 + f / F), where f is the slot's temporal FLOPs in one denoiser
    call and F the FLOPs of the whole backbone without temporal layers, divided by the number of slots. It grows with
    every layer added or widened and with diminishing returns, so that spreading layers over slots beats piling them
    into one. Nothing is trained and nothing generated: the score knows neither which kind of layer suits motion nor
    whether a network learns. Against the trained supernet of ``tiny`` it is nearly worthless as a ranking: Spearman
    correlation 0.10 (p = 0.43) over the empty, the largest and 58 random architectures; no variant tried (parameters,
    number of layers, plain FLOPs) passed 0.17. It tells some temporal mixing from none and breaks ties towards more.

    Args:
        space: The search space.
        scenario: Conditions the FLOPs are counted under.
    """

    name = "temporal_capacity (proxy)"
    fidelity = "training-free, from the description alone"

    def __init__(self, space: SearchSpace, scenario: Scenario) -> None:
        self._space = space
        self._scenario = scenario
        empty = space.from_options([0] * len(space.slots()))
        self._unit_flops = space.workload(empty, scenario).flops / max(len(space.slots()), 1)

    def estimate(self, architecture: Architecture) -> Quality:
        """Capacity of one candidate; deterministic, no randomness, hence no standard error."""
        flops = temporal_flops(self._space.workload(architecture, self._scenario))
        score = sum((math.log2(1.0 + value / self._unit_flops) for value in flops.values()), start=0.0)
        return Quality(
            score=score,
            estimator=self.name,
            fidelity=self.fidelity,
            origin="proxy",
            metrics=(("temporal_gflops", sum(flops.values()) / 1e9), ("temporal_layers", float(len(flops)))),
        )


class NetworkSize:
    """Parameters or FLOPs of a candidate as its score, larger for better; PROXY, meets ``QualityEstimator``.

    The baselines that any other proxy has to beat (Abdelfattah et al. 2021, arXiv 2101.08134, and Ning et al. 2021,
    arXiv 2008.03064, report both).
    """

    fidelity = "training-free, from the description alone"

    def __init__(self, space: SearchSpace, scenario: Scenario, *, measure: Literal["parameters", "flops"]) -> None:
        self.name = f"{measure} (proxy)"
        self._space = space
        self._scenario = scenario
        self._measure = measure

    def estimate(self, architecture: Architecture) -> Quality:
        """Size of one candidate in millions; deterministic, hence no standard error."""
        size = getattr(self._space.workload(architecture, self._scenario), self._measure) / 1e6
        return Quality(score=size, estimator=self.name, fidelity=self.fidelity, origin="proxy")


def temporal_flops(workload: Workload) -> dict[str, int]:
    """FLOPs of one denoiser call by temporal block; slots that hold none are left out."""
    temporal = {name for name, spec in workload.blocks if spec.kind in TEMPORAL_KINDS}
    flops = dict.fromkeys(sorted(temporal), 0)
    for operation in workload.operations:
        if operation.block in flops:
            flops[operation.block] += operation.flops
    return flops
