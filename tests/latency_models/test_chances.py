"""One-sided ends hold with the stated probability; table, estimate and solver arrays agree on them."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from latency_models import Demands, compile_cost_table
from latency_models.chances import ErrorLaw, chance_below, split_level, upper_ratios
from latency_models.domain import fit_domain
from latency_models.predictors.block_table import CalibratedPredictor
from latency_models.pricing import IntervalRatios, predict
from nas.pipeline.costs import additive_costs
from tests.latency_models.test_cost_table import PIPELINES, calibrated, roofline

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from tests.latency_models.conftest import SmallSpace


def law(errors: list[float]) -> ErrorLaw:
    return ErrorLaw(errors=tuple((error,) for error in errors))


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_fresh_errors_keep_the_quantile_as_often_as_stated(level: float) -> None:
    rng = np.random.default_rng(0)
    draws = rng.gumbel(size=(3000, 25))  # skewed: an end made of absolute errors would miss by far
    kept = np.mean([row[24] <= law(row[:24].tolist()).quantile(level) for row in draws])
    assert kept == pytest.approx(level, abs=3 * (level * (1 - level) / 3000) ** 0.5)


def test_beyond_what_the_items_can_tell_the_quantile_goes_on_as_students() -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(2000, 25))
    kept = np.mean([row[24] <= law(row[:24].tolist()).quantile(0.99) for row in draws])
    assert kept == pytest.approx(0.99, abs=0.007)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=30), st.floats(0.02, 0.98), st.floats(0.001, 0.01))
def test_quantiles_rise_with_the_level(errors: list[float], level: float, step: float) -> None:
    assert law(errors).quantile(level) <= law(errors).quantile(level + step) + 1e-12


def test_several_passes_of_an_item_count_once() -> None:
    one = ErrorLaw(errors=((0.1,), (0.2,), (0.3,)))
    repeated = ErrorLaw(errors=((0.1,) * 5, (0.2,), (0.3,) * 2))
    for level in (0.25, 0.5, 0.75):  # whole places among three items
        assert repeated.quantile(level) == pytest.approx(one.quantile(level))


def test_without_held_out_errors_the_interval_is_that_of_a_log_normal() -> None:
    ratios = IntervalRatios(coverage=0.9, latency=(1 / 3, 3.0), outside=(1 / 3, 3.0), memory=(0.5, 2.0))
    assert upper_ratios(ratios, 0.95).latency == pytest.approx(3.0)
    assert upper_ratios(ratios, 0.99).memory == pytest.approx(exp(norm.ppf(0.99) * log(2.0) / norm.ppf(0.95)))
    assert upper_ratios(ratios, 0.5).latency == pytest.approx(1.0)


@given(st.floats(1.001, 50.0))
def test_the_chance_of_a_limit_is_the_level_whose_end_it_is(limit: float) -> None:
    found = chance_below(lambda level: exp(norm.ppf(level)), limit)
    assert found == pytest.approx(min(norm.cdf(log(limit)), 0.9999), abs=1e-7)


def test_limits_share_the_probability_of_a_miss() -> None:
    assert split_level(0.95, 2) == pytest.approx(0.975)
    assert split_level(0.95, 1) == split_level(0.95, 0) == pytest.approx(0.95)


def with_laws(space: SmallSpace, scenario: Scenario) -> CalibratedPredictor:
    """A predictor with held-out errors, and a domain that some networks lie beyond."""
    plain = calibrated()
    assert isinstance(plain, CalibratedPredictor)
    everyone = list(space.all())
    sparse = [plain.price(space.workload(item, scenario)) for item in everyone if 0 in space.to_options(item)]
    errors = np.random.default_rng(2).normal(0.02, 0.05, size=(24, 3))
    ratios = replace(
        plain.ratios,
        domain=fit_domain(sparse[:12]),
        latency_law=ErrorLaw(errors=tuple(map(tuple, errors.tolist()))),
        memory_law=ErrorLaw(errors=tuple((error,) for error in errors[:, 0].tolist())),
    )
    return CalibratedPredictor(model=replace(plain.model, ratios=ratios))


@pytest.mark.parametrize("name", PIPELINES)
def test_table_estimate_and_predictor_agree_on_one_sided_ends(space: SmallSpace, scenario: Scenario, name: str) -> None:
    predictor, pipeline = with_laws(space, scenario), PIPELINES[name]
    table = compile_cost_table(space, scenario, predictor, pipeline, Demands(level=0.95))
    everyone = list(space.all())
    scores = table.score(np.array([space.to_options(item) for item in everyone]))
    direct = [predict(predictor, space.workload(item, scenario), scenario, pipeline, level=0.95) for item in everyone]
    single = [table.estimate(item) for item in everyone]
    for costs in (direct, single):
        uppers = [cost.upper for cost in costs if cost.upper is not None]
        np.testing.assert_allclose(scores.latency_upper_ms, [upper.latency_ms for upper in uppers], rtol=1e-12)
        np.testing.assert_allclose(scores.memory_upper_mb, [upper.memory_mb for upper in uppers], rtol=1e-12)
    assert (scores.latency_upper_ms >= scores.latency_ms).all()
    assert not scores.in_domain.all()


def test_solvers_work_on_the_ends_that_limits_are_held_against(space: SmallSpace, scenario: Scenario) -> None:
    options = np.array([space.to_options(item) for item in space.all()])
    for pipeline in PIPELINES.values():
        for predictor in (roofline(), calibrated()):
            table = compile_cost_table(space, scenario, predictor, pipeline, Demands(level=0.97))
            scores, costs = table.score(options), additive_costs(table).score(options)
            np.testing.assert_allclose(costs.latency_high_ms, scores.latency_upper_ms, rtol=1e-12)
            np.testing.assert_allclose(costs.memory_high_mb, scores.memory_upper_mb, rtol=1e-12)


def test_a_level_below_one_half_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0.5, 1\), got 0.4"):
        Demands(level=0.4)
