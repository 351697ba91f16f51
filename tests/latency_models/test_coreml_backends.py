"""Measuring through coremltools on a Mac or an attached phone, with the library's classes replaced at its boundary."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock, MagicMock, create_autospec

import numpy as np
import pytest
from coremltools import ComputeUnit
from coremltools.models import MLModel
from coremltools.models.compute_device import MLCPUComputeDevice, MLNeuralEngineComputeDevice
from coremltools.models.compute_plan import MLComputePlanDeviceUsage
from coremltools.models.ml_program.experimental import perf_utils, remote_device
from coremltools.proto import MIL_pb2, Model_pb2

from latency_models import MeasurementPlan, device, measure_all
from latency_models.backends import coreml, coreml_device, coreml_host
from latency_models.jobs import MeasurementJob
from nas.core.errors import MeasurementError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models.backends.coreml import CoreMLBackend

BENCHMARKER = perf_utils.MLModelBenchmarker
PLAN = MeasurementPlan(scenario="8x64x64 float16 cpu_and_ne", passes=1, warmup=2, min_repeats=6, seconds=0.04)
JOB = MeasurementJob(subject="block", level="block", make=MagicMock(side_effect=AssertionError("nothing is built")))
SYSTEM = {
    "machdep.cpu.brand_string": "Apple M3",
    "hw.memsize": "17179869184",
    "kern.osversion": "24B83",
    "hw.model": "Mac15,3",
}


def measurement(samples: list[float]) -> Any:
    return BENCHMARKER.Measurement(statistics=None, samples=samples)


def operation(kind: str, unit: type | None, time_ms: float | None) -> Any:
    used = None if unit is None else MLComputePlanDeviceUsage(unit.__new__(unit), [unit.__new__(unit)])
    return BENCHMARKER.OperationExecutionInfo(
        spec=MIL_pb2.Operation(type=kind, outputs=[MIL_pb2.NamedValueType(name=f"{kind}_0")]),
        path=cast("Any", None),
        compute_device_usage=used,
        measurement=measurement([] if time_ms is None else [time_ms]),
    )


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    def sysctl(command: list[str], **_options: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, stdout=SYSTEM[command[-1]] + "\n")

    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(coreml_host.subprocess, "run", sysctl)


@pytest.fixture
def benchmarker(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """The class ``MLModelBenchmarker``, its signatures kept: calls of 2 ms, the operations on two units."""
    spec = Model_pb2.Model()
    port = spec.description.input.add(name="video")
    port.type.multiArrayType.shape.extend([1, 8])
    port.type.multiArrayType.dataType = 65552  # FLOAT16
    model = create_autospec(MLModel)
    model.return_value.get_spec.return_value = spec
    monkeypatch.setattr("coremltools.models.MLModel", model)
    fake = create_autospec(BENCHMARKER)
    made = fake.return_value
    made.benchmark_load.return_value = measurement([350.0, 12.0])
    made.benchmark_predict.side_effect = lambda iterations, **_: measurement([2.0] * iterations)
    made.benchmark_operation_execution.return_value = [
        operation("ios18.conv", MLNeuralEngineComputeDevice, 1.5),
        operation("ios18.cast", MLCPUComputeDevice, 0.5),
        operation("const", None, None),
    ]
    fake.model = model
    monkeypatch.setattr(perf_utils, "MLModelBenchmarker", fake)
    return cast("MagicMock", fake)


def this_mac() -> CoreMLBackend:
    return coreml_host.connect(
        device("mac_m3"), lambda job: Path(f"{job.subject}.mlpackage"), compute_units="cpu_and_ne"
    )


@pytest.mark.parametrize(
    ("connect", "missing"),
    [
        (lambda: this_mac(), r"'coreml_host' cannot measure here: it needs macOS \(this is Linux\)"),
        (
            lambda: this_phone(),
            r"'coreml_device' cannot measure here: it needs macOS \(this is Linux\), xcrun \(install",
        ),
    ],
)
def test_linux_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, connect: Callable[[], Any], missing: str) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(UnavailableError, match=missing) as caught:
        connect()
    assert caught.value.exit_code == 6


@pytest.mark.usefixtures("mac")
def test_a_package_is_loaded_called_and_its_plan_read(benchmarker: MagicMock, tmp_path: Path) -> None:
    profiles = measure_all(this_mac(), [JOB], PLAN, tmp_path / "records.jsonl")
    (record,) = profiles.records
    assert record.load is not None
    assert (record.load.first_load_ms, record.load.cached_load_ms) == (350.0, 12.0)
    assert (len(record.samples_ms), record.warmup) == (2 + 20, 2)  # 40 ms of calls of 2 ms
    assert [(one.name, one.preferred, one.cost_share) for one in record.plan] == [
        ("ios18.conv_0", "neural_engine", 0.75),
        ("ios18.cast_0", "cpu", 0.25),
    ]
    assert (record.device.compute_unit, record.device.os_build, record.origin) == ("neural_engine", "24B83", "measured")
    assert benchmarker.model.call_args.kwargs["compute_units"] is ComputeUnit.CPU_AND_NE
    assert benchmarker.model.call_args.args == ("block.mlpackage",)
    inputs = [call.kwargs["inputs"]["video"] for call in benchmarker.return_value.benchmark_predict.call_args_list]
    assert inputs[0].shape == (1, 8)
    assert all(np.array_equal(one, inputs[0]) for one in inputs)


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize(("method", "stage"), [("benchmark_load", "load"), ("benchmark_predict", "predict")])
def test_a_package_that_does_not_run_is_a_record(
    benchmarker: MagicMock, method: str, stage: str, tmp_path: Path
) -> None:
    getattr(benchmarker.return_value, method).side_effect = RuntimeError("rank 6 is not supported")
    (record,) = measure_all(this_mac(), [JOB], PLAN, tmp_path / "records.jsonl").records
    assert record.failure is not None
    assert (record.failure.stage, record.failure.message) == (stage, "rank 6 is not supported")


@pytest.mark.usefixtures("mac")
def test_a_mac_with_another_chip_is_not_measured() -> None:
    with pytest.raises(UnavailableError, match="this Mac has a chip 'M3', 'mac_m1' has 'M1'"):
        coreml_host.connect(device("mac_m1"), MagicMock(), compute_units="all")


def phone(udid: str, name: str = "iPhone") -> Any:
    return remote_device.Device(
        name=name,
        type=remote_device.DeviceType.IPHONE,
        identifier=f"id-{udid}",
        udid=udid,
        os_version="18.1",
        os_build_number="22B83",
        developer_mode_state="enabled",
        state=remote_device.DeviceState.CONNECTED,
        session=None,
    )


def this_phone(**options: Any) -> CoreMLBackend:
    return coreml_device.connect(
        device("iphone16_pro"), lambda job: Path(f"{job.subject}.mlpackage"), compute_units="cpu_and_ne", **options
    )


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch, mac: None) -> list[Any]:
    """Devices as ``xcrun devicectl`` lists them; each is ready as soon as it is asked."""
    del mac
    found = [phone("A"), phone("B", "test phone")]
    monkeypatch.setattr(remote_device._DeviceCtl, "get_devices", lambda: found)
    ready = create_autospec(remote_device.Device.prepare_for_model_debugging)
    ready.side_effect = lambda self, **_: self
    monkeypatch.setattr(remote_device.Device, "prepare_for_model_debugging", ready)
    return found


def test_the_named_phone_is_prepared_with_the_team(benchmarker: MagicMock, attached: list[Any], tmp_path: Path) -> None:
    backend = this_phone(udid="B", team="TEAM")
    call = cast("AsyncMock", remote_device.Device.prepare_for_model_debugging).call_args
    assert call.args[0] is attached[1]
    assert call.kwargs["credentials"].development_team == "TEAM"
    (record,) = measure_all(backend, [JOB], PLAN, tmp_path / "records.jsonl").records
    assert benchmarker.call_args.kwargs["device"] is attached[1]
    assert (record.device.name, record.device.os_build, record.device.os) == ("iphone16_pro", "22B83", "iOS 18.1")


@pytest.mark.parametrize(
    ("keep", "udid", "message"),
    [
        (2, "auto", r"several devices are connected; connected are: iPhone \(A\), test phone \(B\)"),
        (0, "auto", "no device is connected; connected are: none"),
        (1, "C", r"device 'C' is not connected; connected are: iPhone \(A\)"),
    ],
)
def test_a_phone_that_cannot_be_chosen_is_named(attached: list[Any], keep: int, udid: str, message: str) -> None:
    del attached[keep:]
    with pytest.raises(UnavailableError, match=message):
        this_phone(udid=udid)


def test_an_app_that_cannot_be_built_says_why(attached: list[Any]) -> None:
    ready = cast("AsyncMock", remote_device.Device.prepare_for_model_debugging)
    ready.side_effect = remote_device._AppBuilder.Error("requires a development team")
    with pytest.raises(UnavailableError, match=r"cannot be started on 'iPhone': .*requires a development team"):
        this_phone(udid=attached[0].udid)


@pytest.mark.usefixtures("attached")
def test_a_lost_phone_is_no_property_of_the_package(benchmarker: MagicMock, tmp_path: Path) -> None:
    benchmarker.return_value.benchmark_load.side_effect = remote_device._DeviceCtlError("device disconnected")
    with pytest.raises(MeasurementError, match=r"'block': lost coreml-device: .*device disconnected"):
        measure_all(this_phone(udid="A"), [JOB], PLAN, tmp_path / "records.jsonl")
    assert not (tmp_path / "records.jsonl").exists()


def test_every_setting_is_one_of_core_ml() -> None:
    assert set(coreml._COREML_UNITS.values()) == {unit.name for unit in ComputeUnit}
