"""What the runner on the phone writes for one job, ``nas/device_record/1``: the public contract with the app.

A line with ``"state": "started"`` is written before a job and one without after it; a job that was only started ended
the runner itself, most often because the phone's memory ran out. ``model.arch_id`` is an architecture's text, or for
blocks ``model.block_path`` the block's signature, both as in the job list. ``kit`` names the profiling kit that the job
is of (``latency_models.importers.kits``); it is empty for packages from elsewhere. Times under ``latency`` and sizes
under ``memory`` state their unit; every other quantity has it in its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas.core.profile import FailureStage, Lowering


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What wrote the line."""

    tool: str
    commit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """The phone and its state; ``battery`` in 0 to 1."""

    product: str
    chip: str = ""
    ram_gb: float | None = None
    os: str = ""
    os_build: str = ""
    low_power: bool | None = None
    battery: float | None = None
    thermal_start: str | None = None
    thermal_end: str | None = None
    entitlement: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input of the package."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The package and what it is of; ``chunk`` is ``1/2``."""

    kind: Literal["op", "block", "unet", "pipeline"]
    arch_id: str = ""
    block_path: str = ""
    file: str = ""
    sha256: str = ""
    spec_version: int | None = None
    toolchain: str = ""
    inputs: tuple[Input, ...] = ()
    params: int | None = None
    macs: int | None = None
    weight_bits: float | None = None
    weight_scheme: str = ""
    activation_dtype: str = ""
    function: str = ""
    chunk: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What was asked of Core ML."""

    requested_units: str
    optimization_hints: dict[str, str] | None = None
    lowering: Lowering | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Raw samples in ``unit``; the summaries are checked against them."""

    unit: str
    samples: tuple[float, ...]
    warmup: int = 0
    median: float | None = None
    p90: float | None = None
    min: float | None = None
    iqr: float | None = None
    cold_first: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Times before the first call."""

    compile_ms: float | None = None
    first_load_ms: float | None = None
    cached_load_ms: float | None = None
    is_cached: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Sizes in ``unit``; see ``nas.core.profile.MemoryReadings``."""

    unit: str
    method: str
    footprint_unloaded: float | None = None
    footprint_before: float | None = None
    footprint_peak: float | None = None
    resident_peak: float | None = None
    available_min: float | None = None
    sys_free_before: float | None = None
    sys_free_min: float | None = None
    sys_wired_before: float | None = None
    sys_wired_max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One operation of the compute plan."""

    op_type: str
    preferred: str
    path: str = ""
    output_name: str = ""
    supported: tuple[str, ...] = ()
    cost: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Summary of the plan, for runners that do not write the plan itself."""

    ane_fraction_ops: float | None = None
    ane_fraction_cost: float | None = None
    segments: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """How near the outputs were to a reference."""

    ref: str
    psnr: float | None = None
    max_abs: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Why there is no latency."""

    stage: FailureStage
    message: str
    limit_ms: float | None = None
    limit_mb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """One line of the runner."""

    schema: Literal["nas/device_record/1"]
    run_id: str
    time: str
    host: Host
    device: Phone
    model: Model
    config: Configuration
    kit: str = ""
    job: str = ""
    scenario: str = ""
    state: Literal["started", "finished"] = "finished"
    origin: Literal["measured", "simulated"] = "measured"
    latency: Latency | None = None
    load: Load | None = None
    memory: Memory | None = None
    plan: tuple[PlanRow, ...] = ()
    placement: Placement | None = None
    outputs_check: Outputs | None = None
    error: Error | None = None
