"""Measurements on a device: raw samples with the conditions they were taken under."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from nas.core.cost import ComputeUnit, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """The machine a measurement ran on."""

    name: str
    chip: str
    compute_unit: ComputeUnit
    threads: int
    memory_mb: float
    os_build: str
    software: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRecord:
    """One measured block or whole network.

    ``subject`` is the block's signature or the architecture's digest; ``samples_ms`` are raw, in order, one denoiser
    call each, the first ``warmup`` of them to be ignored. ``peak_memory_mb`` is the rise over the memory held before
    the call; ``memory_method`` says how it was read. ``anchor_ms`` is the time of one fixed job around each sample, by
    the same clock, so that swings of the machine's own speed can be divided out; empty where no anchor was run.
    """

    subject: str
    level: Literal["block", "network"]
    scenario: str
    device: DeviceInfo
    samples_ms: tuple[float, ...]
    warmup: int
    peak_memory_mb: float | None
    memory_method: str | None
    anchor_ms: tuple[float, ...] = ()
    thermal_states: tuple[str, ...] = ()
    cold_load_ms: float | None = None
    placement: tuple[tuple[str, ComputeUnit], ...] = ()
    tool: str
    taken_at: str
    origin: Origin
    source: str

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.warmup >= len(self.samples_ms):
            raise ValueError(
                f"profile of {self.subject!r}: {len(self.samples_ms)} samples, {self.warmup} of them warm-up"
            )
        bad = [value for value in self.samples_ms if not isfinite(value) or value <= 0]
        if bad:
            raise ValueError(f"profile of {self.subject!r}: samples must be finite and above 0 ms, got {bad[0]}")
        if self.anchor_ms and len(self.anchor_ms) != len(self.samples_ms):
            raise ValueError(
                f"profile of {self.subject!r}: {len(self.samples_ms)} samples, {len(self.anchor_ms)} anchor times"
            )
        if any(not isfinite(value) or value <= 0 for value in self.anchor_ms):
            raise ValueError(f"profile of {self.subject!r}: anchor times must be finite and above 0 ms")

    @property
    def steady_ms(self) -> tuple[float, ...]:
        """Samples after the warm-up."""
        return self.samples_ms[self.warmup :]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSet:
    """Records of one device; several records of one subject are repeats."""

    records: tuple[ProfileRecord, ...]

    def of_level(self, level: Literal["block", "network"]) -> tuple[ProfileRecord, ...]:
        """Return the records of blocks, or of whole networks, in file order."""
        return tuple(record for record in self.records if record.level == level)
