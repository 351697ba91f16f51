"""Which format a file is, by its beginning, and the reader of each."""

from __future__ import annotations

import csv
import io
import json
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from latency_models.importers.contract import read_bytes, unpacked
from nas.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from latency_models.importers.contract import ImportOptions, ImportResult

# format → (module:function, one line for people)
FORMATS: dict[str, tuple[str, str]] = {
    "device-records": ("device_records:read", "JSON Lines of the runner on the phone"),
    "profile-records": ("profile_records:read", "profile of another run (profile/records.jsonl)"),
    "coremltools-plan": ("coremltools_plan:read", "compute plan of coremltools (MLComputePlan)"),
    "coremltools-benchmark": ("coremltools_benchmark:read", "MLModelBenchmarker.Measurement of coremltools as JSON"),
    "whisperkit-plan": ("whisperkit_plan:read", "*.mlcomputeplan.json of whisperkittools"),
    "coreml-profiler": ("coreml_profiler:read", "per-operation JSON of CoreMLProfiler"),
    "xcresult": ("xcresult:read", "xcresulttool get test-results metrics"),
    "table": ("table:read", "CSV of architectures or blocks with a time, its unit and a source"),
    "apple-times": ("apple_tables:read_times", "published Core ML times (apple_coreml.csv)"),
    "device-memory": ("apple_tables:read_memory", "published memory on phones (device_memory.csv)"),
    "reference-figures": (
        "apple_tables:read_figures",
        "constants of chips (ane_micro.csv, ios_memory_observations.csv)",
    ),
    "published-latencies": ("published_latencies:read", "figures of papers (published_device_latencies.csv)"),
    "ncnn-zoo": ("third_party_benchmarks:read_ncnn", "ncnn benchmark runs (ncnn_zoo.csv.gz)"),
    "mlx-operators": ("third_party_benchmarks:read_mlx", "MLX operators (mlx_ops.parquet)"),
    "hat": ("third_party_benchmarks:read_hat", "HAT encoder and decoder times (hat_latency.parquet)"),
    "conversion-timings": ("coreml_public:read_conversions", "load times of SD 1.5 packages"),
    "backend-estimates": ("coreml_public:read_backend_estimates", "planner's estimates per operation and back end"),
    "chunk-times": ("coreml_public:read_chunks", "times per chunk of Core ML language models"),
    "rooflines": ("coreml_public:read_rooflines", "community rooflines (ane_rooflines_excerpt.csv)"),
    "engine-guide": ("coreml_public:read_guide", "a table of the Neural Engine guide"),
}

_LINES_READ = 50  # the first lines may be damaged

# Columns that only one format has together; the first that fits is taken.
_HEADERS: tuple[tuple[str, frozenset[str]], ...] = (
    ("ncnn-zoo", frozenset({"powersave", "gpu_device", "avg_ms"})),
    ("published-latencies", frozenset({"component", "confidence", "latency_ms"})),
    ("apple-times", frozenset({"model", "chip", "unit", "latency_ms", "licence"})),
    ("device-memory", frozenset({"backend", "unit", "value", "section", "model"})),
    ("reference-figures", frozenset({"quantity", "value", "unit", "source"})),
    ("rooflines", frozenset({"peak_fp16_gemm_tflops", "bandwidth_gbps"})),
    ("conversion-timings", frozenset({"first_load_compile_s", "convert_s"})),
    ("backend-estimates", frozenset({"selected_backend", "op_location"})),
    ("chunk-times", frozenset({"c1", "c2"})),
    ("chunk-times", frozenset({"c1 ms", "c2 ms"})),
    ("chunk-times", frozenset({"Component", "ms"})),
)


def read_file(path: Path, options: ImportOptions, *, format_name: str = "auto") -> ImportResult:
    """Read a file in a known format.

    Raises:
        ConfigError: The format's name is unknown.
        InputError: The file is missing or damaged as a whole, or its format is not recognised.
        UnavailableError: The format needs a library that is not installed.
    """
    name = detect(path) if format_name == "auto" else format_name
    if name not in FORMATS:
        near = get_close_matches(name, FORMATS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown format {name!r}; known are {', '.join(FORMATS)}{hint}")
    module, function = FORMATS[name][0].split(":")
    result: ImportResult = getattr(import_module(f"latency_models.importers.{module}"), function)(path, options)
    return result


def detect(path: Path) -> str:
    """Return the format of a file.

    Raises:
        InputError: The file is missing, or of no format that is known.
    """
    data = read_bytes(path)
    if not data.strip():
        raise InputError(f"{path}: is empty")
    found = _detect_parquet(path) if data[:4] == b"PAR1" else _detect_text(path, data)
    if found is None:
        hint = f"give --format with one of {', '.join(FORMATS)}; figures of Xcode's performance report go into a table"
        raise InputError(f"{path}: is of no known format", hint=hint)
    return found


def _detect_parquet(path: Path) -> str | None:
    return next((name for part, name in (("mlx", "mlx-operators"), ("hat", "hat")) if part in path.name), None)


def _detect_text(path: Path, data: bytes) -> str | None:
    if data[:2] == b"\x1f\x8b":
        data = unpacked(path, data)
    text = data.decode("utf-8-sig", errors="replace")
    first = text.lstrip()[:1]
    if first in ("{", "["):
        return _detect_json(text)
    header = {name.strip() for name in next(csv.reader(io.StringIO(text)), [])}
    found = next((name for name, columns in _HEADERS if columns <= header), None)
    if found is None and path.suffix == ".csv" and header & {"architecture", "block", "model"}:
        return "table"
    return found or ("engine-guide" if path.parent.name == "ane_guide" else None)


def _detect_json(text: str) -> str | None:
    found = [line_format for line in text.split("\n")[:_LINES_READ] if (line_format := _line_format(_parsed(line)))]
    if found:
        return found[0]
    document = _parsed(text)
    if isinstance(document, list) and document and isinstance(document[0], dict):
        keys = set(document[0])
        return "xcresult" if "testRuns" in keys else "coreml-profiler" if "operatorName" in keys else None
    if not isinstance(document, dict):
        return None
    if "infos" in document:
        return "coremltools-plan"
    if {"statistics", "samples"} <= set(document) or "samples" in (document.get("predict") or ()):
        return "coremltools-benchmark"
    values = [value for value in document.values() if isinstance(value, dict)]
    if any("dispatch" in value for value in values):
        return "whisperkit-plan"
    return "coreml-profiler" if any("block" in value for value in values) else None


def _line_format(line: Any) -> str | None:
    """Return the format of a file of one record a line, by one of its lines."""
    if not isinstance(line, dict):
        return None
    schema = str(line.get("schema", ""))
    if schema.startswith("nas/device_record/"):
        return "device-records"
    first_version = {"subject", "samples_ms", "device"} <= set(line)
    return "profile-records" if schema.startswith("nas/profile_record/") or first_version else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
