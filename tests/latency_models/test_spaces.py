"""The real spaces: cost tables agree with workloads, and the tiny network's measured memory with its prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import search_spaces
from latency_models import devices
from latency_models.backends.torch_host import TorchHostBackend
from latency_models.calibration import calibrate
from latency_models.cost_table import compile_cost_table
from latency_models.jobs import MeasurementJob, MeasurementPlan
from latency_models.measuring import measure_all
from latency_models.planning import choose_networks, distinct_blocks
from latency_models.predictors.roofline import RooflinePredictor
from latency_models.pricing import predict
from latency_models.profiles import call_label
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

TINY = Scenario(frames=8, height=32, width=32, denoising_steps=4, precision="float32", compute_units="cpu_only")
FULL = Scenario(frames=16, height=512, width=512, denoising_steps=4)


@pytest.mark.parametrize(
    ("name", "scenario", "device"), [("tiny", TINY, "host_cpu"), ("snapgen_v", FULL, "iphone16_pro_max")]
)
def test_table_agrees_with_workloads_of_random_architectures(name: str, scenario: Scenario, device: str) -> None:
    space = search_spaces.get(name)
    predictor = RooflinePredictor(
        devices.get(device), precision=scenario.precision, compute_units=scenario.compute_units
    )
    table = compile_cost_table(space, scenario, predictor)
    networks = choose_networks(space, 12, RandomStreams(3))
    scores = table.score(np.array([space.to_options(network) for network in networks]))
    for index, network in enumerate(networks):
        workload = space.workload(network, scenario)
        direct = predict(predictor, workload, scenario)
        assert table.estimate(network).latency_ms == pytest.approx(direct.latency_ms, rel=1e-9)
        assert scores.latency_high_ms[index] == pytest.approx(direct.latency_interval_ms.high, rel=1e-9)
        assert scores.peak_memory_mb[index] == pytest.approx(direct.peak_memory_mb, rel=1e-9)
        assert scores.parameters[index] == workload.parameters


def test_measured_tiny_networks_calibrate_and_their_memory_is_predicted(tmp_path: Path) -> None:
    from nas.models import build

    space = search_spaces.get("tiny")
    networks = choose_networks(space, 12, RandomStreams(0))
    jobs = [
        MeasurementJob(subject=signature, level="block", make=lambda spec=spec: build.build_block(spec))
        for signature, spec in distinct_blocks(space, TINY).items()
    ]
    jobs += [
        MeasurementJob(
            subject=network.digest,
            level="network",
            make=lambda network=network: (
                build.build_denoiser(space, network).eval(),
                build.example_inputs(space, TINY),
            ),
        )
        for network in networks
    ]
    plan = MeasurementPlan(
        scenario=call_label(TINY), passes=1, warmup=1, min_repeats=2, max_repeats=2, seconds=0.01, network_seconds=0.01
    )
    profiles = measure_all(TorchHostBackend(), jobs, plan, tmp_path / "records.jsonl")
    workloads = {network.digest: space.workload(network, TINY) for network in networks}
    predictor, report = calibrate(profiles, workloads, TINY, devices.get("host_cpu"))
    # Latency of two samples on a busy machine says nothing; live tensor bytes do not depend on load.
    assert report.memory_error is not None
    assert report.memory_error.worst_ape < 0.02
    assert report.num_blocks == len(distinct_blocks(space, TINY))
    assert all(predict(predictor, workload, TINY).in_domain for workload in workloads.values())
