"""``MLModelBenchmarker.Measurement`` of coremltools as JSON: times of loading and of calls, in milliseconds.

coremltools has no file for them; ``dataclasses.asdict(measurement)`` is what is read: ``{"statistics": …, "samples":
[…]}`` alone for calls, or under ``predict`` and ``load``. With ``warmup=True`` it leaves out one call itself; a file
says nothing of it, so no sample is taken as warm-up here. Network and device come from the options.

Source:
    ``coremltools.models.ml_program.experimental.perf_utils`` 9.0 (BSD-3-Clause).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latency_models.importers.contract import ImportOptions, ImportResult, Rows, read_document
from latency_models.importers.naming import device_name, ran_on, subject, third_party
from nas.core.profile import LoadTimes, ProfileRecord, RunConditions

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, options: ImportOptions) -> ImportResult:
    """Read one package's measurements.

    Raises:
        InputError: The file is missing or not JSON.
    """
    data, rows = read_document(path), Rows(str(path))
    with rows.row(None):
        if not isinstance(data, dict):
            raise TypeError("is no measurement")
        parts = {"predict": data} if "samples" in data else data
        unknown = sorted(set(parts) - {"predict", "load"})
        if unknown:
            raise ValueError(f"has {unknown[0]!r}, known are 'predict' and 'load'")
        rows.keep(_record(path, _samples(parts, "predict"), _samples(parts, "load"), options), None)
    return rows.result()


def _samples(parts: dict[str, Any], name: str) -> tuple[float, ...]:
    if name not in parts:
        return ()
    samples = tuple(float(value) for value in parts[name]["samples"])
    statistics = parts[name].get("statistics") or {}
    least, most = statistics.get("minimum"), statistics.get("maximum")
    if samples and (least, most) != (None, None) and (least, most) != (min(samples), max(samples)):
        raise ValueError(
            f"{name}: its samples lie in {min(samples):g} to {max(samples):g}, its statistics say otherwise"
        )
    return samples


def _record(path: Path, calls: tuple[float, ...], loads: tuple[float, ...], options: ImportOptions) -> ProfileRecord:
    if not calls:
        raise ValueError("has no samples of 'predict'")
    if options.device is None:
        raise ValueError("a benchmark of coremltools does not say on which device it ran: give --device")
    unit = ran_on((), options.compute_units)
    return ProfileRecord(
        **subject(options.subject or path.name.split(".")[0]),
        scenario=options.scenario,
        device=third_party(device_name(options.device), unit=unit, software="Core ML"),
        samples_ms=calls,
        warmup=0,
        peak_memory_mb=None,
        memory_method=None,
        load=LoadTimes(first_load_ms=loads[0], cached_load_ms=min(loads[1:], default=None)) if loads else None,
        conditions=RunConditions(requested_units=options.compute_units),
        tool="coremltools MLModelBenchmarker",
        taken_at="",
        origin="measured",
        source=f"MLModelBenchmarker {path.name}",
    )
