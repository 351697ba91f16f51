"""What measuring with coremltools' own benchmarking classes has in common on a Mac and on an attached phone.

The classes are those of ``coremltools.models.ml_program.experimental`` (9.0): ``MLModelBenchmarker`` loads and calls a
package, here or on a device, and estimates each operation by the compute plan. They read neither memory nor thermal
state, so their records have none; the runner of a profiling kit has both.
"""

from __future__ import annotations

import asyncio
import platform
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from latency_models.importers.naming import compute_unit, ran_on
from latency_models.jobs import Availability
from nas.core.errors import MeasurementError
from nas.core.profile import (
    DeviceInfo,
    Failure,
    LoadTimes,
    PackageInfo,
    PlannedOperation,
    ProfileRecord,
    RunConditions,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from latency_models.jobs import MeasurementJob, MeasurementPlan
    from nas.core.cost import ComputeUnit, Origin
    from nas.core.scenario import ComputeUnits

    PackageOf = Callable[[MeasurementJob], Path]

LOADS = 2  # the first is cold, the second from the device's cache
_COREML_UNITS: dict[ComputeUnits, str] = {
    "all": "ALL",
    "cpu_only": "CPU_ONLY",
    "cpu_and_gpu": "CPU_AND_GPU",
    "cpu_and_ne": "CPU_AND_NE",
}


def missing_here(*commands: str) -> list[str]:
    """Return what this machine lacks to run Core ML packages, and which command line tools."""
    found = [] if platform.system() == "Darwin" else [f"macOS (this is {platform.system()})"]
    if find_spec("coremltools") is None:
        found.append("coremltools (pip install coremltools)")
    return found + [f"{name} (install Xcode and open it once)" for name in commands if shutil.which(name) is None]


def availability_of(missing: list[str]) -> Availability:
    """Return whether nothing is missing."""
    return Availability(available=not missing, reason="needs " + ", ".join(missing) if missing else "")


@dataclass(slots=True)
class _Seen:
    """What one package gave so far."""

    loads_ms: tuple[float, ...] = ()
    samples_ms: tuple[float, ...] = ()
    operations: tuple[PlannedOperation, ...] = ()
    failure: Failure | None = None


class CoreMLBackend:
    """Measures packages through ``MLModelBenchmarker``; what is particular to a device is given by its functions.

    Args:
        name: Of the backend.
        device: What the records say of the machine; its compute unit is replaced by the one that a plan names.
        package_of: Package of a job, such as a kit has.
        compute_units: Core ML setting.
        target: coremltools' device, or None for this Mac.
    """

    origin: Origin = "measured"

    def __init__(
        self,
        name: str,
        device: DeviceInfo,
        package_of: PackageOf,
        *,
        compute_units: ComputeUnits,
        target: Any = None,
    ) -> None:
        self.name = name
        self._device = device
        self._package_of = package_of
        self._compute_units: ComputeUnits = compute_units
        self._target = target

    def availability(self) -> Availability:
        """Say what is missing, if anything."""
        return availability_of(missing_here(*(() if self._target is None else ("xcrun",))))

    def describe(self) -> DeviceInfo:
        """Describe the device; the unit is that of the setting, as no plan was read yet."""
        return self._device

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool) -> ProfileRecord:
        """Load the package twice, call it, and ask for the plan; ``memory`` cannot be had this way.

        A package that Core ML does not load or run gives a record of its failure.

        Raises:
            MeasurementError: The connection to the device failed, which says nothing of the package.
        """
        del memory
        package = self._package_of(job)
        seen = asyncio.run(self._benchmark(package, job, plan))
        return ProfileRecord(
            subject=job.subject,
            level=job.level,
            architecture=job.architecture,
            block=job.block,
            scenario=plan.scenario,
            device=replace(self._device, compute_unit=ran_on(seen.operations, self._compute_units)),
            samples_ms=seen.samples_ms,
            warmup=plan.warmup if seen.samples_ms else 0,
            peak_memory_mb=None,
            memory_method=None,
            failure=seen.failure,
            load=LoadTimes(first_load_ms=seen.loads_ms[0], cached_load_ms=seen.loads_ms[-1]) if seen.loads_ms else None,
            plan=seen.operations,
            package=PackageInfo(file=package.name),
            conditions=RunConditions(requested_units=self._compute_units),
            tool="coremltools MLModelBenchmarker",
            taken_at=datetime.now(UTC).isoformat(),
            origin=self.origin,
            source=f"backend {self.name}",
        )

    async def _benchmark(self, package: Path, job: MeasurementJob, plan: MeasurementPlan) -> _Seen:
        from coremltools.models.ml_program.experimental.remote_device import _DeviceCtlError

        seen = _Seen()
        try:
            await self._fill(seen, package, job, plan)
        except _DeviceCtlError as error:
            raise MeasurementError(
                f"{job.level} {job.subject!r}: lost {self.name}: {error}",
                hint="what was measured so far is kept; connect the device and run again to go on",
            ) from error
        except (RuntimeError, ValueError) as error:  # Core ML's own words, through coremltools
            seen = _Seen(
                loads_ms=seen.loads_ms,
                failure=Failure(stage="predict" if seen.loads_ms else "load", message=str(error)),
            )
        return seen

    async def _fill(self, seen: _Seen, package: Path, job: MeasurementJob, plan: MeasurementPlan) -> None:
        import coremltools
        from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

        model = coremltools.models.MLModel(
            str(package),
            compute_units=coremltools.ComputeUnit[_COREML_UNITS[self._compute_units]],
            skip_model_load=True,
        )
        benchmarker = MLModelBenchmarker(model=model, device=self._target)
        seen.loads_ms = tuple((await benchmarker.benchmark_load(iterations=LOADS)).samples)
        inputs = seeded_inputs(model.get_spec(), seed=plan.seed)
        # One call says how many the wanted time holds; its own time is a cold one and is not kept.
        first = (await benchmarker.benchmark_predict(inputs=inputs, iterations=1)).samples[0]
        wanted = plan.network_seconds if job.level == "network" else plan.seconds
        counted = max(plan.min_repeats, min(plan.max_repeats, round(1e3 * wanted / max(first, 1e-6))))
        timed = await benchmarker.benchmark_predict(inputs=inputs, iterations=plan.warmup + counted)
        infos = await benchmarker.benchmark_operation_execution(inputs=inputs, iterations=1)
        seen.samples_ms, seen.operations = tuple(timed.samples), planned_operations(infos)


def seeded_inputs(specification: Any, *, seed: int) -> dict[str, Any]:
    """Return numbers for every input of a model: standard normal ones, and 0 to 9 for whole numbers."""
    import numpy as np
    from coremltools.proto import FeatureTypes_pb2

    generator = np.random.default_rng(seed)
    inputs: dict[str, Any] = {}
    for port in specification.description.input:
        array = port.type.multiArrayType
        if array.dataType == FeatureTypes_pb2.ArrayFeatureType.INT32:
            inputs[port.name] = generator.integers(0, 10, tuple(array.shape), dtype=np.int32)
        else:
            inputs[port.name] = generator.standard_normal(tuple(array.shape), dtype=np.float32)
    return inputs


def planned_operations(infos: list[Any]) -> tuple[PlannedOperation, ...]:
    """Return coremltools' ``OperationExecutionInfo`` as a plan; its times are shares of the whole call."""
    times = [info.measurement.samples[0] if info.measurement.samples else None for info in infos]
    total = sum(time for time in times if time is not None)
    found = []
    for info, time in zip(infos, times, strict=True):
        usage = info.compute_device_usage
        if usage is None:  # constants
            continue
        found.append(
            PlannedOperation(
                name=info.spec.outputs[0].name if info.spec.outputs else "",
                kind=info.spec.type,
                preferred=unit_of(usage.preferred_compute_device),
                supported=tuple(unit_of(device) for device in usage.supported_compute_devices),
                cost_share=None if time is None or total <= 0 else min(time / total, 1.0),
            )
        )
    return tuple(found)


def unit_of(device: Any) -> ComputeUnit:
    """Return our name of a device of coremltools: ``MLNeuralEngineComputeDevice`` and the like."""
    name = type(device).__name__.removeprefix("ML").removesuffix("Device").removesuffix("Compute")
    return compute_unit(name)
