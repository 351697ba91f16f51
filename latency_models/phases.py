"""The phases of a generation besides the denoiser, and what all of them hold in memory at once or in turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Literal

import numpy as np

from latency_models.summaries import anchor_reference, steady_samples_ms, summarise
from nas.core.cost import BlockCost, ComputeUnit, Infeasibility, Interval, Origin, PhaseCost
from nas.core.errors import ProfileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from latency_models.pricing import CostPredictor
    from nas.core.profile import ProfileSet
    from nas.core.workload import Workload

    FloatArray = NDArray[np.float64]

OtherPhase = Literal["text_encoder", "decoder", "overhead"]
Residency = Literal["together", "in_turn"]

# Order of a generation; the denoiser stands between the text encoder and the decoder.
OTHER_PHASES: tuple[OtherPhase, ...] = ("text_encoder", "decoder", "overhead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A figure with the ends of its interval."""

    low: float
    value: float
    high: float

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and isfinite(self.high)) or not 0.0 <= self.low <= self.value <= self.high:
            raise ValueError(
                f"a range needs finite 0 <= low <= value <= high, got {self.low}, {self.value}, {self.high}"
            )

    def plus(self, other: Range) -> Range:
        """Return the sum, end by end."""
        return Range(low=self.low + other.low, value=self.value + other.value, high=self.high + other.high)


NOTHING = Range(low=0.0, value=0.0, high=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePrice:
    """Price of one phase besides the denoiser.

    Attributes:
        latency_ms: Time of all its calls in one generation.
        weights_mb: Memory of its weights; None, as ``activation_mb``, where nobody has stated its memory.
        activation_mb: Largest activation memory while it runs; its interval is that of the denoiser's activations, as
            how far estimates miss is a property of the device.
        in_domain: False when it was extrapolated.
        infeasible: Why it does not run on the device, if so; then no generation does.
    """

    phase: OtherPhase
    calls: int
    latency_ms: Range
    weights_mb: float | None
    activation_mb: float | None
    compute_unit: ComputeUnit = "unknown"
    origin: Origin
    source: str
    in_domain: bool = True
    infeasible: tuple[Infeasibility, ...] = ()

    @property
    def memory_mb(self) -> tuple[float, float] | None:
        """Weights and largest activation; None where either is not known."""
        return None if self.weights_mb is None or self.activation_mb is None else (self.weights_mb, self.activation_mb)

    def scaled(self, ratio: float, *, why: str, activation_ratio: float = 1.0, in_domain: bool = True) -> PhasePrice:
        """Return the price of ``ratio`` times the work: a proportion, not a measurement, which its source then says.

        Args:
            ratio: Factor on the latency and its ends.
            why: What there is more or less of.
            activation_ratio: Factor on the activation memory.
            in_domain: False where the proportion is itself an assumption.
        """
        time, activation_mb = self.latency_ms, self.activation_mb
        return replace(
            self,
            latency_ms=Range(low=ratio * time.low, value=ratio * time.value, high=ratio * time.high),
            activation_mb=None if activation_mb is None else activation_ratio * activation_mb,
            origin="simulated" if self.origin == "simulated" else "predicted",
            source=f"{self.source}; times {ratio:.3g} for {why}",
            in_domain=self.in_domain and in_domain,
        )

    def cost(self, *, coverage: float) -> PhaseCost:
        """Return the line of a cost's split."""
        memory = self.memory_mb
        return PhaseCost(
            phase=self.phase,
            calls=self.calls,
            latency_ms=self.latency_ms.value,
            latency_interval_ms=Interval(low=self.latency_ms.low, high=self.latency_ms.high, coverage=coverage),
            peak_memory_mb=None if memory is None else sum(memory),
            origin=self.origin,
            source=self.source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What a generation runs besides the denoiser, and how its networks share the memory.

    Attributes:
        residency: ``together``: all networks stay loaded. ``in_turn``: each is loaded, run and unloaded, so that only
            one is held at a time; what loading costs is the phase ``overhead``.
        keeps_arenas: Whether a loaded network holds its activation memory while another runs, as engines that plan it
            when loading do; an allocator gives it back.
    """

    phases: tuple[PhasePrice, ...] = ()
    residency: Residency = "together"
    keeps_arenas: bool = False

    def __post_init__(self) -> None:
        names = [phase.phase for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"a pipeline has every phase once, got {', '.join(names)}")

    @property
    def latency_ms(self) -> Range:
        """Time of the phases besides the denoiser; ends add up, which holds when they err in the same direction."""
        total = NOTHING
        for phase in self.phases:
            total = total.plus(phase.latency_ms)
        return total

    @property
    def in_domain(self) -> bool:
        """Whether no phase was extrapolated."""
        return all(phase.in_domain for phase in self.phases)

    @property
    def infeasible(self) -> tuple[Infeasibility, ...]:
        """What of the phases does not run on the device."""
        return tuple(fault for phase in self.phases for fault in phase.infeasible)

    def memory(self) -> MemoryTerms:
        """Return what the phases add to the denoiser's own memory; phases of unknown memory add nothing.

        What ``overhead`` holds, the latents between the calls, is held beside whatever runs.
        """
        between_mb = sum(sum(phase.memory_mb or ()) for phase in self.phases if phase.phase == "overhead")
        networks = [phase for phase in self.phases if phase.phase != "overhead"]
        known = [memory for phase in networks if (memory := phase.memory_mb) is not None]
        if self.residency == "in_turn":
            return MemoryTerms(alone_mb=tuple(known), arenas_mb=between_mb)
        weights_mb = sum(weights for weights, _ in known)
        if self.keeps_arenas:
            return MemoryTerms(weights_mb=weights_mb, arenas_mb=between_mb + sum(activation for _, activation in known))
        return MemoryTerms(
            weights_mb=weights_mb,
            arenas_mb=between_mb,
            activation_mb=max((item for _, item in known), default=0.0),
        )

    def split(self, denoiser: PhaseCost, *, coverage: float) -> tuple[PhaseCost, ...]:
        """Return every phase's line, in order of a generation."""
        lines = {phase.phase: phase.cost(coverage=coverage) for phase in self.phases}
        first, *rest = (lines.get(name) for name in OTHER_PHASES)
        return tuple(line for line in (first, denoiser, *rest) if line is not None)

    def blocks(self, *, weights_mb: float, activation_mb: float) -> tuple[BlockCost, ...]:
        """Return one block a phase, the overhead aside, with what is held while it runs.

        Args:
            weights_mb: The denoiser's weights.
            activation_mb: The denoiser's largest activation, which a kept arena holds.
        """
        terms = self.memory()
        found = []
        for phase in self.phases:
            if phase.phase == "overhead":
                continue
            own = phase.memory_mb or (0.0, 0.0)
            level = sum(own) + terms.arenas_mb
            if self.residency == "together":
                level = (
                    weights_mb + terms.weights_mb + terms.arenas_mb + (activation_mb if self.keeps_arenas else own[1])
                )
            block = BlockCost(
                block=phase.phase,
                latency_ms=phase.latency_ms.value,
                memory_mb=level,
                compute_unit=phase.compute_unit,
            )
            found.append(block)
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTerms:
    """What the other phases add to the denoiser's memory: constants of a space.

    Attributes:
        weights_mb: Weights held beside the denoiser's, exact.
        arenas_mb: Activation memory held beside that of whatever runs.
        activation_mb: Largest activation of another phase that runs before or after; the denoiser's may be larger.
        alone_mb: Weights and largest activation of each phase that is loaded alone, in its turn.
    """

    weights_mb: float = 0.0
    arenas_mb: float = 0.0
    activation_mb: float = 0.0
    alone_mb: tuple[tuple[float, float], ...] = ()

    def floor_mb(self, ratio: float = 1.0) -> float:
        """Return the largest peak of a phase loaded alone, its activations times ``ratio``."""
        held = ratio * self.arenas_mb
        return max((weights + held + ratio * activation for weights, activation in self.alone_mb), default=0.0)

    def peak_mb(self, weights_mb: FloatArray, activation_mb: FloatArray, ratio: float = 1.0) -> FloatArray:
        """Return the peak of a generation, or an end of its interval.

        Args:
            weights_mb: The denoiser's weights (N,), exact.
            activation_mb: Its largest activation (N,).
            ratio: What every activation is multiplied by: 1 for the prediction, else the end's.
        """
        activations = ratio * (self.arenas_mb + np.maximum(activation_mb, self.activation_mb))
        return np.maximum((weights_mb + self.weights_mb) + activations, self.floor_mb(ratio))


def phase_of_workload(phase: OtherPhase, workload: Workload, predictor: CostPredictor, *, calls: int = 1) -> PhasePrice:
    """Price a phase from its analytic description with the predictor that prices the denoiser.

    An overhead below 0 is how much less the denoisers took than the sum of their blocks, and no time of an empty call:
    other networks pay no overhead then.

    Args:
        phase: Which phase.
        workload: One call of it.
        predictor: Prices its blocks.
        calls: How often it runs in one generation.
    """
    price, ratios = predictor.price(workload), predictor.ratios
    inside = calls * (max(0.0, price.overhead_ms) + sum(block.latency_ms for block in price.blocks if block.in_domain))
    outside = calls * sum(block.latency_ms for block in price.blocks if not block.in_domain)
    low, high = (inside * ratios.latency[end] + outside * ratios.outside[end] for end in (0, 1))
    return PhasePrice(
        phase=phase,
        calls=calls,
        latency_ms=Range(low=low, value=inside + outside, high=high),
        weights_mb=price.weights_mb,
        activation_mb=max((block.activation_mb for block in price.blocks), default=0.0),
        compute_unit=price.blocks[0].compute_unit if price.blocks else "unknown",
        origin=predictor.origin,
        source=predictor.name,
        in_domain=all(block.in_domain for block in price.blocks),
        infeasible=tuple(replace(fault, block=f"{phase}.{fault.block}") for fault in price.infeasible),
    )


def phase_of_figures(
    phase: OtherPhase,
    *,
    latency_ms: float,
    low_ms: float,
    high_ms: float,
    calls: int,
    weights_mb: float | None,
    activation_mb: float | None,
    origin: Origin,
    source: str,
) -> PhasePrice:
    """Return a phase from figures of one call that someone else states; memory may be unknown."""
    return PhasePrice(
        phase=phase,
        calls=calls,
        latency_ms=Range(low=calls * low_ms, value=calls * latency_ms, high=calls * high_ms),
        weights_mb=weights_mb,
        activation_mb=activation_mb,
        origin=origin,
        source=source,
    )


def phase_of_records(
    phase: OtherPhase, profiles: ProfileSet, *, calls: int, weights_mb: float, coverage: float
) -> PhasePrice:
    """Return a phase from its measurements on the device, at the machine speed that blocks were measured at.

    The ends are the quantiles of single samples, which spread more than medians of sessions do; of few samples they are
    the extremes, which hold a fresh one with the probability (n - 1) / (n + 1).

    Args:
        phase: The subject of its records, of level ``phase``.
        profiles: Records of one device; blocks beside the phase give the speed.
        calls: How often it runs in one generation.
        weights_mb: Its weights; the records hold the rise above them.
        coverage: Share of samples between the ends.

    Raises:
        ProfileError: The phase was not measured.
    """
    records = [record for record in profiles.of_level("phase") if record.subject == phase]
    if not records:
        raise ProfileError(f"profiles hold no record of the phase {phase!r}", hint="run the profile stage again")
    reference = anchor_reference(profiles, "block") or anchor_reference(profiles, "phase")
    summary = summarise(records, reference=reference)
    samples = np.concatenate([steady_samples_ms(record, reference=reference) for record in records])
    # Places p * (n + 1), between which a fresh sample lies with the stated probability.
    ends = np.quantile(samples, [(1.0 - coverage) / 2.0, (1.0 + coverage) / 2.0], method="weibull")
    low, high = (float(end) for end in ends)
    device = records[0].device
    return PhasePrice(
        phase=phase,
        calls=calls,
        latency_ms=Range(
            low=calls * min(low, summary.centre_ms),
            value=calls * summary.centre_ms,
            high=calls * max(high, summary.centre_ms),
        ),
        weights_mb=weights_mb,
        activation_mb=summary.peak_memory_mb,
        compute_unit=device.compute_unit,
        origin=records[0].origin,
        source=f"{summary.num_samples} samples on {device.name} ({device.chip})",
    )
