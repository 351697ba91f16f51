"""What the runner on a phone does, with arithmetic for a phone: read a job list or a kit, give lines for each job."""

from __future__ import annotations

from typing import Any

import search_spaces
from latency_models import MeasurementPlan
from latency_models import device as device_named
from latency_models.backends.simulated import SimulatedBehaviour, SimulatedPhone
from latency_models.jobs import MeasurementJob
from nas.core.architecture import Architecture
from nas.core.scenario import Scenario

_NOT_READ = {"macs", "weight_scheme", "function", "chunk"}  # of a manifest's model, by the Swift runner
PLAN = MeasurementPlan(scenario="", warmup=2, min_repeats=10)


def phone_for(jobs: dict[str, Any]) -> SimulatedPhone:
    """Return the phone that knows every network of a job list."""
    space = search_spaces.get(jobs["space"])
    scenario = Scenario(**jobs["conditions"])
    networks = [Architecture.from_text(job["arch_id"]) for job in jobs["jobs"] if job["kind"] == "unet"]
    slots = space.slots()
    networks += [  # the jobs' blocks are those of one option at a time
        space.from_options([option if other == position else 0 for other in range(len(slots))])
        for position, slot in enumerate(slots)
        for option in range(len(space.options(slot)))
    ]
    return SimulatedPhone(
        device_named(jobs["device"]),
        {network.digest: space.workload(network, scenario) for network in networks},
        SimulatedBehaviour(seed=5, noise_ratio=0.01),
        precision=scenario.precision,
        compute_units=scenario.compute_units,
    )


def run_jobs(jobs: dict[str, Any], phone: SimulatedPhone) -> list[dict[str, Any]]:
    """Measure every job and return the runner's lines."""
    return [_line(job, number, jobs, phone) for number, job in enumerate(jobs["jobs"])]


def run_kit(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure a kit as its runner does: a line at the start and one at the end of every job."""
    jobs = {**manifest, "jobs": [{"job": job["job"], **job["model"]} for job in manifest["jobs"]]}
    phone = phone_for(jobs)
    lines = []
    for number, job in enumerate(manifest["jobs"]):
        ended = {
            **_line(jobs["jobs"][number], number, jobs, phone),
            "kit": manifest["kit"],
            "scenario": job["scenario"],
            "model": {key: value for key, value in job["model"].items() if key not in _NOT_READ},
            "config": job["config"],
            "state": "finished",
        }
        begun = {key: value for key, value in ended.items() if key not in ("latency", "load", "memory")}
        lines += [{**begun, "state": "started"}, ended]
    return lines


def _line(job: dict[str, Any], number: int, jobs: dict[str, Any], phone: SimulatedPhone) -> dict[str, Any]:
    text = job.get("block_path") or Architecture.from_text(job["arch_id"]).digest
    level = "block" if job["kind"] == "block" else "network"
    record = phone.measure(MeasurementJob(subject=text, level=level, make=_nothing), PLAN)
    before = 4.0e8
    return {
        "schema": "nas/device_record/1",
        "run_id": "evening-1",
        "time": f"2026-11-20T20:{number // 60:02}:{number % 60:02}Z",
        "job": job["job"],
        "scenario": jobs["scenario"],
        "origin": "simulated",
        "host": {"tool": "simulated runner", "commit": "0000000"},
        "device": {
            "product": "iPhone17,2",
            "chip": "A18 Pro",
            "ram_gb": 8,
            "os": "iOS 18.1",
            "os_build": "22B83",
            "thermal_start": "nominal",
            "thermal_end": "nominal",
        },
        "model": {key: job[key] for key in ("kind", "arch_id", "block_path") if key in job},
        "config": {"requested_units": "cpuAndNeuralEngine", "lowering": "einsum"},
        "latency": {"unit": "us", "samples": [1e3 * value for value in record.samples_ms], "warmup": record.warmup},
        "load": {"compile_ms": 900.0, "first_load_ms": 310.0, "cached_load_ms": 14.0},
        "memory": {
            "unit": "bytes",
            "method": "phys_footprint every 10 ms",
            "footprint_before": before,
            "footprint_peak": before + 1e6 * (record.peak_memory_mb or 0.0),
            "sys_wired_before": 1.1e9,
            "sys_wired_max": 1.3e9,
        },
    }


def _nothing() -> Any:
    raise AssertionError("a simulated phone builds nothing")
