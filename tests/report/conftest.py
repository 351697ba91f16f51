"""A run directory as the stages leave it, made from the core dataclasses, without running a stage."""

from __future__ import annotations

import io
import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from nas.core.architecture import Architecture
from nas.core.artefacts import ExportedModel, ParityReport, ParityRow, StructureCheck
from nas.core.cost import BlockCost, Budget, CostEstimate, Interval
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.core.files import JsonLines, sha256_path, write_json, write_text_atomically
from nas.core.profile import DeviceInfo, ProfileRecord
from nas.core.schema import to_data, with_schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLOTS = ("down0.0", "down1.0", "mid.0", "up0.0", "up1.0")
KINDS = ("none", "conv1d", "conv3d", "attention1d", "attention3d")
BUDGET = Budget(latency_ms=420.0, peak_memory_mb=40.0)


def make_architecture(seed: int) -> Architecture:
    rng = random.Random(seed)
    choices: dict[str, Any] = {}
    for slot in SLOTS:
        kind = rng.choice(KINDS)
        choices[f"{slot}.kind"] = kind
        if kind.startswith("conv"):
            choices[f"{slot}.kernel"] = rng.choice((3, 5))
        elif kind.startswith("attention"):
            choices[f"{slot}.heads"] = rng.choice((2, 4))
    return Architecture("tiny/1", choices)


def make_cost(seed: int, latency_ms: float, memory_mb: float) -> CostEstimate:
    rng = random.Random(seed)
    names = ["conv_in", "time_embedding"]
    for slot in SLOTS:
        names += [slot, f"{slot}.attention", f"{slot}.temporal"]
    names += ["conv_out", "overhead"]
    weights = [rng.uniform(0.2, 2.0) * (2.0 if name.endswith("temporal") else 1.0) for name in names]
    blocks = tuple(
        BlockCost(
            block=name,
            latency_ms=latency_ms * weight / sum(weights),
            memory_mb=memory_mb * (1.0 if name == "mid.0" else rng.uniform(0.5, 0.98)),
            compute_unit="cpu",
        )
        for name, weight in zip(names, weights, strict=True)
    )
    return CostEstimate(
        latency_ms=latency_ms,
        latency_interval_ms=Interval(low=0.93 * latency_ms, high=1.08 * latency_ms, coverage=0.9),
        peak_memory_mb=memory_mb,
        memory_interval_mb=Interval(low=0.97 * memory_mb, high=1.04 * memory_mb, coverage=0.9),
        parameters=820_000 + 1_000 * seed,
        blocks=blocks,
        device="host-cpu",
        scenario="8 frames, 32x32, 4 steps, float32",
        predictor="block table with residual",
        origin="predicted",
    )


def make_evaluation(number: int) -> Evaluation:
    rng = random.Random(number)
    latency_ms = 180.0 + 9.0 * number
    cost = make_cost(number, latency_ms, 24.0 + 0.5 * (number * 7 % 40))
    violations = BUDGET.violations(cost)
    score = 0.5 + 0.4 * (1 - math.exp(-number / 12)) - rng.uniform(0.0, 0.1)
    quality = Quality(score=score, standard_error=0.02, estimator="supernet", fidelity="64 held-out clips")
    return Evaluation(
        number=number,
        proposal=Proposal(architecture=make_architecture(number)),
        cost=cost,
        quality=None if violations else quality,
        violations=violations,
        state="screened" if violations else "complete",
        seconds=0.4,
    )


def non_dominated(evaluations: list[Evaluation]) -> list[Evaluation]:
    members: list[Evaluation] = []
    for item in sorted(evaluations, key=lambda item: item.cost.latency_ms):
        if item.quality and all(item.quality.score > other.quality.score for other in members if other.quality):
            members.append(item)
    return members


def make_gif(colour: tuple[int, int, int]) -> bytes:
    from PIL import Image, ImageDraw

    frames = []
    for step in range(8):
        frame = Image.new("RGB", (4 * 32 + 6, 2 * 32 + 2), (230, 230, 235))
        draw = ImageDraw.Draw(frame)
        for index in range(8):
            x, y = 34 * (index % 4), 34 * (index // 4)
            draw.rectangle((x, y, x + 31, y + 31), fill=(40 + 10 * index, 44, 60))
            draw.ellipse((x + 2 + 2 * step, y + 8, x + 12 + 2 * step, y + 18), fill=colour)
        frames.append(frame)
    stream = io.BytesIO()
    frames[0].save(stream, format="GIF", save_all=True, append_images=frames[1:], duration=125, loop=0)
    return stream.getvalue()


def write_profile(run_dir: Path) -> None:
    device = DeviceInfo(
        name="host-cpu",
        chip="test chip",
        compute_unit="cpu",
        threads=2,
        memory_mb=24_000.0,
        os_build="Linux",
        software="torch 2.13",
    )
    lines = JsonLines(run_dir / "profile/records.jsonl")
    for index in range(12):
        record = ProfileRecord(
            subject=f"resnet(channels={32 * index})",
            level="block" if index < 9 else "network",
            scenario="8 frames, 32x32",
            device=device,
            samples_ms=(1.4, 1.2, 1.1 + 0.01 * index, 1.1),
            warmup=1,
            peak_memory_mb=2.0,
            memory_method="allocator",
            tool="torch",
            taken_at="2026-11-21T10:00:00Z",
            origin="measured",
            source="this run",
        )
        lines.append(to_data(record))


def write_search(run_dir: Path, *, num_evaluations: int = 40) -> Evaluation:
    evaluations = [make_evaluation(number) for number in range(num_evaluations)]
    journal = JsonLines(run_dir / "search/evaluations.jsonl")
    for item in evaluations:
        journal.append(to_data(item))
    members = non_dominated(evaluations)
    chosen = members[len(members) // 2]
    body = {
        "members": [to_data(item) for item in members],
        "budget": to_data(Budget(latency_ms=420.0, peak_memory_mb=40.0)),
        "selected": chosen.architecture.digest,
        "selection": "knee",
        "hypervolume": 123.4,
        "reference": [900.0, 60.0, 0.0],
        "quality_estimator": "supernet",
        "screened": sum(item.state == "screened" for item in evaluations),
        "complete": sum(item.state == "complete" for item in evaluations),
    }
    write_json(run_dir / "search/front.json", with_schema("front", 1, body))
    return chosen


def write_training(run_dir: Path, digest: str) -> None:
    rng = random.Random(1)
    folder = run_dir / "train" / digest
    records = []
    for stage, steps in (("teacher", 900), ("distillation", 300), ("trajectory", 200), ("adversarial", 150)):
        for step in range(0, steps, 1):
            value = (0.9 * math.exp(-step / 200) + 0.12) * rng.uniform(0.85, 1.15)
            extra = {"discriminator_loss": rng.uniform(1.5, 2.0)} if stage == "adversarial" else {}
            records.append({"stage": stage, "step": step, "loss": value, "learning_rate": 2e-3, **extra})
    text = "".join(canonical(record) for record in records)
    write_text_atomically(folder / "metrics.jsonl", text)
    rows = []
    samplers = (
        ("real clips", "real", None, None, None, 1.0),
        ("teacher, 25 steps, guidance 3", "teacher", 25, 3.0, 50, 0.93),
        ("student, 25 steps", "distillation", 25, 0.0, 25, 0.85),
        ("student, 4 steps", "distillation", 4, 0.0, 4, 0.66),
        ("student, 4 steps, adversarial", "adversarial", 4, 0.0, 4, 0.84),
    )
    for index, (name, stage, steps, guidance, calls, mean) in enumerate(samplers):
        clip = folder / f"samples/{stage}-{steps}.gif"
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.write_bytes(make_gif((200, 60 + 30 * index, 60)))
        metrics = {"colour": min(1.0, mean + 0.05), "shape": mean, "direction": mean - 0.1, "motion": mean}
        metrics |= {"mean": mean, "flicker": 0.01 + 0.02 * (1 - mean), "jitter": 0.1 + 0.2 * (1 - mean)}
        rows.append(
            {
                "name": name,
                "stage": stage,
                "steps": steps,
                "guidance": guidance,
                "calls": calls,
                "metrics": metrics,
                "num_clips": 216,
                "clip": f"samples/{clip.name}",
            }
        )
    write_json(folder / "evaluation.json", with_schema("training_evaluation", 1, {"rows": rows}))


def canonical(record: dict[str, Any]) -> str:
    from nas.core.files import canonical_json

    return canonical_json(record) + "\n"


def write_export(run_dir: Path, chosen: Evaluation) -> None:
    model = ExportedModel(
        architecture=chosen.architecture,
        packages=("denoiser.mlpackage",),
        sha256=("ab" * 32,),
        lowering="gpu",
        precision="float16",
        minimum_os="iOS18",
        package_bytes=1_810_000,
        parameters=chosen.cost.parameters,
        operations=(("conv", 24), ("linear", 60), ("scaled_dot_product_attention", 9), ("reshape", 120)),
        checks=(
            StructureCheck(name="inputs", expected="sample (1, 8, 16, 4, 4) fp16", found="the same", passed=True),
            StructureCheck(name="convolutions", expected=24, found=24, passed=True),
            StructureCheck(name="weight bytes", expected=1_640_000, found=1_641_216, passed=True),
        ),
        seconds=14.2,
        peak_rss_mb=812.0,
        parity=ParityReport(
            inputs="noise, time 999",
            rows=(
                ParityRow(
                    output="velocity",
                    precision="float16",
                    reference="torch",
                    max_absolute=3e-3,
                    max_relative=2.2e-3,
                    psnr_db=66.0,
                    cosine=0.999998,
                ),
            ),
            first_apart=None,
            activation_peak_bytes=221_184,
            weight_bytes=1_640_000,
            decompressed_bytes=1_640_000,
        ),
    )
    body = with_schema("export", 1, to_data(model))
    write_json(run_dir / "export" / chosen.architecture.digest / "export.json", body)


def write_closed_loop(run_dir: Path) -> None:
    from nas.core.files import read_json

    members = read_json(run_dir / "search/front.json")["members"]
    rows = []
    for index, item in enumerate(members):
        cost = item["cost"]
        digest = Architecture.from_dict(item["proposal"]["architecture"]).digest
        error = (0.97, 1.03, 1.12, 0.99, 1.05)[index % 5]
        rows.append(
            {
                "digest": digest,
                "predicted_ms": cost["latency_ms"],
                "low_ms": cost["latency_interval_ms"]["low"],
                "high_ms": cost["latency_interval_ms"]["high"],
                "measured_ms": cost["latency_ms"] * error,
                "raw_ms": cost["latency_ms"] * error * 1.25,
                "predicted_memory_mb": cost["peak_memory_mb"],
                "memory_low_mb": cost["memory_interval_mb"]["low"],
                "memory_high_mb": cost["memory_interval_mb"]["high"],
                "measured_memory_mb": cost["peak_memory_mb"] * 1.01,
            }
        )
    body = {
        "device": "host-cpu",
        "rows": rows,
        "median_error_ratio": 0.03,
        "coverage": 0.8,
        "stated_coverage": 0.9,
        "slowdown_ratio": 1.25,
    }
    write_json(run_dir / "closed_loop/closed_loop.json", with_schema("closed_loop", 1, body))


def write_calibration(run_dir: Path) -> None:
    rng = random.Random(3)
    networks = []
    for index in range(24):
        measured_ms = 180.0 + 12.0 * index
        predicted_ms = measured_ms * rng.uniform(0.93, 1.07)
        measured_mb = 20.0 + 0.6 * index
        networks.append(
            {
                "subject": f"network{index:02d}",
                "fold": index % 8,
                "measured_ms": measured_ms,
                "predicted_ms": predicted_ms,
                "low_ms": 0.94 * predicted_ms,
                "high_ms": 1.06 * predicted_ms,
                "measured_memory_mb": measured_mb,
                "predicted_memory_mb": 1.02 * measured_mb,
                "memory_low_mb": 0.99 * measured_mb,
                "memory_high_mb": 1.05 * measured_mb,
            }
        )
    errors = {"mape": 0.03, "median_ape": 0.03, "worst_ape": 0.07, "spearman": 0.99, "coverage": 0.875}
    errors |= {"stated_coverage": 0.9, "mean_width_ratio": 0.12, "count": 24}
    body = {
        "device": "host-cpu",
        "scenario": "8 frames, 32x32",
        "predictor": "block table",
        "denoiser_calls": 4,
        "num_blocks": 60,
        "num_networks": 24,
        "networks": networks,
        "latency_error": errors,
        "memory_error": None,
        "worst_blocks": [],
        "coefficients": [["overhead_ms", 1.2]],
    }
    write_json(run_dir / "calibrate/report.json", with_schema("calibration", 1, body))


def write_frame(run_dir: Path) -> None:
    config = (
        "run: {name: demo, seed: 0}\n"
        "space: {type: tiny, version: 1}\n"
        "scenario: {frames: 8, height: 32, width: 32, denoising_steps: 4, guidance: false, precision: float32}\n"
        "budget: {latency_ms: 420.0, peak_memory_mb: 40.0, coverage: 0.9}\n"
        "report: {title: A demonstration}\n"
    )
    write_text_atomically(run_dir / "resolved.yaml", config)
    versions = {"torch": "2.13.0", "coremltools": "9.0"}
    write_json(run_dir / "manifest.json", {"schema": "nas/manifest/1", "versions": versions, "seed": 0})
    stages = {
        name: {
            "state": "done",
            "started_at": f"2026-11-21T10:{10 + 2 * index}:00Z",
            "finished_at": f"2026-11-21T10:{12 + 2 * index}:00Z",
            "seconds": 20.0 + 70.0 * index,
            "error": None,
        }
        for index, name in enumerate(("profile", "calibrate", "search", "train", "export", "closed_loop"))
    }
    write_json(run_dir / "status.json", {"schema": "nas/status/1", "stages": stages})
    inputs = {"search/front.json": sha256_path(run_dir / "search/front.json")}
    write_json(run_dir / "train/stage.json", {"schema": "nas/stage/1", "inputs": inputs, "outputs": {}})


def write_run(run_dir: Path) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    write_profile(run_dir)
    write_calibration(run_dir)
    chosen = write_search(run_dir)
    write_training(run_dir, chosen.architecture.digest)
    write_export(run_dir, chosen)
    write_closed_loop(run_dir)
    write_frame(run_dir)
    return run_dir


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run."""
    return write_run(tmp_path / "run")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tests only read."""
    return write_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def make_run() -> Callable[[Path], Path]:
    """Write a finished run into a folder."""
    return write_run
