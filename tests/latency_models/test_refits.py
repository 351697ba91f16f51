"""Predictors drawn from the posterior differ as far as the data leave them open, and are priced as tables are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from latency_models import compile_cost_table, devices
from latency_models.backends.simulated import SimulatedBehaviour
from latency_models.calibration import calibrate
from latency_models.planning import choose_networks
from latency_models.refits import draw_predictors, drawn_latencies_ms
from nas.core.rng import RandomStreams
from tests.latency_models.test_calibration import profile_phone

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.scenario import Scenario
    from tests.latency_models.conftest import SmallSpace

DEVICE = devices.get("host_cpu")


def draws_of(
    space: SmallSpace, scenario: Scenario, folder: Path, record_noise_ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return logarithms of drawn over predicted times of all candidates, and drawn times as cost tables have them."""
    networks = choose_networks(space, 16, RandomStreams(0))
    behaviour = SimulatedBehaviour(record_noise_ratio=record_noise_ratio)
    path = folder / f"{record_noise_ratio}.jsonl"
    profiles, _ = profile_phone(space, scenario, networks, path, behaviour=behaviour)
    workloads = {network.digest: space.workload(network, scenario) for network in networks}
    predictor, _ = calibrate(profiles, workloads, scenario, DEVICE)
    rng = np.random.default_rng(0)
    drawn = draw_predictors(predictor, profiles, workloads, scenario, DEVICE, count=8, rng=rng)
    options = np.array([space.to_options(network) for network in space.all()])
    times = scenario.denoiser_calls * drawn_latencies_ms(drawn, space, scenario, options)
    tables = np.array([compile_cost_table(space, scenario, other).score(options).latency_ms for other in drawn])
    np.testing.assert_allclose(times, tables, rtol=1e-10)
    centre = compile_cost_table(space, scenario, predictor).score(options).latency_ms
    return np.log(times / centre), times


def test_draws_spread_with_the_noise_of_the_records(space: SmallSpace, scenario: Scenario, tmp_path: Path) -> None:
    quiet, _ = draws_of(space, scenario, tmp_path, 0.0)
    noisy, _ = draws_of(space, scenario, tmp_path, 0.1)
    assert np.sqrt((noisy**2).mean()) > 2.0 * np.sqrt((quiet**2).mean())
    assert np.sqrt((noisy**2).mean()) < 0.1
    # Draws are of the same predictor: their mean over draws and candidates is its own prediction.
    assert noisy.mean() == pytest.approx(0.0, abs=4 * noisy.mean(axis=1).std() / np.sqrt(8) + 0.005)
