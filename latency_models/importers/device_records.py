"""Read the JSON Lines of the runner on the phone; ``device_record_schema`` says what a line holds."""

from __future__ import annotations

import json
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from latency_models.importers.contract import ImportOptions, ImportResult, Rows, read_bytes
from latency_models.importers.device_record_checks import check_line
from latency_models.importers.device_record_schema import (
    DeviceRecord,
    Latency,
    Load,
    Memory,
    Model,
    Outputs,
    Placement,
    PlanRow,
)
from latency_models.importers.kits import check_kit
from latency_models.importers.naming import Subject, compute_unit, device_name, ran_on, requested_units, subject
from nas.core.profile import (
    DeviceInfo,
    Failure,
    Level,
    LoadTimes,
    MemoryReadings,
    OutputCheck,
    PackageInfo,
    PlannedOperation,
    ProfileRecord,
    RunConditions,
)
from nas.core.schema import from_data
from nas.core.units import megabytes, milliseconds
from nas.core.workload import BlockSpec

if TYPE_CHECKING:
    from pathlib import Path

_LEVELS: dict[str, Level] = {"op": "operation", "block": "block", "unet": "network", "pipeline": "pipeline"}
_MEDIAN_TOLERANCE = 0.02  # a runner may round; another unit is far outside


def read(path: Path, options: ImportOptions) -> ImportResult:
    """Read the runner's file; lines that cannot be used are named, an unfinished last line is left out.

    Raises:
        InputError: The file does not exist.
    """
    rows = Rows(str(path))
    lines = read_bytes(path).split(b"\n")
    started: dict[tuple[str, ...], tuple[int, DeviceRecord]] = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        with rows.row(number):
            try:
                data = json.loads(text)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                if number < len(lines):
                    rows.fault(number, f"damaged record: {error}")
                continue
            line = from_data(DeviceRecord, data, where="device record")
            if line.state == "started":
                started[_job(line)] = (number, line)
                continue
            started.pop(_job(line), None)
            _check(line, options)
            rows.keep(_record(line, options), number)
    for number, line in started.values():
        with rows.row(number):
            _check(line, options)
            rows.keep(_record(line, options, ended=True), number)
    return rows.result()


def _check(line: DeviceRecord, options: ImportOptions) -> None:
    """Refuse, for an import into a run, what is of another kit or was taken in a way that says nothing."""
    if options.kits is None:
        return
    if line.kit:
        check_kit(line, options.kits)
    check_line(line)


def _job(line: DeviceRecord) -> tuple[str, ...]:
    return (line.run_id, line.job, line.model.file, line.model.arch_id, line.model.block_path)


def _record(line: DeviceRecord, options: ImportOptions, *, ended: bool = False) -> ProfileRecord:
    asked = requested_units(line.config.requested_units)
    plan = tuple(_operation(row) for row in line.plan)
    samples = _samples(line.latency) if line.latency else ()
    memory = _memory(line.memory) if line.memory else None
    peak = memory.footprint_rise_mb if memory else None
    return ProfileRecord(
        **_subject(line.model),
        scenario=line.scenario or _scenario(options.scenario, asked),
        device=_device(line, plan, options),
        samples_ms=samples,
        warmup=line.latency.warmup if line.latency else 0,
        peak_memory_mb=peak,
        memory_method=line.memory.method if line.memory and peak is not None else None,
        thermal_states=tuple(s for s in (line.device.thermal_start, line.device.thermal_end) if s),
        failure=_failure(line, ended=ended),
        load=_load(line),
        memory=memory,
        plan=plan,
        package=_package(line.model),
        conditions=RunConditions(
            requested_units=asked,
            lowering=line.config.lowering,
            optimization_hints=tuple(sorted((line.config.optimization_hints or {}).items())),
            low_power=line.device.low_power,
            battery_ratio=line.device.battery,
            memory_entitlement=line.device.entitlement,
        ),
        outputs_check=_outputs(line.outputs_check),
        tool=" ".join(part for part in (line.host.tool, line.host.commit) if part),
        taken_at=_moment(line.time),
        origin=line.origin,
        source=f"runner {line.run_id}",
        note=_note(line.placement),
    )


def _subject(model: Model) -> Subject:
    if model.kind == "block":
        block = BlockSpec.parse(model.block_path)
        return Subject(subject=block.signature, level="block", architecture=None, block=block)
    text = model.block_path if model.kind == "op" else model.arch_id
    found = subject(text or model.file, level=_LEVELS[model.kind])
    found["level"] = _LEVELS[model.kind]
    return found


def _device(line: DeviceRecord, plan: tuple[PlannedOperation, ...], options: ImportOptions) -> DeviceInfo:
    phone, share = line.device, line.placement.ane_fraction_cost if line.placement else None
    unit = ran_on(plan, requested_units(line.config.requested_units))
    if not plan and share is not None and share >= 0.5:
        unit = "neural_engine"
    return DeviceInfo(
        name=device_name(options.device or phone.product),
        chip=phone.chip,
        compute_unit=unit,
        threads=1,
        memory_mb=None if phone.ram_gb is None else megabytes(phone.ram_gb, "GiB"),
        os_build=phone.os_build,
        software="Core ML",
        product=phone.product,
        os=phone.os,
    )


def _samples(latency: Latency) -> tuple[float, ...]:
    samples = tuple(milliseconds(value, latency.unit) for value in latency.samples)
    steady = latency.samples[latency.warmup :]
    if latency.median is not None and steady:
        found = median(steady)
        if abs(found - latency.median) > _MEDIAN_TOLERANCE * abs(found):
            raise ValueError(
                f"latency.median {latency.median:g} is not the median of its samples, {found:g} {latency.unit}"
            )
    return samples


def _memory(memory: Memory) -> MemoryReadings:
    def size(value: float | None) -> float | None:
        return None if value is None else megabytes(value, memory.unit)

    return MemoryReadings(
        footprint_unloaded_mb=size(memory.footprint_unloaded),
        footprint_before_mb=size(memory.footprint_before),
        footprint_peak_mb=size(memory.footprint_peak),
        resident_peak_mb=size(memory.resident_peak),
        available_min_mb=size(memory.available_min),
        system_free_before_mb=size(memory.sys_free_before),
        system_free_min_mb=size(memory.sys_free_min),
        system_wired_before_mb=size(memory.sys_wired_before),
        system_wired_max_mb=size(memory.sys_wired_max),
    )


def _failure(line: DeviceRecord, *, ended: bool) -> Failure | None:
    if ended:
        return Failure(stage="predict", message="the runner ended in this job, perhaps for lack of memory")
    error = line.error
    if error is None:
        return None
    return Failure(stage=error.stage, message=error.message, limit_ms=error.limit_ms, limit_mb=error.limit_mb)


def _load(line: DeviceRecord) -> LoadTimes | None:
    first = line.latency.cold_first if line.latency else None
    if line.load is None and first is None:
        return None
    load, unit = line.load or Load(), line.latency.unit if line.latency else "ms"
    return LoadTimes(
        compile_ms=load.compile_ms,
        first_load_ms=load.first_load_ms,
        cached_load_ms=load.cached_load_ms,
        first_call_ms=None if first is None else milliseconds(first, unit),
    )


def _operation(row: PlanRow) -> PlannedOperation:
    return PlannedOperation(
        name=row.output_name or row.path,
        kind=row.op_type,
        preferred=compute_unit(row.preferred),
        supported=tuple(compute_unit(unit) for unit in row.supported),
        cost_share=row.cost,
        reason=row.reason,
    )


def _package(model: Model) -> PackageInfo:
    chunk, _, chunks = model.chunk.partition("/")
    return PackageInfo(
        file=model.file,
        sha256=model.sha256,
        toolchain=model.toolchain,
        specification_version=model.spec_version,
        inputs=tuple((item.name, item.shape, item.dtype) for item in model.inputs),
        parameters=model.params,
        macs=model.macs,
        weight_bits=model.weight_bits,
        weight_scheme=model.weight_scheme,
        activation_format=model.activation_dtype,
        function=model.function,
        chunk=int(chunk) if chunk else None,
        chunks=int(chunks) if chunks else None,
    )


def _outputs(check: Outputs | None) -> OutputCheck | None:
    if check is None:
        return None
    return OutputCheck(reference=check.ref, psnr_db=check.psnr, max_abs_error=check.max_abs)


def _scenario(label: str, asked: str) -> str:
    """The run's label with the units that were asked for; they are its last word."""
    return " ".join([*label.split(" ")[:-1], asked]) if label else ""


def _moment(time: str) -> str:
    try:
        datetime.fromisoformat(time)
    except ValueError as error:
        raise ValueError(f"time must be ISO 8601, got {time!r}") from error
    return time


def _note(placement: Placement | None) -> str:
    if placement is None:
        return ""
    parts: list[tuple[str, Any]] = [
        ("neural engine share of operations", placement.ane_fraction_ops),
        ("of cost", placement.ane_fraction_cost),
        ("segments", placement.segments),
    ]
    return ", ".join(f"{name} {value:g}" for name, value in parts if value is not None)
