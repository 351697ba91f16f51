"""Fitted constants: planted ones come back, unseen ones keep their prior, odd samples do not tilt the fit."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

import search_spaces
from latency_models import devices
from latency_models.features import block_features
from latency_models.predictors.roofline import RooflinePredictor
from latency_models.rates import FittedRates, RateSample, fit_rates
from nas.core.errors import ConfigError
from nas.core.scenario import Scenario
from search_spaces.operators import sample

if TYPE_CHECKING:
    from latency_models.features import BlockFeatures
    from nas.core.workload import Workload

PHONE = devices.get("iphone15_pro")
FULL = Scenario(frames=8, height=512, width=512, denoising_steps=4)
# What the planted phone has more or less of than its file says.
PLANTED = {"peak_flops": 0.6, "memory_bandwidth": 1.8, "operation_overhead_ms": 2.0, "call_overhead_ms": 1.5}


def planted_phone() -> devices.DeviceSpec:
    engine = PHONE.unit("neural_engine")
    changes = {
        name: replace(getattr(engine, name), value=getattr(engine, name).value * factor)
        for name, factor in PLANTED.items()
    }
    others = tuple(unit for unit in PHONE.units if unit.compute_unit != "neural_engine")
    return replace(PHONE, units=(replace(engine, **changes), *others))


def time_ms(device: devices.DeviceSpec, workload: Workload) -> float:
    price = RooflinePredictor(device).price(workload)
    return price.overhead_ms + sum(block.latency_ms for block in price.blocks)


def alone_ms(device: devices.DeviceSpec, block: BlockFeatures, workload: Workload) -> float:
    price = RooflinePredictor(device).price(workload)
    return price.overhead_ms + next(one.latency_ms for one in price.blocks if one.block == block.block)


@pytest.fixture(scope="module")
def workloads() -> list[Workload]:
    space = search_spaces.get("snapgen_v")
    streams = Random(5)
    drawn = [space.smallest(), *(sample(space, streams) for _ in range(7))]
    return [space.workload(architecture, FULL) for architecture in drawn]


@pytest.fixture(scope="module")
def samples(workloads: list[Workload]) -> list[RateSample]:
    """Blocks of four networks alone, and the networks whole, on the planted phone with 2 % noise."""
    truth, noise = planted_phone(), np.random.default_rng(0)
    found = []
    for workload in workloads[:4]:
        features = block_features(workload)
        found.append(RateSample(device=PHONE, blocks=features, measured_ms=time_ms(truth, workload)))
        for block in features[:: max(1, len(features) // 12)]:
            found.append(RateSample(device=PHONE, blocks=(block,), measured_ms=alone_ms(truth, block, workload)))
    return [replace(one, measured_ms=one.measured_ms * exp(0.02 * noise.standard_normal())) for one in found]


@pytest.fixture(scope="module")
def fitted(samples: list[RateSample]) -> FittedRates:
    return fit_rates(samples)


def test_planted_constants_come_back_within_their_stated_spread(fitted: FittedRates) -> None:
    by_name = {constant.name: constant for constant in fitted.constants}
    for name, factor in PLANTED.items():
        constant = by_name[f"neural_engine.{name}"]
        assert abs(log(constant.factor / factor)) < 4.0 * constant.log_sd + 0.1, constant
        assert constant.log_sd < constant.prior_log_sd


def test_fit_predicts_networks_it_has_not_seen(fitted: FittedRates, workloads: list[Workload]) -> None:
    truth, phone = planted_phone(), fitted.device(PHONE)
    for workload in workloads[4:]:
        before, after = time_ms(PHONE, workload), time_ms(phone, workload)
        measured = time_ms(truth, workload)
        assert after == pytest.approx(measured, rel=0.04)
        assert abs(log(after / measured)) < abs(log(before / measured))


def test_prediction_and_fitted_device_agree(fitted: FittedRates, workloads: list[Workload]) -> None:
    workload = workloads[5]
    asked = RateSample(device=PHONE, blocks=block_features(workload), measured_ms=1.0)
    centre, log_sd = fitted.predict(asked)
    assert centre == pytest.approx(time_ms(fitted.device(PHONE), workload), rel=1e-9)
    assert 0.0 < log_sd < 0.5


def test_a_constant_no_sample_speaks_of_keeps_the_file_s_value(fitted: FittedRates) -> None:
    assert not any(constant.name.startswith("gpu.") for constant in fitted.constants)
    assert fitted.device(PHONE).unit("gpu").peak_flops == PHONE.unit("gpu").peak_flops


def test_fitted_figures_say_that_they_are(fitted: FittedRates, samples: list[RateSample]) -> None:
    figure = fitted.device(PHONE).unit("neural_engine").peak_flops
    assert figure.kind == "measured"
    assert figure.source.startswith(f"fitted on {len(samples)} measurements, from: ")
    assert figure.log_sd < PHONE.unit("neural_engine").peak_flops.log_sd


def test_a_tenth_of_throttled_samples_does_not_tilt_the_fit(
    samples: list[RateSample], workloads: list[Workload]
) -> None:
    odd = [replace(one, measured_ms=4.0 * one.measured_ms) if i % 10 == 3 else one for i, one in enumerate(samples)]
    phone = fit_rates(odd).device(PHONE)
    truth = planted_phone()
    for workload in workloads[4:]:
        assert time_ms(phone, workload) == pytest.approx(time_ms(truth, workload), rel=0.1)


def test_one_chip_s_rows_tell_about_another_in_the_same_direction(workloads: list[Workload]) -> None:
    # Every chip of the source is twice as fast as its file; the one left out is not named in any row.
    features = [block_features(workload) for workload in workloads[:1]]
    chips = [devices.get(name) for name in ("iphone12", "iphone13", "iphone16")]
    rows = [
        RateSample(device=chip, blocks=blocks, measured_ms=0.5 * time_ms(chip, workload))
        for chip in chips
        for blocks, workload in zip(features, workloads[:1], strict=True)
    ]
    asked = RateSample(device=devices.get("mac_m2"), blocks=features[0], measured_ms=1.0)
    before, _ = fit_rates(rows[:1]).predict(asked)
    centre, log_sd = fit_rates(rows).predict(asked)
    truth = 0.5 * time_ms(asked.device, workloads[0])
    assert abs(log(centre / truth)) < 0.5 * abs(log(2.0))
    assert abs(log(centre / truth)) <= abs(log(before / truth)) + 1e-9
    assert abs(log(centre / truth)) < 2.0 * log_sd


def test_no_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be fitted to no samples"):
        fit_rates([])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="above 0 ms and finite"):
        RateSample(device=PHONE, blocks=(), measured_ms=bad)
