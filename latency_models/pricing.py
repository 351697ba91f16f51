"""The price of one denoiser call, block by block, and how it becomes a cost of one generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from latency_models.profiles import call_label, generation_label
from nas.core.cost import BlockCost, ComputeUnit, CostEstimate, Interval, Origin
from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPrice:
    """Price of one block in one call.

    ``activation_mb`` is the activation memory of the whole network while the block runs. ``in_domain`` is False when
    the latency is not based on a measurement of this very block.
    """

    block: str
    latency_ms: float
    activation_mb: float
    compute_unit: ComputeUnit
    in_domain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadPrice:
    """Price of one call: blocks in execution order, and what no block accounts for."""

    blocks: tuple[BlockPrice, ...]
    overhead_ms: float
    weights_mb: float
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRatios:
    """Ends of the intervals as ratios of the prediction.

    Latency: blocks in the domain and the overhead use ``latency``, blocks outside it ``outside``, and the ends add up.
    Memory: weights are exact, activations use ``memory``.
    """

    coverage: float
    latency: tuple[float, float]
    outside: tuple[float, float]
    memory: tuple[float, float]

    def __post_init__(self) -> None:
        for name in ("latency", "outside", "memory"):
            low, high = getattr(self, name)
            if not 0.0 <= low <= 1.0 <= high:
                raise ValueError(f"interval ratios {name} must hold 1, got {low} and {high}")


class CostPredictor(Protocol):
    """Prices workloads for one device."""

    @property
    def name(self) -> str:
        """What an estimate names as its predictor."""
        ...

    @property
    def device(self) -> str:
        """Device the costs are of."""
        ...

    @property
    def origin(self) -> Origin:
        """Origin of its estimates."""
        ...

    @property
    def ratios(self) -> IntervalRatios:
        """Ends of its intervals."""
        ...

    def price(self, workload: Workload) -> WorkloadPrice:
        """Price one denoiser call."""
        ...

    def check_scenario(self, scenario: Scenario) -> None:
        """Raise ``ConfigError`` when the predictor does not hold for ``scenario``."""
        ...


def predict(predictor: CostPredictor, workload: Workload, scenario: Scenario) -> CostEstimate:
    """Return the cost of one generation: one call times the denoiser calls, and peak memory.

    Raises:
        ConfigError: The predictor was calibrated for another scenario.
    """
    predictor.check_scenario(scenario)
    return assemble(predictor.price(workload), predictor, scenario)


def assemble(price: WorkloadPrice, predictor: CostPredictor, scenario: Scenario) -> CostEstimate:
    """Turn a price into a cost with intervals and a breakdown that sums to the latency."""
    ratios = predictor.ratios
    calls = scenario.denoiser_calls
    inside_ms = calls * (price.overhead_ms + sum(block.latency_ms for block in price.blocks if block.in_domain))
    outside_ms = calls * sum(block.latency_ms for block in price.blocks if not block.in_domain)
    activation_mb = max((block.activation_mb for block in price.blocks), default=0.0)
    blocks = [
        BlockCost(
            block=block.block,
            latency_ms=calls * block.latency_ms,
            memory_mb=price.weights_mb + block.activation_mb,
            compute_unit=block.compute_unit,
        )
        for block in price.blocks
    ]
    overhead = BlockCost(block="overhead", latency_ms=calls * price.overhead_ms, memory_mb=price.weights_mb)
    return CostEstimate(
        latency_ms=inside_ms + outside_ms,
        latency_interval_ms=Interval(
            low=inside_ms * ratios.latency[0] + outside_ms * ratios.outside[0],
            high=inside_ms * ratios.latency[1] + outside_ms * ratios.outside[1],
            coverage=ratios.coverage,
        ),
        peak_memory_mb=price.weights_mb + activation_mb,
        memory_interval_mb=Interval(
            low=price.weights_mb + activation_mb * ratios.memory[0],
            high=price.weights_mb + activation_mb * ratios.memory[1],
            coverage=ratios.coverage,
        ),
        parameters=price.parameters,
        blocks=(*blocks, overhead),
        device=predictor.device,
        scenario=generation_label(scenario),
        predictor=predictor.name,
        origin=predictor.origin,
        in_domain=all(block.in_domain for block in price.blocks),
    )


def refuse_other_scenario(calibrated: str, scenario: Scenario, *, predictor: str) -> None:
    """Raise when ``scenario`` is not the one a predictor was calibrated for.

    Raises:
        ConfigError: The call labels differ.
    """
    asked = call_label(scenario)
    if asked != calibrated:
        raise ConfigError(
            f"predictor {predictor!r} holds for {calibrated!r}, not for {asked!r}",
            hint="profile and calibrate for this scenario, or use the roofline",
        )
