"""Rates, overheads and hard limits of one compute unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from latency_models.devices.figures import Figure
from latency_models.lowering import LOWERINGS, Lowering, WorkKind
from nas.core.cost import ComputeUnit
from nas.core.scenario import Precision

WeightForm = Literal["plain", "palettised", "linear", "blockwise", "sparse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat:
    """How weights are stored: mean bits of one, and the form, which decides whether a unit streams them as they are."""

    bits: float = 16.0
    form: WeightForm = "plain"

    def __post_init__(self) -> None:
        if not 0.0 < self.bits <= 32.0:
            raise ValueError(f"weights have more than 0 and at most 32 bits, got {self.bits}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRate:
    """Compute rate of one kind of work over the unit's peak."""

    work: WorkKind
    ratio: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """A kind of work or operation that the unit never runs, and where that is known from."""

    kind: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a unit refuses; None where no limit is known.

    Attributes:
        rank: Most axes of a tensor.
        axis: Longest axis but channels and batch; tokens, where the unit keeps them last.
        channels: Most channels.
        batch: Most batch rows.
        kernel_width: Widest kernel at half precision.
        window_mb: Most memory that one operation's tensors and scratch may take together.
    """

    rank: Figure | None = None
    axis: Figure | None = None
    channels: Figure | None = None
    batch: Figure | None = None
    kernel_width: Figure | None = None
    window_mb: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpec:
    """Rates and overheads of one compute unit.

    Attributes:
        compute_unit: Which unit.
        lowering: How it runs attention and norms, a name of ``latency_models.lowering.LOWERINGS``.
        precisions: Number formats it computes at.
        peak_flops: Reachable FLOP/s of a large matrix product at half precision (a multiply-add is two).
        rates: Compute rates of other kinds of work over ``peak_flops``; 1 where one is missing.
        channel_multiple: Channels are padded to a multiple of this.
        weight_bandwidth: Bytes/s of weights as they are at half precision.
        streamed_forms: Compressed forms of weights that it reads as they are stored; others are read at full width.
        stream_exponent: Streamed weights of b bits take (b / 16) to this power of the time of 16-bit ones.
        memory_bandwidth: Bytes/s of activations streamed through memory.
        on_chip_bandwidth: Bytes/s of activations that stay on the chip.
        on_chip_bytes: Largest tensor that stays on the chip.
        operation_overhead_ms: Fixed time of one operation.
        segment_overhead_ms: Fixed time of starting one more segment of a network on this unit.
        call_overhead_ms: Fixed time of one call of a network, its first segment included.
        limits: What it refuses.
        unsupported: Kinds it never runs.
    """

    compute_unit: ComputeUnit
    lowering: str
    precisions: tuple[Precision, ...] = ("float16", "float32", "bfloat16")
    peak_flops: Figure
    rates: tuple[KindRate, ...] = ()
    channel_multiple: Figure
    weight_bandwidth: Figure
    streamed_forms: tuple[WeightForm, ...] = ()
    stream_exponent: Figure | None = None
    memory_bandwidth: Figure
    on_chip_bandwidth: Figure
    on_chip_bytes: Figure
    operation_overhead_ms: Figure
    segment_overhead_ms: Figure
    call_overhead_ms: Figure
    limits: Limits = Limits()
    unsupported: tuple[Unsupported, ...] = ()

    def __post_init__(self) -> None:
        if self.lowering not in LOWERINGS:
            raise ValueError(f"unit {self.compute_unit!r}: lowering must be one of {', '.join(LOWERINGS)}")
        if self.channel_multiple.value < 1:
            raise ValueError(f"unit {self.compute_unit!r}: channel_multiple must be at least 1")

    @property
    def lowered(self) -> Lowering:
        """How it runs attention and norms."""
        return LOWERINGS[self.lowering]

    def peak_flops_at(self, precision: Precision) -> float:
        """FLOP/s at ``precision``; accelerators halve at single precision, CPU figures hold for both."""
        halved = precision == "float32" and self.compute_unit != "cpu"
        return self.peak_flops.value / (2.0 if halved else 1.0)

    def rate(self, work: WorkKind) -> float:
        """Compute rate of a kind of work over the peak."""
        return next((item.ratio.value for item in self.rates if item.work == work), 1.0)

    def weight_ratio(self, weights: WeightFormat) -> float:
        """Time of reading weights in a format over that of reading them at 16 bits."""
        if weights.form not in self.streamed_forms or self.stream_exponent is None or weights.bits >= 16.0:
            return 1.0
        return float((weights.bits / 16.0) ** self.stream_exponent.value)
