"""A kit goes to a phone and its records come back; what cannot be used is refused line by line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner, Result

from latency_models import distinct_blocks, scan_profile
from latency_models.importers.kits import ANCHOR_EVERY, read_manifest
from nas.cli.main import main
from nas.core.errors import InputError, UnavailableError
from nas.core.files import sha256_path
from nas.export.component import Component, InputPort, OutputPort
from nas.export.kit.packages import WrittenPackage
from nas.pipeline.context import context_of
from nas.pipeline.kit import plan_kit
from tests.pipeline.phone_runner import run_kit
from tests.pipeline.test_importing import PHONE_RUN

if TYPE_CHECKING:
    from collections.abc import Callable

Line = dict[str, Any]
NOTHING = Component(
    name="nothing",
    module=torch.nn.Linear(2, 3),
    inputs=(InputPort(name="video", shape=(1, 2)),),
    outputs=(OutputPort(name="result"),),
)


class FakeExport:
    """In the place of coremltools: a package is a folder with the component's inputs."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.fails_at: int | None = None

    def __call__(self, component: Component, path: Path, work: Path) -> WrittenPackage:
        if len(self.written) == self.fails_at:
            (work / "half.mlpackage").mkdir(parents=True)
            raise UnavailableError("the disk is full")
        self.written.append(path.name)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        (path / "model").write_text(f"{path.name} {component.description}")
        return WrittenPackage(
            sha256=sha256_path(path),
            package_bytes=10,
            specification=9,
            parameters=sum(item.numel() for item in component.module.parameters()),
            inputs=tuple((port.name, port.shape, port.dtype) for port in component.inputs),
        )


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> FakeExport:
    return replace_export(monkeypatch)


def replace_export(patch: pytest.MonkeyPatch) -> FakeExport:
    fake = FakeExport()
    patch.setattr("nas.export.kit.packages.write_package", fake)
    patch.setattr(
        "nas.pipeline.kit._component", lambda _context, entry, _lowering: replace(NOTHING, description=entry["job"])
    )
    return fake


def nas(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def answered(*arguments: str) -> Any:
    result = nas(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def write_run(folder: Path, **changes: str) -> str:
    text = PHONE_RUN.replace("RUNS", str(folder / "runs"))
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "run.yaml").write_text(text)
    return str(folder / "run.yaml")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Line]]:
    """A folder with a run whose kit a simulated phone has measured, and the lines of the phone."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        replace_export(patch)
        assert nas("profile", write_run(folder), "--kit", str(folder / "kit")).exit_code == 0
    return folder, run_kit(json.loads((folder / "kit" / "manifest.json").read_text()))


@pytest.fixture
def run(measured: tuple[Path, list[Line]], tmp_path: Path) -> str:
    """The same run, its directory a copy of its own."""
    shutil.copytree(measured[0] / "runs", tmp_path / "runs")
    (directory,) = (tmp_path / "runs").iterdir()
    return str(directory)


@pytest.fixture
def lines(measured: tuple[Path, list[Line]]) -> list[Line]:
    copied: list[Line] = json.loads(json.dumps(measured[1]))
    return copied


def imported(run: str, lines: list[Line], folder: Path) -> dict[str, Any]:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (report,) = answered("profile", run, "--import", str(path))["imports"]
    return report  # type: ignore[no-any-return]  # one of the command's reports


def test_a_kit_comes_back_and_is_calibrated_by(run: str, lines: list[Line], tmp_path: Path) -> None:
    report = imported(run, lines, tmp_path)
    assert report["dropped"] == []
    assert report["kept"] == {"block": len(lines) // 2 - 12, "network": 12}
    result = nas("calibrate", run)
    assert result.exit_code == 0, result.output
    record = scan_profile(Path(run) / "profile" / "records.jsonl").profiles.of_level("network")[0]
    assert record.package is not None
    assert record.package.specification_version == 9


def test_the_kit_holds_what_the_job_list_says(measured: tuple[Path, list[Line]], tmp_path: Path) -> None:
    folder, _ = measured
    assert nas("profile", write_run(tmp_path), "--jobs", str(tmp_path / "jobs.json")).exit_code == 0
    wanted = {(job["job"], job["kind"]) for job in json.loads((tmp_path / "jobs.json").read_text())["jobs"]}
    manifest = read_manifest(folder / "kit" / "manifest.json")
    plain = [job for job in manifest.jobs if not job.anchor]
    assert {(job.job, job.model.kind) for job in plain} == wanted
    places = [place for place, job in enumerate(manifest.jobs) if job.anchor]
    assert max(later - place for place, later in pairwise(places)) == ANCHOR_EVERY + 1
    assert len({manifest.jobs[place].package for place in places}) == 1
    for job in manifest.jobs:
        assert sha256_path(folder / "kit" / job.package) == job.model.sha256
    assert {path.name for path in (folder / "kit").iterdir() if not path.name.startswith(".")} == {
        "manifest.json", "packages", "runner", "MeasureApp.swiftpm", "README.md", "device_record.schema.json",
    }  # fmt: skip
    library = folder / "kit" / "MeasureApp.swiftpm" / "Sources" / "KitRunner"
    assert sha256_path(library) == sha256_path(folder / "kit" / "runner" / "Sources" / "KitRunner")


def test_a_kit_that_was_stopped_goes_on(export: FakeExport, tmp_path: Path) -> None:
    run, kit = write_run(tmp_path), tmp_path / "kit"
    export.fails_at = 7
    assert nas("profile", run, "--kit", str(kit)).exit_code == 6
    assert not (kit / "manifest.json").exists()
    first, export.fails_at = list(export.written), None
    (kit / "packages" / first[3] / "model").write_text("damaged")
    data = answered("profile", run, "--kit", str(kit))["kit"]
    again = export.written[len(first) :]
    assert again[0] == first[3]
    assert len(again) == data["packages"] - 6
    assert not (kit / ".work").exists()
    (directory,) = (tmp_path / "runs").iterdir()
    assert [file.stem for file in (directory / "kits").iterdir()] == [data["kit"]]
    assert answered("profile", run, "--kit", str(kit))["kit"] == data  # whole: nothing is done again
    assert len(export.written) == len(first) + len(again)


def test_a_folder_with_another_kit_is_left_alone(export: FakeExport, tmp_path: Path) -> None:
    export.fails_at = 1
    nas("profile", write_run(tmp_path), "--kit", str(tmp_path / "kit"))
    before = sha256_path(tmp_path / "kit")
    result = nas("profile", write_run(tmp_path, **{"frames: 8": "frames: 16"}), "--kit", str(tmp_path / "kit"))
    assert result.exit_code == 3
    assert "holds a kit of other jobs, settings or tools (tiny/1, iphone16_pro_max)" in result.stderr
    assert sha256_path(tmp_path / "kit") == before


def test_a_folder_with_other_files_is_left_alone(export: FakeExport, tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "thesis.txt").write_text("mine")
    result = nas("profile", write_run(tmp_path), "--kit", str(tmp_path / "kit"))
    assert result.exit_code == 3
    assert "is not empty and holds no kit" in result.stderr
    assert export.written == []


def test_a_dry_run_says_size_and_time(tmp_path: Path) -> None:
    data = answered("profile", write_run(tmp_path), "--kit", str(tmp_path / "kit"), "--dry-run")["kit"]
    assert data["lowerings"] == ["neural_engine"]
    assert (data["written"], data["networks"], data["packages"]) == (False, 12, data["blocks"] + 12)
    assert data["package_mb"] > 1.0
    assert data["measure_minutes"] > (data["packages"] * 2.0 + 60.0) / 60.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.yaml"]


def test_equal_blocks_are_one_package(tmp_path: Path) -> None:
    context = context_of(write_run(tmp_path))
    block = next(iter(distinct_blocks(context.space, context.scenario)))
    entries = [{"job": f"block-{number:04d}", "kind": "block", "block_path": block} for number in range(3)]
    assert [entry["job"] for entry in plan_kit(context, entries).entries] == ["block-0000"]


def test_several_settings_share_packages(export: FakeExport, tmp_path: Path) -> None:
    options = ("--plan", "2", "--units", "all", "--units", "cpu_and_gpu", "--units", "cpu_and_ne")
    answered("profile", write_run(tmp_path), "--kit", str(tmp_path / "kit"), *options)
    jobs = [job for job in read_manifest(tmp_path / "kit" / "manifest.json").jobs if not job.anchor]
    assert len(export.written) == 4
    assert {(job.config.requested_units, job.scenario, job.config.lowering) for job in jobs} == {
        ("all", "8x64x64 float16 all", "sdpa"),
        ("cpuAndGPU", "8x64x64 float16 cpu_and_gpu", "sdpa"),
        ("cpuAndNeuralEngine", "8x64x64 float16 cpu_and_ne", "einsum"),
    }
    assert len({job.job for job in jobs}) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--units", "all"], "--units needs --kit DIR"),
        (["--kit", "kit", "--measure"], "--kit goes with none of"),
        (["--kit", "kit", "--import", "a.jsonl"], "--kit goes with none of"),
        (["--kit", "kit", "--per-second"], "--measure and --per-second need --plan N"),
    ],
)
def test_senseless_kits_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    result = nas("profile", write_run(tmp_path), *options)
    assert result.exit_code == 2
    assert message in result.stderr


def set_latency(**values: Any) -> Callable[[Line], None]:
    return lambda line: line["latency"].update(values)


def set_device(**values: Any) -> Callable[[Line], None]:
    return lambda line: line["device"].update(values)


def scale_samples(factor: float, *, every: int = 1) -> Callable[[Line], None]:
    def change(line: Line) -> None:
        line["latency"]["samples"] = [
            value * (factor if number % every == 0 else 1.0) for number, value in enumerate(line["latency"]["samples"])
        ]

    return change


REFUSED: list[tuple[Callable[[Line], None], str]] = [
    (set_device(thermal_start="fair"), "the phone was 'fair' at the start: measure from 'nominal'"),
    (set_device(thermal_end="serious"), "the phone was 'serious' at the end: it throttled"),
    (set_device(low_power=True), "low power mode was on"),
    (set_latency(warmup=0), "has no warm-up"),
    (set_device(battery=83.0), r"device.battery must lie in [0, 1], got 83"),
    (set_device(ram_gb=-8.0), "device.ram_gb must lie above 0"),
    (set_latency(median=float("nan")), "latency.median must be finite and not negative, got nan"),
    (set_latency(cold_first=-1.0), "latency.cold_first must be finite and not negative, got -1"),
    (set_latency(samples=[900.0, 800.0, float("nan"), 700.0]), "samples must be finite and above 0 ms, got nan"),
    (set_latency(samples=[900.0, 800.0, 3.0, 700.0, 700.0]), "a call of 0.003 ms is shorter than"),
    (scale_samples(8.0, every=3), "something else ran beside them"),
    (lambda line: line["memory"].update(sys_wired_max=9e9), "memory.sys_wired_max of 9e+09 bytes is no size on a"),
    (lambda line: line["memory"].update(resident_peak=float("nan")), "memory.resident_peak of nan bytes is no size"),
    (lambda line: line["model"].update(sha256="ab" * 32), f"measured a package of sha256 '{'ab' * 32}', the kit's has"),
    (lambda line: line.update(job="block-9999"), "has no job 'block-9999'"),
    (lambda line: line.update(kit="0123456789abcdef"), "is of kit '0123456789abcdef', the kits of this run are: "),
    (lambda line: line["config"].update(requested_units="all"), "asked for 'all', the kit says 'cpuAndNeuralEngine'"),
]


def test_what_cannot_be_used_is_refused_and_the_rest_kept(run: str, lines: list[Line], tmp_path: Path) -> None:
    for number, (change, _) in enumerate(REFUSED):
        change(lines[2 * number + 1])
    lines = [line for line in lines if line["state"] == "finished"]
    report = imported(run, lines, tmp_path)
    found = {problem["line"]: problem["message"] for problem in report["dropped"]}
    assert set(found) == {number + 1 for number in range(len(REFUSED))}
    for number, (_, message) in enumerate(REFUSED):
        assert message in found[number + 1]
    assert sum(report["kept"].values()) == len(lines) - len(REFUSED)


def test_a_warm_end_is_no_throttling(run: str, lines: list[Line], tmp_path: Path) -> None:
    lines[1]["device"]["thermal_end"] = "fair"
    assert imported(run, lines, tmp_path)["dropped"] == []


def test_a_job_that_ended_the_runner_is_a_failure(run: str, lines: list[Line], tmp_path: Path) -> None:
    lines[1]["latency"] = lines[1]["memory"] = lines[1]["load"] = None
    message = "the runner was ended in this job with a footprint of 3100 MB and 40 MB available"
    lines[1]["error"] = {"stage": "out_of_memory", "message": message, "limit_mb": 3100.0}
    del lines[-1]  # the last job never ended
    report = imported(run, lines, tmp_path)
    assert report["dropped"] == []
    assert report["kept"]["failed"] == 2
    failures = scan_profile(Path(run) / "profile" / "records.jsonl").profiles.failures()
    assert {(one.failure.stage, one.failure.limit_mb) for one in failures if one.failure} == {
        ("out_of_memory", 3100.0),
        ("predict", None),
    }


def test_a_kit_of_another_run_is_refused(lines: list[Line], tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = nas("profile", write_run(tmp_path), "--import", str(path))
    assert result.exit_code == 3
    assert f"is of kit {lines[0]['kit']!r}, the kits of this run are: none" in result.stderr


def test_a_manifest_that_was_changed_is_refused(measured: tuple[Path, list[Line]], tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    text = (measured[0] / "kit" / "manifest.json").read_text()
    path.write_text(text.replace('"seed": 1', '"seed": 2', 1))
    with pytest.raises(InputError, match="does not belong to its name"):
        read_manifest(path)
