"""``xcrun xcresulttool get test-results metrics``: clock and memory of XCTest performance tests.

The subject is the test's name, or the option ``subject`` for a file of one test. Clock metrics are
``com.apple.dt.XCTMetric_Clock.time.monotonic`` in seconds; memory metrics ``com.apple.dt.XCTMetric_Memory`` in kB of
1,000 bytes: ``physical`` is what the measured block left behind, ``physical_peak`` the footprint's peak. XCTest drops
its first iteration itself, so no sample is warm-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latency_models.importers.contract import ImportOptions, ImportResult, Rows, read_document
from latency_models.importers.naming import device_name, ran_on, subject
from nas.core.profile import DeviceInfo, MemoryReadings, ProfileRecord, RunConditions
from nas.core.units import megabytes, milliseconds

if TYPE_CHECKING:
    from pathlib import Path

_CLOCK = "com.apple.dt.XCTMetric_Clock.time.monotonic"
_MEMORY = "com.apple.dt.XCTMetric_Memory"


def read(path: Path, options: ImportOptions) -> ImportResult:
    """Read every test run that has a clock or a memory metric.

    Raises:
        InputError: The file is missing or not JSON.
    """
    data, rows = read_document(path), Rows(str(path))
    with rows.row(None):
        if not isinstance(data, list):
            raise TypeError("is no list of tests")
        runs = [(str(test["testIdentifier"]), run) for test in data for run in test.get("testRuns", ())]
        if options.subject and len({test for test, _ in runs}) > 1:
            raise ValueError("holds several tests, which cannot all be of one subject")
        for test, run in runs:
            with rows.row(None):
                rows.keep(_record(test, run, options), None)
    return rows.result()


def _record(test: str, run: Any, options: ImportOptions) -> ProfileRecord:
    metrics = {str(metric["identifier"]): metric for metric in run.get("metrics", ())}
    try:
        samples = _values(metrics.get(_CLOCK), milliseconds)
        peaks = _values(_memory_metric(metrics), megabytes)
    except ValueError as error:
        raise ValueError(f"test {test!r}: {error}") from error
    if not samples and not peaks:
        raise ValueError(f"test {test!r} has neither a clock nor a peak memory metric")
    device = run.get("device") or {}
    name = options.device or device.get("modelName") or device.get("deviceName") or ""
    return ProfileRecord(
        **subject(options.subject or test.rsplit("/", maxsplit=1)[-1].removesuffix("()")),
        scenario=options.scenario,
        device=DeviceInfo(
            name=device_name(name),
            chip="",
            compute_unit=ran_on((), options.compute_units),
            threads=1,
            memory_mb=None,
            os_build=str(device.get("osBuildNumber", "")),
            software="XCTest",
            os=" ".join(str(device[key]) for key in ("platform", "osVersion") if device.get(key)),
        ),
        samples_ms=samples,
        warmup=0,
        peak_memory_mb=None,
        memory_method="XCTMemoryMetric physical_peak" if peaks else None,
        memory=MemoryReadings(footprint_peak_mb=max(peaks)) if peaks else None,
        conditions=RunConditions(requested_units=options.compute_units),
        tool="xcresulttool",
        taken_at="",
        origin="measured",
        source=f"XCTest {test}",
    )


def _memory_metric(metrics: dict[str, Any]) -> Any:
    """Return the peak metric; the measured app may be in its name: ``XCTMetric_Memory-org.app.physical_peak``."""
    return next(
        (metric for name, metric in metrics.items() if name.startswith(_MEMORY) and name.endswith("physical_peak")),
        None,
    )


def _values(metric: Any, convert: Any) -> tuple[float, ...]:
    if metric is None:
        return ()
    unit = metric.get("unitOfMeasurement")
    if not unit:
        raise ValueError(f"metric {metric['identifier']!r} states no unit")
    return tuple(convert(float(value), unit) for value in metric.get("measurements", ()))
