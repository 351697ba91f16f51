"""Few-shot transfer on synthetic devices whose latent structure is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from latency_models.transfer import LatencyTable, SourceModels, choose_networks, fit_sources, fit_target
from nas.core.errors import InputError, ProfileError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NOISE = 0.02
NETWORKS = 400
DEVICES = 5


def make_table(seed: int = 0, *, noise: float = NOISE, devices: int = DEVICES) -> LatencyTable:
    """Networks of six choices of three; every device mixes three hidden cost tables and adds a launch cost."""
    rng = np.random.default_rng(seed)
    choices = rng.integers(0, 3, size=(NETWORKS, 6))
    features = (choices[:, :, None] == np.arange(3)).reshape(NETWORKS, 18).astype(float)
    work = features @ np.tile([1.0, 3.0, 9.0], 6)
    hidden = features @ rng.uniform(0.0, 10.0, size=(18, 3))
    shares = rng.dirichlet(np.ones(3), size=devices)
    speeds = rng.uniform(0.05, 5.0, size=devices)
    launch = rng.uniform(5.0, 20.0, size=devices)
    clean = speeds * (hidden @ shares.T + launch)
    return LatencyTable(
        features=features,
        feature_names=tuple(f"f{index}" for index in range(18)),
        work=work,
        devices=tuple(f"device{index}" for index in range(devices)),
        latency_ms=clean * np.exp(noise * rng.standard_normal(clean.shape)),
    )


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return make_table()


@pytest.fixture(scope="module")
def sources(table: LatencyTable) -> SourceModels:
    return fit_sources(table, sources=table.devices[1:], networks=150, seed=0)


@pytest.fixture(scope="module")
def alone(table: LatencyTable) -> SourceModels:
    return fit_sources(table, sources=(), seed=0)


def new_device(table: LatencyTable) -> NDArray[np.float64]:
    return table.latency_ms[:, 0]


def relative_errors(sources: SourceModels, latency: NDArray[np.float64], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    others = np.setdiff1d(np.arange(NETWORKS), rows)
    predicted = fit_target(sources, rows, latency[rows]).predict(others).median_ms
    return np.asarray(np.abs(predicted / latency[others] - 1.0))


@pytest.mark.parametrize(("count", "error"), [(3, 0.15), (10, 0.06), (100, 0.03)])
def test_a_new_device_is_predicted_from_few_measurements(
    table: LatencyTable, sources: SourceModels, count: int, error: float
) -> None:
    latency = new_device(table)
    errors = [
        relative_errors(sources, latency, np.random.default_rng(seed).permutation(NETWORKS)[:count]).mean()
        for seed in range(5)
    ]
    assert np.mean(errors) < error


def test_sources_help_where_measurements_are_few(
    table: LatencyTable, sources: SourceModels, alone: SourceModels
) -> None:
    latency = new_device(table)
    rows = np.random.default_rng(1).permutation(NETWORKS)[:10]
    assert relative_errors(sources, latency, rows).mean() < 0.75 * relative_errors(alone, latency, rows).mean()


def test_a_device_unlike_any_source_is_learned_from_own_features(table: LatencyTable, sources: SourceModels) -> None:
    strange = 10.0 + 10.0 * table.features[:, 4] + 30.0 * table.features[:, 9]
    rows = np.random.default_rng(2).permutation(NETWORKS)[:60]
    constant = np.abs(np.exp(np.log(strange).mean()) / strange - 1.0).mean()
    assert relative_errors(sources, strange, rows).mean() < 0.2 * constant


def test_stated_coverage_holds_on_exchangeable_devices() -> None:
    table = make_table(1, devices=11)
    sources = fit_sources(table, sources=table.devices[6:], networks=140, seed=0)
    inside = []
    for device in range(6):
        rows = np.random.default_rng(device).permutation(NETWORKS)
        latency = table.latency_ms[:, device]
        predicted = fit_target(sources, rows[:20], latency[rows[:20]]).predict(rows[20:])
        truth = latency[rows[20:]]
        inside.append(np.mean((predicted.low_ms <= truth) & (truth <= predicted.high_ms)))
    assert 0.84 <= np.mean(inside) <= 0.96


def test_upper_bound_is_passed_as_rarely_as_stated(table: LatencyTable, sources: SourceModels) -> None:
    latency = new_device(table)
    passed = []
    for seed in range(8):
        rows = np.random.default_rng(seed).permutation(NETWORKS)
        predicted = fit_target(sources, rows[:20], latency[rows[:20]]).predict(rows[20:])
        passed.append(np.mean(latency[rows[20:]] > predicted.upper_ms(0.9)))
    assert 0.03 <= np.mean(passed) <= 0.18


def test_another_unit_scales_the_prediction(table: LatencyTable, sources: SourceModels) -> None:
    latency = new_device(table)
    rows = np.arange(12)
    one = fit_target(sources, rows, latency[rows]).predict(np.arange(50))
    thousand = fit_target(sources, rows, 1000.0 * latency[rows]).predict(np.arange(50))
    np.testing.assert_allclose(thousand.high_ms, 1000.0 * one.high_ms, rtol=1e-6)


def test_an_unmeasured_source_cell_is_no_obstacle(table: LatencyTable) -> None:
    holes = table.latency_ms.copy()
    holes[np.random.default_rng(3).random(holes.shape) < 0.5] = np.nan
    sources = fit_sources(replace(table, latency_ms=holes), sources=table.devices[1:], networks=150, seed=0)
    rows = np.arange(0, NETWORKS, 40)
    assert relative_errors(sources, new_device(table), rows).mean() < 0.06


def test_a_stored_fit_predicts_the_same(table: LatencyTable, sources: SourceModels, tmp_path: Path) -> None:
    path = tmp_path / "sources.npz"
    sources.save(path)
    latency = new_device(table)
    rows = np.arange(15)
    before = fit_target(sources, rows, latency[rows]).predict(np.arange(NETWORKS))
    after = fit_target(SourceModels.load(path), rows, latency[rows]).predict(np.arange(NETWORKS))
    np.testing.assert_array_equal(before.median_ms, after.median_ms)
    np.testing.assert_array_equal(before.high_ms, after.high_ms)


def test_another_schema_is_refused(sources: SourceModels) -> None:
    data = sources.to_dict()
    data["meta"] = {**data["meta"], "schema": "latency_models/transfer/0"}
    with pytest.raises(InputError, match="expected 'latency_models/transfer/1'"):
        SourceModels.from_dict(data)


def test_chosen_networks_beat_random_ones(table: LatencyTable, sources: SourceModels) -> None:
    latency = new_device(table)
    chosen = [relative_errors(sources, latency, choose_networks(sources, 5, seed=seed)).mean() for seed in range(8)]
    drawn = [
        relative_errors(sources, latency, np.random.default_rng(seed).permutation(NETWORKS)[:5]).mean()
        for seed in range(8)
    ]
    assert np.mean(chosen) < np.mean(drawn)


def test_chosen_networks_are_distinct_candidates(sources: SourceModels) -> None:
    allowed = np.arange(100, 160)
    chosen = choose_networks(sources, 40, seed=0, candidates=allowed)
    assert len(set(chosen.tolist())) == 40
    assert set(chosen.tolist()) <= set(allowed.tolist())


def test_networks_outside_the_sources_range_are_flagged(table: LatencyTable) -> None:
    features = table.features.copy()
    features[7, 0] = 5.0
    latency = table.latency_ms.copy()
    latency[7, 1:] = np.nan
    sources = fit_sources(
        replace(table, features=features, latency_ms=latency), sources=table.devices[1:3], networks=395, seed=0
    )
    predicted = fit_target(sources, np.arange(20, 30), latency[20:30, 0]).predict([7, 8])
    assert predicted.in_domain.tolist() == [False, True]


@pytest.mark.parametrize(
    ("rows", "latency", "message"),
    [
        ([0, 1], [1.0, 1.0], "at least 3 measured networks, got 2"),
        ([0, 1, 2], [1.0, -1.0, 1.0], "network 1 must be above 0 ms, got -1"),
        ([0, 1, 2], [1.0, 0.0, 1.0], "network 1 must be above 0 ms, got 0"),
        ([0, 1, 2], [1.0, np.nan, 1.0], "network 1 must be above 0 ms, got nan"),
        ([0, 1, 1, 2], [1.0, 1.0, 4.0, 1.0], "network 1 was measured as 1 ms and as 4 ms"),
        ([0, 1, 4000], [1.0, 1.0, 1.0], "network 4000 is not in the table of 400 networks"),
        ([0, 1, 2], [1.0, 1.0], "3 networks but 2 latencies"),
    ],
)
def test_bad_measurements_are_named(sources: SourceModels, rows: list[int], latency: list[float], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        fit_target(sources, rows, latency)


def test_coverage_without_sources_needs_enough_measurements(alone: SourceModels, table: LatencyTable) -> None:
    with pytest.raises(ProfileError, match=r"coverage 0\.9 needs at least 9 held-out errors, got 5"):
        fit_target(alone, np.arange(5), new_device(table)[:5], coverage=0.9)
    assert fit_target(alone, np.arange(5), new_device(table)[:5], coverage=0.8).predict([9]).low_ms > 0


@pytest.mark.parametrize("value", [0.0, -2.0, np.inf])
def test_a_latency_that_is_not_above_zero_is_refused(table: LatencyTable, value: float) -> None:
    latency = table.latency_ms.copy()
    latency[3, 2] = value
    with pytest.raises(ProfileError, match=r"latency on 'device2' must be above 0 ms, is .* in rows 3"):
        replace(table, latency_ms=latency)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"work": np.zeros(NETWORKS)}, "work must be a finite number above 0"),
        ({"features": np.full((NETWORKS, 18), np.nan)}, "features are not finite"),
        ({"feature_names": ("one",)}, "features has shape"),
        ({"devices": ("twice",) * DEVICES}, "device names are repeated: twice"),
        ({"physical": ("one",)}, "physical has shape"),
    ],
)
def test_a_faulty_table_is_refused(table: LatencyTable, change: dict[str, object], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        replace(table, **change)


def test_an_unknown_source_is_refused(table: LatencyTable) -> None:
    with pytest.raises(ProfileError, match="unknown device 'phone', the table has: device0"):
        fit_sources(table, sources=("phone",), seed=0)


def test_a_source_with_few_measurements_is_refused(table: LatencyTable) -> None:
    latency = table.latency_ms.copy()
    latency[12:, 1] = np.nan
    with pytest.raises(ProfileError, match="'device1' has 12 measured networks, needs at least 30"):
        fit_sources(replace(table, latency_ms=latency), sources=("device1", "device2"), seed=0)


def test_one_source_device_is_enough(table: LatencyTable) -> None:
    sources = fit_sources(table, sources=table.devices[1:2], networks=100, seed=0)
    rows = choose_networks(sources, 8, seed=0)
    assert relative_errors(sources, new_device(table), rows).mean() < 0.15


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90.0])
def test_a_coverage_that_is_no_share_is_refused(sources: SourceModels, table: LatencyTable, coverage: float) -> None:
    with pytest.raises(ValueError, match=r"coverage must lie in \(0, 1\)"):
        fit_target(sources, np.arange(5), new_device(table)[:5], coverage=coverage)
