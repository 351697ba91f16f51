"""Measurements of a phone find their way into a run: job list, import, calibration, search."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from latency_models import scan_profile
from nas.cli.main import main
from nas.core.architecture import Architecture
from nas.core.scenario import Scenario
from nas.runs.directory import RunDirectory
from nas.runs.front import read_front
from search_spaces import get
from tests.pipeline.phone_runner import phone_for, run_jobs

if TYPE_CHECKING:
    from pathlib import Path

PHONE_RUN = """\
run: {name: phone, seed: 2, directory: RUNS}
space: {name: tiny, version: 1}
scenario: {frames: 8, height: 64, width: 64, denoising_steps: 4, precision: float16, compute_units: cpu_and_ne}
device: {name: iphone16_pro_max}
budget: {latency_share: 0.5}
profile: {networks: 12}
calibrate: {folds: 2}
search: {engine: {type: random}, evaluations: 12, batch: 6}
quality: {type: temporal_capacity}
"""


def nas(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def imported(*arguments: str) -> dict[str, Any]:
    result = nas("profile", *arguments, "--json")
    assert result.exit_code == 0, result.output
    reports = json.loads(result.stdout)["imports"]
    assert len(reports) == 1
    report: dict[str, Any] = reports[0]
    return report


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    return write_run(tmp_path)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("jobs")
    assert nas("profile", write_run(folder), "--jobs", str(folder / "jobs.json")).exit_code == 0
    data: dict[str, Any] = json.loads((folder / "jobs.json").read_text())
    return data


@pytest.fixture(scope="module")
def phone_lines(jobs: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in run_jobs(jobs, phone_for(jobs)))


@pytest.fixture
def lines(phone_lines: str, tmp_path: Path) -> list[dict[str, Any]]:
    (tmp_path / "phone.jsonl").write_text(phone_lines)
    return [json.loads(line) for line in phone_lines.splitlines()]


def write_run(folder: Path) -> str:
    path = folder / "run.yaml"
    path.write_text(PHONE_RUN.replace("RUNS", str(folder / "runs")))
    return str(path)


def records_of(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs").iterdir()
    return folder / "profile" / "records.jsonl"


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_phone_is_searched_with_what_was_measured_on_it(
    run_file: str, jobs: dict[str, Any], lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    report = imported(run_file, "--import", str(tmp_path / "phone.jsonl"))
    assert report["kept"] == {"block": len(lines) - 12, "network": 12}
    assert report["dropped"] == []
    assert nas("calibrate", run_file).exit_code == 0
    result = nas("search", run_file)
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs").iterdir()
    front = read_front(folder / "search" / "front.json")
    phone = phone_for(jobs)
    space, scenario = get("tiny/1"), Scenario(**jobs["conditions"])
    for member in front.members:
        cost = member.cost
        assert cost.device == "iphone16_pro_max"
        assert cost.origin == "simulated"
        whole = type(phone)(
            phone.spec,
            {member.architecture.digest: space.workload(member.architecture, scenario)},
            phone.behaviour,
            compute_units="cpu_and_ne",
        )
        assert cost.latency_ms == pytest.approx(4 * whole.true_ms(member.architecture.digest), rel=0.08)


def test_a_phone_of_which_only_whole_networks_are_known_is_searched(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text((tmp_path / "run.yaml").read_text() + "report: {}\n")
    report = imported(run_file, "--import", write(tmp_path / "networks.jsonl", lines[-12:]))
    assert report["kept"] == {"network": 12}
    result = nas("calibrate", run_file)
    assert result.exit_code == 0, result.output
    assert "no block was measured alone" in result.output
    assert nas("search", run_file).exit_code == 0
    assert nas("report", run_file).exit_code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    members = read_front(folder / "search" / "front.json").members
    assert members
    assert not any(member.cost.in_domain for member in members)
    assert "No block was measured alone" in (folder / "report" / "index.html").read_text()


def test_imported_records_carry_both_memory_numbers_and_the_architecture(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    imported(run_file, "--import", str(tmp_path / "phone.jsonl"))
    network = scan_profile(records_of(tmp_path)).profiles.of_level("network")[0]
    assert network.architecture is not None
    assert network.architecture.text == lines[-12]["model"]["arch_id"]
    assert network.memory is not None
    assert network.memory.system_rise_mb == pytest.approx(200.0)
    assert network.peak_memory_mb == pytest.approx(network.memory.footprint_rise_mb)
    assert network.steady_ms[0] == pytest.approx(lines[-12]["latency"]["samples"][2] / 1000.0)


def test_a_record_is_imported_once(run_file: str, lines: list[dict[str, Any]], tmp_path: Path) -> None:
    file = str(tmp_path / "phone.jsonl")
    first = imported(run_file, "--import", file)
    again = imported(run_file, "--import", file)
    assert (again["already"], again["kept"], again["written"]) == (len(lines), {}, False)
    assert len(scan_profile(records_of(tmp_path)).located) == sum(first["kept"].values())


def test_a_second_file_makes_the_calibration_stale(run_file: str, lines: list[dict[str, Any]], tmp_path: Path) -> None:
    half = len(lines) - 2
    imported(run_file, "--import", write(tmp_path / "a.jsonl", lines[:half]))
    assert nas("calibrate", run_file).exit_code == 0
    imported(run_file, "--import", write(tmp_path / "b.jsonl", lines[half:]))
    result = nas("calibrate", run_file)
    assert result.exit_code == 3
    assert "stage 'calibrate' is stale" in result.stderr
    assert nas("calibrate", run_file, "--force").exit_code == 0


def test_faulty_lines_are_named_and_the_rest_is_imported(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    faulty = [json.loads(json.dumps(line)) for line in lines]
    faulty[1]["latency"]["samples"][3] = -5.0
    faulty[2]["device"]["product"] = "iPhone99,9"
    faulty[3]["device"]["product"] = "iPhone16,1"
    faulty[4]["latency"]["unit"] = "ms"  # they are microseconds
    faulty[5] = faulty[6]
    faulty[-1]["model"]["arch_id"] = faulty[-1]["model"]["arch_id"].replace("tiny/1", "tiny/0")
    faulty[-2]["scenario"] = "16x64x64 float16 cpu_and_ne"
    report = imported(run_file, "--import", write(tmp_path / "faulty.jsonl", faulty))
    found = {problem["line"]: problem["message"] for problem in report["dropped"]}
    expected = {
        2: "samples must be finite and above 0 ms, got -0.005",
        3: "unknown device 'iPhone99,9'",
        4: "was measured for device 'iphone15_pro', this run is for 'iphone16_pro_max'",
        5: "unlike the rest: mixed units",
        7: "repeats line 6",
        len(lines): "is of space 'tiny/0', this run searches 'tiny/1'",
        len(lines) - 1: "this run is for '8x64x64 float16 cpu_and_ne'",
    }
    assert set(found) == set(expected)
    assert all(text in found[line] for line, text in expected.items())
    assert sum(report["kept"].values()) == len(lines) - len(expected)


def test_a_small_block_that_takes_little_but_its_call_is_no_fault(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    smallest = min(lines, key=lambda line: min(line["latency"]["samples"]))
    smallest["latency"] = {**smallest["latency"], "unit": "ms", "samples": [2.0] * len(smallest["latency"]["samples"])}
    report = imported(run_file, "--import", write(tmp_path / "one.jsonl", [smallest]))
    assert report["kept"] == {"block": 1}


def test_a_file_in_seconds_that_says_ms_is_refused_whole(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    for line in lines:
        line["latency"] = {**line["latency"], "unit": "ms"}
    result = nas("profile", run_file, "--import", write(tmp_path / "wrong.jsonl", lines))
    assert result.exit_code == 3
    assert "so are all times of this file: another unit than stated" in result.stderr
    assert "nothing was imported" in result.stderr


def test_a_failed_compile_is_a_record_too(run_file: str, lines: list[dict[str, Any]], tmp_path: Path) -> None:
    failed = {key: value for key, value in lines[0].items() if key not in ("latency", "memory", "load")}
    failed["error"] = {"stage": "compile", "message": "rank 6 is not supported"}
    failed["time"] = "2026-11-20T23:00:00Z"
    report = imported(run_file, "--import", write(tmp_path / "failed.jsonl", [failed, *lines[1:3]]))
    assert report["kept"] == {"block": 2, "failed": 1}
    (record,) = scan_profile(records_of(tmp_path)).profiles.failures("block")
    assert record.failure is not None
    assert record.failure.message == "rank 6 is not supported"


def test_a_dry_run_says_what_it_would_import_and_writes_nothing(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    result = nas("profile", run_file, "--import", str(tmp_path / "phone.jsonl"), "--dry-run")
    assert result.exit_code == 0
    assert f"would import {len(lines)} records" in result.stdout
    assert not (tmp_path / "runs").exists()


def test_unknown_thermal_states_and_impossible_peaks_are_named(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    faulty = [json.loads(json.dumps(line)) for line in lines]
    faulty[1]["device"]["thermal_end"] = "Serious"
    faulty[2]["memory"]["footprint_peak"] = 5e6  # in another unit than the 400 MB before it
    faulty[3]["origin"] = "guessed"
    report = imported(run_file, "--import", write(tmp_path / "faulty.jsonl", faulty))
    found = {problem["line"]: problem["message"] for problem in report["dropped"]}
    assert set(found) == {2, 3, 4}
    assert "thermal state must be one of nominal, fair, serious, critical, got 'Serious'" in found[2]
    assert "has a peak of 5 MB below the 400 MB before it: check the unit" in found[3]
    assert "origin: Input should be 'measured' or 'simulated', got 'guessed'" in found[4]


def test_writing_jobs_answers_in_json(run_file: str, jobs: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    planned = json.loads(nas("profile", run_file, "--jobs", str(file), "--dry-run", "--json").stdout)
    assert not file.exists()
    written = json.loads(nas("profile", run_file, "--jobs", str(file), "--json").stdout)
    assert planned == {"jobs": {"file": str(file), "written": False, "count": len(jobs["jobs"])}}
    assert written == {"jobs": {**planned["jobs"], "written": True}}
    assert json.loads(file.read_text()) == jobs


def test_an_empty_file_is_called_empty(run_file: str, tmp_path: Path) -> None:
    result = nas("profile", run_file, "--import", write(tmp_path / "empty.jsonl", []))
    assert result.exit_code == 3
    assert "empty.jsonl: is empty" in result.stderr


@pytest.mark.parametrize("options", [["--unit", "ms"], ["--format", "table", "--jobs", "jobs.json"]])
def test_options_of_imports_need_a_file(run_file: str, options: list[str]) -> None:
    result = nas("profile", run_file, *options)
    assert result.exit_code == 2
    assert "need --import FILE" in result.stderr


def test_a_plan_becomes_jobs_for_the_phone(
    run_file: str, jobs: dict[str, Any], lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    imported(run_file, "--import", write(tmp_path / "some.jsonl", lines[3:]))
    result = nas("profile", run_file, "--plan", "4", "--jobs", str(tmp_path / "next.json"), "--json")
    assert result.exit_code == 0, result.output
    planned = json.loads((tmp_path / "next.json").read_text())
    subjects = [job.get("block_path") or Architecture.from_text(job["arch_id"]).digest for job in planned["jobs"]]
    assert subjects == [step["subject"] for step in json.loads(result.stdout)["steps"]]
    assert {**planned, "jobs": ()} == {**jobs, "jobs": ()}
    again = run_jobs(planned, phone_for(planned))
    for line in again:
        line["time"] = line["time"].replace("-20T", "-21T")
    report = imported(run_file, "--import", write(tmp_path / "next.jsonl", again))
    assert (sum(report["kept"].values()), report["dropped"]) == (4, [])


def test_measuring_a_plan_on_a_phone_leaves_its_profile_done(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    imported(run_file, "--import", write(tmp_path / "phone.jsonl", lines))
    result = nas("profile", run_file, "--plan", "1", "--measure")
    assert result.exit_code == 6
    assert "device 'iphone16_pro_max' cannot be measured from here" in result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert RunDirectory.open(folder).state("profile") == "done"


def test_too_few_networks_for_the_coverage_say_how_many_are_needed(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    imported(run_file, "--import", write(tmp_path / "few.jsonl", lines[: len(lines) - 8]))
    result = nas("calibrate", run_file)
    assert result.exit_code == 3
    assert "needs at least 9 measured networks, got 4" in result.stderr


def test_a_forced_profile_keeps_what_was_imported(run_file: str, lines: list[dict[str, Any]], tmp_path: Path) -> None:
    imported(run_file, "--import", str(tmp_path / "phone.jsonl"))
    result = nas("profile", run_file, "--force")
    assert result.exit_code == 0
    assert "its records of 'iphone16_pro_max' were imported" in result.stderr
    assert len(scan_profile(records_of(tmp_path)).located) == len(lines)


def test_a_phone_without_measurements_says_how_to_bring_them(run_file: str) -> None:
    result = nas("profile", run_file)
    assert result.exit_code == 6
    assert "--import FILE" in result.stderr


def test_a_table_needs_no_runner(run_file: str, jobs: dict[str, Any], tmp_path: Path) -> None:
    architecture = jobs["jobs"][-1]["arch_id"]
    block = jobs["jobs"][0]["block_path"]
    path = tmp_path / "times.csv"
    path.write_text(
        "architecture,latency (s),source,device\n"
        f"{architecture},0.0125,stopwatch,iPhone 16 Pro Max\n"
        f'"{block}",0.004,stopwatch,iphone16promax\n'
    )
    assert imported(run_file, "--import", str(path))["kept"] == {"block": 1, "network": 1}
    block_record, *_ = scan_profile(records_of(tmp_path)).profiles.of_level("block")
    assert block_record.steady_ms == (4.0,)


def test_a_faulty_second_file_leaves_the_first_imported(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    first = write(tmp_path / "first.jsonl", lines)
    result = nas("profile", run_file, "--import", first, "--import", str(tmp_path / "no.csv"))
    assert result.exit_code == 3
    assert "no.csv: does not exist" in result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    RunDirectory.open(folder).require("profile")


def test_an_import_killed_before_it_was_noted_is_noted_by_the_next(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = str(tmp_path / "phone.jsonl")
    imported(run_file, "--import", write(tmp_path / "a.jsonl", lines[:-1]))
    before = (records_of(tmp_path).parent / "stage.json").read_bytes()
    imported(run_file, "--import", file)
    (records_of(tmp_path).parent / "stage.json").write_bytes(before)  # as a kill leaves it
    assert nas("calibrate", run_file).exit_code == 3
    assert imported(run_file, "--import", file)["written"] is False
    assert nas("calibrate", run_file).exit_code == 0


def test_calibration_names_what_it_leaves_out(
    run_file: str, lines: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    imported(run_file, "--import", str(tmp_path / "phone.jsonl"))
    path = records_of(tmp_path)
    data = path.read_text().replace('"space":"tiny/1"', '"space":"tiny/0"', 1).splitlines()
    digest = Architecture.from_text(lines[-12]["model"]["arch_id"].replace("tiny/1", "tiny/0")).digest
    of_tiny_0 = next(number for number, text in enumerate(data) if "tiny/0" in text)
    data[of_tiny_0] = json.dumps({**json.loads(data[of_tiny_0]), "subject": digest})
    data[0] = "{broken"
    (tmp_path / "copy.jsonl").write_text("\n".join(data) + "\n")
    fresh = tmp_path / "fresh.yaml"
    fresh.write_text(PHONE_RUN.replace("RUNS", str(tmp_path / "fresh")))
    report = imported(str(fresh), "--import", str(tmp_path / "copy.jsonl"))
    assert [problem["line"] for problem in report["dropped"]] == [1, of_tiny_0 + 1]
    path.write_text("\n".join(data) + "\n")
    imported(run_file, "--import", str(tmp_path / "copy.jsonl"))  # notes the changed file
    result = nas("calibrate", run_file)
    assert result.exit_code == 0
    assert "2 faults in the records, see the warnings" in result.stderr
    assert "line 1: damaged record" in caplog.text
    named = (
        f"records.jsonl: line {of_tiny_0 + 1}: '{digest}' is of space 'tiny/0', this run searches 'tiny/1'; left out"
    )
    assert named in caplog.text


def test_published_figures_are_no_measurements_of_a_run(run_file: str, tmp_path: Path) -> None:
    path = tmp_path / "apple.csv"
    path.write_text(
        "model,device,chip,unit,latency_ms,source,licence\nUNet,iPhone 16 Pro Max,A18 Pro,CPU_AND_NE,300,someone,MIT\n"
    )
    result = nas("profile", run_file, "--import", str(path))
    assert result.exit_code == 3
    assert "line 2: 'UNet' states no scenario, this run is for '8x64x64 float16 cpu_and_ne'" in result.stderr
