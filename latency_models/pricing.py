"""The price of one denoiser call, block by block, and how it becomes a cost of one generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from latency_models.chances import ErrorLaw, UpperRatios, upper_ratios
from latency_models.domain import Domain
from latency_models.phases import Pipeline
from latency_models.profiles import call_label, generation_label
from nas.core.cost import BlockCost, ComputeUnit, CostEstimate, Infeasibility, Interval, Origin, PhaseCost, UpperEnds
from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload


DENOISER_ALONE = Pipeline()

FloatArray = NDArray[np.float64]


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
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadPrice:
    """Price of one call: blocks in execution order, what no block accounts for, and what does not run at all."""

    blocks: tuple[BlockPrice, ...]
    overhead_ms: float
    weights_mb: float
    parameters: int
    infeasible: tuple[Infeasibility, ...] = ()
    package_mb: float | None = None

    @property
    def latency_ms(self) -> float:
        """Time of the call."""
        return self.overhead_ms + sum(block.latency_ms for block in self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRatios:
    """Ends of the intervals as ratios of the prediction.

    Latency: blocks in the domain and the overhead use ``latency``, blocks outside it ``outside``, and the ends add up.
    Memory: weights are exact, activations use ``memory``. A single block is held by ``block`` when it was measured,
    else by ``outside``; without ``block`` single blocks have no interval. Of a network beyond ``domain`` the ends of
    ``latency`` move out with its distance, at most to those of ``outside``.

    ``latency_law`` and ``memory_law`` are the held-out errors the ends were made from, for one-sided ends at other
    probabilities; without them (a prior, or a file of a version before them) a log-normal error is assumed.
    """

    coverage: float
    latency: tuple[float, float]
    outside: tuple[float, float]
    memory: tuple[float, float]
    block: tuple[float, float] | None = None
    domain: Domain | None = None
    latency_law: ErrorLaw | None = None
    memory_law: ErrorLaw | None = None

    def __post_init__(self) -> None:
        for name in ("latency", "outside", "memory", "block"):
            low, high = getattr(self, name) or (1.0, 1.0)
            if not 0.0 <= low <= 1.0 <= high:
                raise ValueError(f"interval ratios {name} must hold 1, got {low} and {high}")

    def latency_at(self, distance: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of ``latency`` for networks at a distance from the calibration networks."""
        stretch = np.ones(np.shape(distance)) if self.domain is None else self.domain.stretch(distance)
        low = np.maximum(self.latency[0] ** stretch, min(self.latency[0], self.outside[0]))
        return low, np.minimum(self.latency[1] ** stretch, max(self.latency[1], self.outside[1]))

    def upper_at(self, upper: UpperRatios, distance: FloatArray | float) -> FloatArray:
        """Return what ``latency_at`` does for a one-sided end."""
        if self.domain is None or upper.latency <= 1.0:
            return np.full(np.shape(distance), upper.latency)
        moved: FloatArray = np.minimum(upper.latency ** self.domain.stretch(distance), upper.outside)
        return np.maximum(moved, upper.latency)


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

    def network_faults(self, digest: str) -> tuple[Infeasibility, ...]:
        """Return why the architecture of a digest does not run as a whole, as a measurement of it showed."""
        ...

    def check_scenario(self, scenario: Scenario) -> None:
        """Raise ``ConfigError`` when the predictor does not hold for ``scenario``."""
        ...


def predict(
    predictor: CostPredictor,
    workload: Workload,
    scenario: Scenario,
    pipeline: Pipeline = DENOISER_ALONE,
    *,
    level: float | None = None,
) -> CostEstimate:
    """Return the cost of one generation: one call times the denoiser calls, the other phases, and peak memory.

    With a ``level`` it has the one-sided ends that hold with this probability each.

    Raises:
        ConfigError: The predictor was calibrated for another scenario.
    """
    predictor.check_scenario(scenario)
    return assemble(predictor.price(workload), predictor, scenario, pipeline, level=level)


def assemble(
    price: WorkloadPrice,
    predictor: CostPredictor,
    scenario: Scenario,
    pipeline: Pipeline = DENOISER_ALONE,
    *,
    level: float | None = None,
) -> CostEstimate:
    """Turn a price into a cost with intervals, the split by phase and a breakdown that sums to the latency."""
    ratios, calls = predictor.ratios, scenario.denoiser_calls
    denoiser_ms = _denoiser_ms(price, ratios, calls)
    reason = outside_reason(price, ratios, pipeline)
    other_ms, terms = pipeline.latency_ms, pipeline.memory()
    activation_mb = max((block.activation_mb for block in price.blocks), default=0.0)
    low_mb, peak_mb, high_mb = (
        float(terms.peak_mb(np.array([price.weights_mb]), np.array([activation_mb]), ratio)[0])
        for ratio in (ratios.memory[0], 1.0, ratios.memory[1])
    )
    denoiser = PhaseCost(
        phase="denoiser",
        calls=calls,
        latency_ms=denoiser_ms[1],
        latency_interval_ms=Interval(low=denoiser_ms[0], high=denoiser_ms[2], coverage=ratios.coverage),
        peak_memory_mb=price.weights_mb + activation_mb,
        origin=predictor.origin,
        source=predictor.name,
    )
    return CostEstimate(
        latency_ms=denoiser_ms[1] + other_ms.value,
        latency_interval_ms=Interval(
            low=denoiser_ms[0] + other_ms.low, high=denoiser_ms[2] + other_ms.high, coverage=ratios.coverage
        ),
        peak_memory_mb=peak_mb,
        memory_interval_mb=Interval(low=low_mb, high=high_mb, coverage=ratios.coverage),
        parameters=price.parameters,
        blocks=_blocks(price, ratios, calls, pipeline, activation_mb),
        device=predictor.device,
        scenario=generation_label(scenario),
        predictor=predictor.name,
        origin=predictor.origin,
        in_domain=not reason,
        domain_note=reason,
        phases=pipeline.split(denoiser, coverage=ratios.coverage),
        infeasible=price.infeasible + pipeline.infeasible,
        package_mb=price.package_mb,
        upper=None
        if level is None
        else upper_ends(price, ratios, calls, pipeline, upper_ratios(ratios, level).at_least_predicted()),
    )


def upper_ends(
    price: WorkloadPrice, ratios: IntervalRatios, calls: int, pipeline: Pipeline, upper: UpperRatios
) -> UpperEnds:
    """Return the one-sided ends of a generation."""
    inside_ms, outside_ms = parts_ms(price, calls)
    near = float(ratios.upper_at(upper, 0.0 if ratios.domain is None else ratios.domain.distance(price)))
    activation_mb = max((block.activation_mb for block in price.blocks), default=0.0)
    peak_mb = pipeline.memory().peak_mb(np.array([price.weights_mb]), np.array([activation_mb]), upper.memory)
    return UpperEnds(
        level=upper.level,
        latency_ms=inside_ms * near + outside_ms * upper.outside + upper.others_ms(pipeline),
        memory_mb=float(peak_mb[0]),
    )


def parts_ms(price: WorkloadPrice, calls: int) -> tuple[float, float]:
    """Return the time of all calls that the domain covers, the overhead's included, and that of the other blocks."""
    inside = calls * (price.overhead_ms + sum(block.latency_ms for block in price.blocks if block.in_domain))
    return inside, calls * sum(block.latency_ms for block in price.blocks if not block.in_domain)


def _denoiser_ms(price: WorkloadPrice, ratios: IntervalRatios, calls: int) -> tuple[float, float, float]:
    """Return low end, prediction and high end of all denoiser calls."""
    inside, outside = parts_ms(price, calls)
    ends = ratios.latency_at(0.0 if ratios.domain is None else ratios.domain.distance(price))
    low, high = (inside * float(ends[end]) + outside * ratios.outside[end] for end in (0, 1))
    return low, inside + outside, high


def outside_reason(price: WorkloadPrice, ratios: IntervalRatios, pipeline: Pipeline = DENOISER_ALONE) -> str:
    """Say why a predictor had to extrapolate for a network, empty where it had not."""
    missing = sum(not block.in_domain for block in price.blocks)
    parts = [f"{missing} of {len(price.blocks)} blocks not measured"] if missing else []
    parts += [ratios.domain.reason(price)] if ratios.domain is not None else []
    parts += [] if pipeline.in_domain else ["another phase of the generation not measured"]
    return "; ".join(part for part in parts if part)


def _block_interval(block: BlockPrice, ratios: IntervalRatios, calls: int) -> Interval | None:
    ends = ratios.block if block.in_domain else ratios.outside
    if ratios.block is None or ends is None:
        return None
    time_ms = calls * block.latency_ms
    return Interval(low=time_ms * ends[0], high=time_ms * ends[1], coverage=ratios.coverage)


def _blocks(
    price: WorkloadPrice, ratios: IntervalRatios, calls: int, pipeline: Pipeline, activation_mb: float
) -> tuple[BlockCost, ...]:
    """Return what adds up to the latency: the other phases around the denoiser's blocks, and what they leave."""
    terms = pipeline.memory()
    held_mb = price.weights_mb + terms.weights_mb + terms.arenas_mb
    blocks = [
        BlockCost(
            block=block.block,
            latency_ms=calls * block.latency_ms,
            memory_mb=held_mb + block.activation_mb,
            compute_unit=block.compute_unit,
            latency_interval_ms=_block_interval(block, ratios, calls),
        )
        for block in price.blocks
    ]
    others = pipeline.blocks(weights_mb=price.weights_mb, activation_mb=activation_mb)
    between_ms = sum(phase.latency_ms.value for phase in pipeline.phases if phase.phase == "overhead")
    left_ms = calls * price.overhead_ms + between_ms
    return (
        *(block for block in others if block.block == "text_encoder"),
        *blocks,
        *(block for block in others if block.block == "decoder"),
        BlockCost(block="correction" if left_ms < 0.0 else "overhead", latency_ms=left_ms, memory_mb=held_mb),
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
