"""One sample file a format, written from its description; units are checked, faulty rows named, the rest kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from latency_models.importers import ImportOptions, detect, read_file
from nas.core.errors import ConfigError, InputError
from nas.core.profile import Failure, LoadTimes

DATA = Path(__file__).parent / "data"
PHONE = ImportOptions(device="iphone15_pro", compute_units="cpu_and_ne")
NAMES = {
    "device_records.jsonl": "device-records",
    "coremltools_plan.json": "coremltools-plan",
    "coremltools_benchmark.json": "coremltools-benchmark",
    "Toy.mlcomputeplan.json": "whisperkit-plan",
    "coreml_profiler.json": "coreml-profiler",
    "coreml_profiler_structure.json": "coreml-profiler",
    "xcresult_metrics.json": "xcresult",
    "times.csv": "table",
    "records_version_1.jsonl": "profile-records",
}


@pytest.mark.parametrize(("file", "name"), NAMES.items())
def test_the_format_is_seen_by_the_file_itself(file: str, name: str) -> None:
    assert detect(DATA / file) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), *((text, "is of no known format") for text in ("hello", "a,b\n1,2\n", "[1, 2]", '{"a": 1}'))],
)
def test_a_file_of_no_format_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        detect(path)


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown format 'xcresults'; known are .*; did you mean 'xcresult'"):
        read_file(DATA / "times.csv", PHONE, format_name="xcresults")


def test_a_line_of_the_runner_becomes_one_record() -> None:
    record = read_file(DATA / "device_records.jsonl", ImportOptions()).records[0]
    assert record.subject == "conv1d(channels=48,frames=8,kernel=3)"
    assert (record.level, record.scenario) == ("block", "8x64x64 float16 cpu_and_ne")
    assert (record.device.name, record.device.product, record.device.os) == ("iphone15_pro", "iPhone16,1", "iOS 18.1")
    assert record.device.compute_unit == "neural_engine"
    assert record.steady_ms == (0.52, 0.5, 0.51)
    assert record.thermal_states == ("nominal", "fair")
    assert record.load == LoadTimes(compile_ms=1200.0, first_load_ms=350.0, cached_load_ms=12.0, first_call_ms=7.5)
    assert record.peak_memory_mb == pytest.approx(20 * 1.048576)
    assert record.memory is not None
    assert record.memory.system_rise_mb == pytest.approx(300 * 1.048576)
    assert [(op.name, op.preferred, op.cost_share, op.reason) for op in record.plan] == [
        ("y_1", "neural_engine", 0.75, ""),
        ("y_2", "cpu", 0.25, "fp32 is not supported"),
    ]
    assert record.package is not None
    assert (record.package.weight_bits, record.package.chunk, record.package.chunks) == (4.0, 1, 2)
    assert record.conditions is not None
    assert (record.conditions.requested_units, record.conditions.lowering) == ("cpu_and_ne", "einsum")
    assert record.outputs_check is not None
    assert record.outputs_check.psnr_db == 61.5


def test_failures_of_the_runner_are_records_and_a_job_without_an_end_is_one() -> None:
    result = read_file(DATA / "device_records.jsonl", ImportOptions(scenario="8x64x64 float16 cpu_and_ne"))
    assert result.problems == ()  # the unfinished last line is no fault
    failures = {item.line: item.record.failure for item in result.located if item.record.failure}
    assert failures[3] == Failure(stage="out_of_memory", message="memory pressure critical", limit_mb=3300.0)
    assert failures[5] == Failure(stage="timeout", message="no answer", limit_ms=60000.0)
    ended = failures[4]
    assert ended is not None
    assert (ended.stage, "the runner ended in this job" in ended.message) == ("predict", True)
    assert len(result.records) == 4
    out_of_memory = result.records[1]
    assert out_of_memory.architecture is not None
    assert out_of_memory.architecture["mid.width_ratio"] == 0.5
    assert out_of_memory.scenario == "8x64x64 float16 cpu_and_ne"


def runner_line(**changes: Any) -> dict[str, Any]:
    line: dict[str, Any] = json.loads((DATA / "device_records.jsonl").read_text().splitlines()[1])
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = line
        for parent in parents:
            target = target[parent]
        target[last] = value
    return line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency__unit": "s", "latency__samples": [0.0, 1.0], "latency__median": 1.0}, "above 0 ms, got 0.0"),
        ({"latency__samples": [2.0, -0.5, 0.5, 0.5], "latency__median": 0.5}, "above 0 ms, got -0.5"),
        ({"latency__unit": "fortnights"}, "unknown time unit 'fortnights'; known are ns, us"),
        ({"latency__median": 510.0}, "latency.median 510 is not the median of its samples, 0.51 ms"),
        ({"memory__unit": "M"}, "unknown memory unit 'M'"),
        ({"device__product": "iPhone16,9"}, "unknown device 'iPhone16,9'; nearest are"),
        ({"time": "yesterday"}, "time must be ISO 8601, got 'yesterday'"),
        ({"model__block_path": "conv1d("}, r"a block is written 'kind\(name=number,…\)', got 'conv1d\('"),
        ({"config__requested_units": "tpu"}, "unknown compute units 'tpu'"),
        ({"plan": [{"op_type": "conv", "preferred": "ANE", "cost": 75.0}]}, r"cost_share must lie in \[0, 1\]"),
        ({"schema": "nas/device_record/2"}, "schema: Input should be 'nas/device_record/1'"),
        ({"latecny": {}}, "latecny: Unexpected keyword"),
    ],
)
def test_a_faulty_line_of_the_runner_is_named_and_the_next_is_read(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join([json.dumps(runner_line(**changes)), "{broken", json.dumps(runner_line())]) + "\n")
    result = read_file(path, ImportOptions(), format_name="device-records")
    assert len(result.records) == 1
    assert [problem.line for problem in result.problems] == [1, 2]
    assert re.search(message, result.problems[0].message)


def test_a_coremltools_plan_gives_placement_and_no_times() -> None:
    (record,) = read_file(DATA / "coremltools_plan.json", PHONE).records
    assert record.samples_ms == ()
    assert record.origin == "predicted"
    assert record.subject == "coremltools_plan"
    assert [(op.name, op.preferred, op.cost_share) for op in record.plan] == [
        ("conv_0", "neural_engine", 0.6),
        ("softmax_1", "neural_engine", 0.3),
        ("gather_2", "cpu", 0.1),
        ("const_3", "cpu", None),
    ]
    assert record.plan[0].supported == ("cpu", "gpu", "neural_engine")
    assert record.device.compute_unit == "neural_engine"


def test_a_coremltools_plan_reads_as_coremltools_reads_it() -> None:
    remote = pytest.importorskip("coremltools.models.ml_program.experimental.remote_device")
    path = DATA / "coremltools_plan.json"
    theirs = remote.ComputePlan.from_dict(json.loads(path.read_text()))
    (ours,) = read_file(path, PHONE).records
    names = [key.components[-1].output_name for key in theirs.infos]
    kinds = {"CPUDevice": "cpu", "GPUDevice": "gpu", "NeuralEngineDevice": "neural_engine"}
    units = [kinds[type(info.device_usage.preferred).__name__] for info in theirs.infos.values()]
    costs = [info.estimated_cost for info in theirs.infos.values()]
    assert [(op.name, op.preferred, op.cost_share) for op in ours.plan] == list(zip(names, units, costs, strict=True))


def test_a_plan_is_of_what_the_user_says() -> None:
    text = "tiny/1 mid.kind=none"
    options = ImportOptions(device="iphone15_pro", subject=text)
    (record,) = read_file(DATA / "coremltools_plan.json", options).records
    assert record.architecture is not None
    assert record.architecture.text == text


def test_a_plan_without_a_device_asks_for_it() -> None:
    result = read_file(DATA / "coremltools_plan.json", ImportOptions())
    assert result.records == ()
    assert "give --device" in result.problems[0].message


def test_whisperkit_costs_are_per_cent() -> None:
    (record,) = read_file(DATA / "Toy.mlcomputeplan.json", PHONE).records
    assert record.subject == "Toy"
    assert [(op.kind, op.preferred, op.cost_share) for op in record.plan] == [
        ("ios17.conv", "neural_engine", 0.625),
        ("ios17.reduce_mean", "gpu", 0.375),
        ("ios17.gather", "cpu", None),
    ]


def test_whisperkit_costs_that_are_shares_are_another_unit(tmp_path: Path) -> None:
    path = tmp_path / "x.mlcomputeplan.json"
    path.write_text('{"0_ios17.conv_x": {"dispatch": "ANE", "supported": ["ANE"], "cost": 1.0}}')
    result = read_file(path, PHONE)
    assert result.records == ()
    assert "costs add up to 1; this format states per cent" in result.problems[0].message


def test_a_benchmark_of_coremltools_gives_calls_and_loads(tmp_path: Path) -> None:
    (record,) = read_file(DATA / "coremltools_benchmark.json", PHONE).records
    assert (record.subject, record.samples_ms) == ("coremltools_benchmark", (12.5, 12.0, 11.5))
    assert record.load == LoadTimes(first_load_ms=350.0, cached_load_ms=14.0)
    path = tmp_path / "calls.json"
    path.write_text('{"statistics": {"minimum": 1.0, "maximum": 2.0}, "samples": [1.0, 2.5]}')
    (problem,) = read_file(path, PHONE).problems
    assert "its samples lie in 1 to 2.5, its statistics say otherwise" in problem.message
    path.write_text('{"statistics": null, "samples": [1.0, 2.5]}')
    assert read_file(path, PHONE).records[0].samples_ms == (1.0, 2.5)
    (problem,) = read_file(path, ImportOptions()).problems
    assert "give --device" in problem.message


@pytest.mark.parametrize("file", ["coreml_profiler.json", "coreml_profiler_structure.json"])
def test_coreml_profiler_times_are_the_median_call_split_by_cost(file: str) -> None:
    (record,) = read_file(DATA / file, PHONE).records
    assert record.samples_ms == pytest.approx((2.0,))
    assert (record.statistic, record.num_runs, record.origin) == ("median", 10, "measured")
    assert [(op.kind, op.preferred, op.time_ms) for op in record.plan] == [
        ("ios17.conv", "neural_engine", 1.6),
        ("ios17.cast", "cpu", 0.4),
    ]
    assert record.plan[0].supported == ("neural_engine", "gpu", "cpu")
    assert record.plan[1].reason == "Unsupported type fp32"


def test_coreml_profiler_times_of_two_units_are_refused(tmp_path: Path) -> None:
    operations = json.loads((DATA / "coreml_profiler.json").read_text())
    operations[1]["op_time"] *= 1000.0
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(operations))
    result = read_file(path, PHONE)
    assert result.records == ()
    assert "give calls of 2 to 2000 ms: mixed units" in result.problems[0].message


def test_xctest_clock_is_seconds_and_memory_thousands_of_bytes() -> None:
    (record,) = read_file(DATA / "xcresult_metrics.json", ImportOptions(compute_units="all")).records
    assert record.subject == "testMiddleBlock"
    assert record.samples_ms == pytest.approx((12.5, 12.0, 12.1))
    assert record.warmup == 0
    assert (record.device.name, record.device.os, record.device.os_build) == ("iphone16_pro_max", "iOS 18.1", "22B83")
    assert record.memory is not None
    assert record.memory.footprint_peak_mb == pytest.approx(155.3)
    assert record.peak_memory_mb is None  # a peak alone is no rise


def test_an_xctest_metric_without_unit_is_named(tmp_path: Path) -> None:
    tests = json.loads((DATA / "xcresult_metrics.json").read_text())
    del tests[0]["testRuns"][0]["metrics"][0]["unitOfMeasurement"]
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(tests))
    result = read_file(path, ImportOptions())
    assert result.records == ()
    assert "states no unit" in result.problems[0].message


def test_a_table_gives_records_and_names_faulty_rows() -> None:
    result = read_file(DATA / "times.csv", ImportOptions())
    (record,) = result.records
    assert record.samples_ms == pytest.approx((0.51,))
    assert (record.statistic, record.num_runs) == ("median", 30)
    assert record.peak_memory_mb == 21.0
    assert (record.source, record.licence, record.device.os) == ("own stopwatch", "CC0", "iOS 18.1")
    assert {problem.line: problem.message for problem in result.problems} == {
        3: "median (µs) 0.7 has mixed units: the cell 'ms', the header 'µs'",
        4: "profile of 'conv1d(channels=96,frames=8,kernel=3)': samples must be finite and above 0 ms, got -0.003",
        5: "states no source",
        6: "unknown device 'iPhone 15 Prp Mex'; nearest are " + result.problems[3].message.partition("nearest are ")[2],
    }
    assert "iphone15_pro" in result.problems[3].message
    assert result.remarks == (f"{DATA / 'times.csv'}: columns that are not read: remark",)


@pytest.mark.parametrize(
    ("header", "cell", "options", "time_ms"),
    [
        ("latency_ms", "3", {}, 3.0),
        ("median_s", "0.003", {}, 3.0),
        ("latency [us]", "3,000", {}, 3.0),
        ("latency", "3 ms", {}, 3.0),
        ("latency", "3", {"unit": "ms"}, 3.0),
        ("unit,latency", "ns,3000000", {}, 3.0),
    ],
)
def test_a_unit_may_stand_in_header_cell_column_or_option(
    tmp_path: Path, header: str, cell: str, options: dict[str, str], time_ms: float
) -> None:
    path = tmp_path / "t.csv"
    quoted = cell if "unit" in header else f'"{cell}"'
    path.write_text(f"model,device,source,{header}\nnet,iphone15_pro,me,{quoted}\n")
    (record,) = read_file(path, ImportOptions(**options)).records  # type: ignore[arg-type]  # only text here
    assert record.samples_ms == pytest.approx((time_ms,))


def test_a_time_without_any_unit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("model,device,source,latency\nnet,iphone15_pro,me,3\n")
    result = read_file(path, ImportOptions())
    assert result.records == ()
    assert result.problems[0].message == (
        "latency 3 has no unit: name it in the header, in a column 'unit', or give --unit"
    )


def test_a_table_without_source_is_refused_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("model,device,latency\nnet,iphone15_pro,3 ms\n")
    with pytest.raises(InputError, match="line 1: the header lacks source"):
        read_file(path, ImportOptions())


def test_a_failed_compile_may_stand_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "architecture,device,source,latency_ms,error_stage,error_message\n"
        "tiny/1 mid.kind=none,iphone15_pro,me,,compile,rank 6\n"
        "tiny/1 mid.kind=none,iphone15_pro,me,,melted,\n"
    )
    result = read_file(path, ImportOptions())
    (record,) = result.records
    assert record.failure == Failure(stage="compile", message="rank 6")
    assert result.problems[0].line == 3


def test_the_profile_of_another_run_is_read_in_any_version() -> None:
    result = read_file(DATA / "records_version_1.jsonl", ImportOptions())
    assert [(item.line, item.record.level) for item in result.located] == [(1, "block"), (2, "network")]


def places(value: Any) -> list[tuple[Any, ...]]:
    """Paths of everything inside plain data."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in inside for path in ((key,), *((key, *rest) for rest in places(item)))]


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of plain data with one thing in it replaced."""
    copy = json.loads(json.dumps(document))
    target = copy
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return copy


@pytest.mark.parametrize("wrong", [None, "x", 3, [], {"a": 1}])
@pytest.mark.parametrize("file", [name for name in NAMES if name.endswith(".json")])
def test_no_wrong_value_anywhere_ends_in_anything_but_a_named_fault(tmp_path: Path, file: str, wrong: Any) -> None:
    document = json.loads((DATA / file).read_text())
    path = tmp_path / file
    for place in places(document):
        path.write_text(json.dumps(with_value(document, place, wrong)))
        result = read_file(path, PHONE, format_name=NAMES[file])  # does not raise
        assert all(problem.file == str(path) for problem in result.problems)


@pytest.mark.parametrize("wrong", [None, "x", 3, [], {"a": 1}])
def test_no_wrong_value_in_a_line_of_the_runner_touches_the_next(tmp_path: Path, wrong: Any) -> None:
    line, path = runner_line(), tmp_path / "lines.jsonl"
    for place in places(line):
        changed = json.dumps(with_value(line, place, wrong))
        path.write_text(f"{changed}\n{json.dumps({**line, 'time': '2026-11-20T21:00:00Z', 'job': 'next'})}\n")
        result = read_file(path, ImportOptions(), format_name="device-records")
        assert result.records[-1].taken_at == "2026-11-20T21:00:00Z"
