"""Measurements on a device: raw samples with the conditions they were taken under, and attempts that failed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite
from typing import Literal

from nas.core.architecture import Architecture
from nas.core.cost import ComputeUnit, Origin
from nas.core.scenario import ComputeUnits
from nas.core.workload import BlockSpec

Level = Literal["operation", "block", "phase", "network", "pipeline"]
FailureStage = Literal["compile", "load", "predict", "out_of_memory", "timeout"]
Lowering = Literal["sdpa", "einsum", "matmul"]
Statistic = Literal["samples", "median", "mean", "minimum"]
THERMAL_STATES = ("nominal", "fair", "serious", "critical")  # of ProcessInfo.ThermalState, coolest first


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """The machine a measurement ran on.

    ``product`` is the maker's identifier (``iPhone17,2``) and ``os`` the version people know (``iOS 18.1``); empty
    where not known, like ``os_build``. ``memory_mb`` is the machine's memory, or None where not known.
    """

    name: str
    chip: str
    compute_unit: ComputeUnit
    threads: int
    memory_mb: float | None
    os_build: str
    software: str
    product: str = ""
    os: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there are no samples; what is known of the cost is a bound.

    Attributes:
        stage: Where it failed.
        message: The device's own words.
        limit_ms: With ``timeout``: the call took at least this long.
        limit_mb: With ``out_of_memory``: the peak was at least this high.
    """

    stage: FailureStage
    message: str
    limit_ms: float | None = None
    limit_mb: float | None = None

    def __post_init__(self) -> None:
        for name, stage in (("limit_ms", "timeout"), ("limit_mb", "out_of_memory")):
            value = getattr(self, name)
            if value is None:
                continue
            if self.stage != stage:
                raise ValueError(f"failure: {name} belongs to stage {stage!r}, got stage {self.stage!r}")
            if not isfinite(value) or value <= 0:
                raise ValueError(f"failure: {name} must be finite and above 0, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTimes:
    """Times before the first call: compiling the package, loading it first (cold) and again from the device's cache.

    ``first_call_ms`` is the first call after loading, reported apart from the samples.
    """

    compile_ms: float | None = None
    first_load_ms: float | None = None
    cached_load_ms: float | None = None
    first_call_ms: float | None = None

    def __post_init__(self) -> None:
        _check_not_negative(self, "load times")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReadings:
    """Both memory numbers of a phone, in MB (1e6 bytes).

    The app's footprint decides when the app is killed; memory of the Neural Engine is owned by other processes and
    shows only in the whole system's free and wired memory. ``footprint_before_mb`` is read with the network loaded,
    right before the calls; ``footprint_unloaded_mb``, ``system_free_before_mb`` and ``system_wired_before_mb`` before
    it is loaded.
    """

    footprint_unloaded_mb: float | None = None
    footprint_before_mb: float | None = None
    footprint_peak_mb: float | None = None
    resident_peak_mb: float | None = None
    available_min_mb: float | None = None
    system_free_before_mb: float | None = None
    system_free_min_mb: float | None = None
    system_wired_before_mb: float | None = None
    system_wired_max_mb: float | None = None

    def __post_init__(self) -> None:
        _check_not_negative(self, "memory readings")

    @property
    def footprint_rise_mb(self) -> float | None:
        """Rise of the app's footprint during the calls, the loaded weights not included."""
        return _difference(self.footprint_peak_mb, self.footprint_before_mb)

    @property
    def system_rise_mb(self) -> float | None:
        """What loading and running took from the whole system: the larger of wired gained and free lost."""
        wired = _difference(self.system_wired_max_mb, self.system_wired_before_mb)
        free = _difference(self.system_free_before_mb, self.system_free_min_mb)
        known = [value for value in (wired, free) if value is not None]
        return max(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedOperation:
    """One operation of a compute plan: where it runs, where it could, and why not elsewhere.

    ``cost_share`` is the planner's share of the whole network, in [0, 1]; ``time_ms`` a time per operation where the
    tool gives one. ``reason`` is the planner's refusal of a unit.
    """

    name: str
    kind: str
    preferred: ComputeUnit
    supported: tuple[ComputeUnit, ...] = ()
    cost_share: float | None = None
    time_ms: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.cost_share is not None and not 0.0 <= self.cost_share <= 1.0:
            raise ValueError(f"planned operation {self.name!r}: cost_share must lie in [0, 1], got {self.cost_share}")
        if self.time_ms is not None and (not isfinite(self.time_ms) or self.time_ms < 0):
            raise ValueError(f"planned operation {self.name!r}: time_ms must be finite and not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageInfo:
    """The package that ran. ``weight_bits`` may be a mean; ``inputs`` are (name, shape, number format)."""

    file: str = ""
    sha256: str = ""
    toolchain: str = ""
    specification_version: int | None = None
    inputs: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    parameters: int | None = None
    macs: int | None = None
    weight_bits: float | None = None
    weight_scheme: str = ""
    activation_format: str = ""
    function: str = ""
    chunk: int | None = None
    chunks: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConditions:
    """What was asked of the runtime, and the state of the phone beyond its thermal states."""

    requested_units: ComputeUnits | None = None
    lowering: Lowering | None = None
    optimization_hints: tuple[tuple[str, str], ...] = ()
    low_power: bool | None = None
    battery_ratio: float | None = None
    memory_entitlement: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCheck:
    """How near the device's outputs were to a reference."""

    reference: str
    psnr_db: float | None = None
    max_abs_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRecord:
    """One measured operation, block, phase, network or pipeline, or one attempt that failed.

    ``subject`` is the block's signature, the architecture's digest, or the name of a network that is not ours;
    ``block`` and ``architecture`` rebuild ours without the run that chose them. ``samples_ms`` are raw, in order, one
    call each, the first ``warmup`` of them to be ignored; with a ``statistic`` other than ``samples`` there is one, a
    figure over ``num_runs`` calls made by others. A record without samples carries a failure, a plan, memory or
    load times.

    ``peak_memory_mb`` is the rise over the memory held before the call; ``memory_method`` says how it was read, and
    ``memory`` holds a phone's two numbers. ``anchor_ms`` is the time of one fixed job around each sample, by the same
    clock, so that swings of the machine's own speed can be divided out; empty where no anchor was run.
    """

    subject: str
    level: Level
    scenario: str
    device: DeviceInfo
    samples_ms: tuple[float, ...]
    warmup: int
    peak_memory_mb: float | None
    memory_method: str | None
    anchor_ms: tuple[float, ...] = ()
    thermal_states: tuple[str, ...] = ()
    statistic: Statistic = "samples"
    num_runs: int | None = None
    architecture: Architecture | None = None
    block: BlockSpec | None = None
    failure: Failure | None = None
    load: LoadTimes | None = None
    memory: MemoryReadings | None = None
    plan: tuple[PlannedOperation, ...] = ()
    package: PackageInfo | None = None
    conditions: RunConditions | None = None
    outputs_check: OutputCheck | None = None
    tool: str
    taken_at: str
    origin: Origin
    source: str
    licence: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        faults = [*self._sample_faults(), *self._subject_faults()]
        if faults:
            raise ValueError(f"profile of {self.subject!r}: {'; '.join(faults)}")

    def _sample_faults(self) -> list[str]:
        if not self.samples_ms:
            others = (self.failure, self.plan or None, self.memory, self.peak_memory_mb, self.load)
            empty = all(other is None for other in others)
            faults = ["has no samples, and neither failure nor plan, memory or load times"] if empty else []
            return faults + (["has no samples but a warm-up or anchor times"] if self.warmup or self.anchor_ms else [])
        faults = []
        if self.failure is not None:
            faults.append(f"failed at {self.failure.stage}, yet has {len(self.samples_ms)} samples")
        if self.warmup < 0 or self.warmup >= len(self.samples_ms):
            faults.append(f"{len(self.samples_ms)} samples, {self.warmup} of them warm-up")
        bad = [value for value in self.samples_ms if not isfinite(value) or value <= 0]
        if bad:
            faults.append(f"samples must be finite and above 0 ms, got {bad[0]}")
        if self.statistic != "samples" and len(self.samples_ms) != 1:
            faults.append(f"a {self.statistic} is one figure, got {len(self.samples_ms)}")
        if self.anchor_ms and len(self.anchor_ms) != len(self.samples_ms):
            faults.append(f"{len(self.samples_ms)} samples, {len(self.anchor_ms)} anchor times")
        if any(not isfinite(value) or value <= 0 for value in self.anchor_ms):
            faults.append("anchor times must be finite and above 0 ms")
        return faults

    def _subject_faults(self) -> list[str]:
        known = ", ".join(THERMAL_STATES)
        unknown = [state for state in self.thermal_states if state not in THERMAL_STATES]
        faults = [f"thermal state must be one of {known}, got {unknown[0]!r}"] if unknown else []
        if self.architecture is not None and self.architecture.digest != self.subject:
            faults.append(f"is not the digest of its architecture, {self.architecture.digest!r}")
        if self.block is not None and self.block.signature != self.subject:
            faults.append(f"is not the signature of its block, {self.block.signature!r}")
        return faults

    @property
    def steady_ms(self) -> tuple[float, ...]:
        """Samples after the warm-up."""
        return self.samples_ms[self.warmup :]

    @property
    def placement_ratio(self) -> dict[ComputeUnit, float]:
        """Share of the plan's operations on each compute unit, by cost where every operation has one."""
        weights = [operation.cost_share for operation in self.plan]
        costs = [1.0 if None in weights else weight or 0.0 for weight in weights]
        total = sum(costs) or 1.0
        shares: dict[ComputeUnit, float] = {}
        for operation, cost in zip(self.plan, costs, strict=True):
            shares[operation.preferred] = shares.get(operation.preferred, 0.0) + cost / total
        return shares


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSet:
    """Records of one device; several records of one subject are repeats."""

    records: tuple[ProfileRecord, ...]

    def of_level(self, level: Level) -> tuple[ProfileRecord, ...]:
        """Return the timed records of one level, in file order."""
        return tuple(record for record in self.records if record.level == level and record.samples_ms)

    def failures(self, level: Level | None = None) -> tuple[ProfileRecord, ...]:
        """Return the attempts that failed, of one level or of all, in file order."""
        return tuple(record for record in self.records if record.failure is not None and level in (None, record.level))


def _difference(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else max(high - low, 0.0)


def _check_not_negative(value: LoadTimes | MemoryReadings, what: str) -> None:
    for field in fields(value):
        number = getattr(value, field.name)
        if number is not None and (not isfinite(number) or number < 0):
            raise ValueError(f"{what}: {field.name} must be finite and not negative, got {number}")
