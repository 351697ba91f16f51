from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from nas.search.exact import SlotSum
from nas.search.quality_model import Observations, QualityModel, Scales, _negative_log_posterior, learn_scales

SIZES = (3, 4, 2)
SCALES = Scales(single=0.4, rated=0.2, slope=0.3, trait=0.25, shared=0.35, pair=0.2, hint=0.5, noise=0.1)


def observations(count: int = 12, *, seed: int = 0, hints: bool = True) -> Observations:
    rng = np.random.default_rng(seed)
    return Observations(
        options=np.stack([rng.integers(size, size=count) for size in SIZES], axis=1),
        scores=rng.normal(3.0, 2.0, size=count),
        errors=rng.uniform(0, 0.3, size=count),
        sizes=SIZES,
        hints=(SlotSum.of([rng.uniform(1, 9, size) for size in SIZES], base=4.0),) if hints else (),
        traits=tuple(rng.integers(2, size=(size, 5)).astype(float) for size in SIZES) if hints else (),
    )


def design(data: Observations, options: np.ndarray, scales: Scales) -> np.ndarray:
    """Features (N, coefficients), each times its prior standard deviation: the model in its textbook form."""
    columns = [10.0 * np.ones(len(options))]
    for slot, size in enumerate(SIZES):
        for option in range(size):
            held = options[:, slot] == option
            columns += [scales.single * held, scales.rated * held * data.weights[slot][option]]
        columns.append(scales.slope * data.weights[slot][options[:, slot]])
    for trait in range(5 if data.traits else 0):
        held = [table[options[:, slot], trait] for slot, table in enumerate(data.traits)]
        columns += [*(scales.trait * row for row in held), scales.shared * sum(held)]
    for slot, (first, second) in enumerate(itertools.pairwise(SIZES)):
        for one in range(first):
            for other in range(second):
                columns.append(scales.pair * ((options[:, slot] == one) & (options[:, slot + 1] == other)))
    columns += [scales.hint * hint.total(options) for hint in data.scaled_hints]
    return np.stack(columns, axis=1).astype(float)


def everything() -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, SIZES), indexing="ij"), axis=-1).reshape(-1, len(SIZES))


def textbook_posterior(data: Observations, scales: Scales) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the qualities of all architectures, by the normal equations over coefficients."""
    features, wanted = design(data, data.options, scales), (data.scores - data.scores.mean()) / data.scores.std()
    noise = scales.noise**2 + (data.errors / data.scores.std()) ** 2 + 1e-8
    precision = features.T @ (features / noise[:, None]) + np.eye(features.shape[1])
    mean = np.linalg.solve(precision, features.T @ (wanted / noise))
    all_features = design(data, everything(), scales)
    covariance = all_features @ np.linalg.solve(precision, all_features.T)
    return data.scores.mean() + data.scores.std() * all_features @ mean, data.scores.var() * covariance


@pytest.mark.parametrize("hints", [True, False])
def test_mean_equals_ridge_regression_on_the_coefficients(hints: bool) -> None:
    data, scales = observations(hints=hints), SCALES
    expected, _ = textbook_posterior(data, scales)
    assert QualityModel(data, scales).mean().total(everything()) == pytest.approx(expected, abs=1e-6)


def test_draws_have_the_posterior_mean_and_covariance() -> None:
    data, scales = observations(), SCALES
    expected, covariance = textbook_posterior(data, scales)
    model, generator = QualityModel(data, scales), np.random.default_rng(0)
    draws = np.stack([model.draw(generator).total(everything()) for _ in range(4000)])
    errors = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - expected) < 5 * errors / np.sqrt(4000)).all()
    assert np.cov(draws.T) == pytest.approx(covariance, abs=0.1 * errors.max() ** 2)


@pytest.mark.parametrize("hints", [True, False])
def test_prediction_equals_the_textbook_posterior(hints: bool) -> None:
    data = observations(hints=hints)
    expected, covariance = textbook_posterior(data, SCALES)
    mean, deviation = QualityModel(data, SCALES).predict(everything())
    assert mean == pytest.approx(expected, abs=1e-6)
    assert deviation == pytest.approx(np.sqrt(np.diag(covariance)), abs=1e-6)


def test_temperature_scales_the_distance_from_the_mean() -> None:
    model = QualityModel(observations(), Scales())
    mean = model.mean().total(everything())
    warm, cool = (
        model.draw(np.random.default_rng(3), temperature=temperature).total(everything()) for temperature in (1.0, 0.25)
    )
    assert cool - mean == pytest.approx(0.25 * (warm - mean), abs=1e-9)


def test_gradient_of_the_evidence_equals_finite_differences() -> None:
    data = observations(20)
    named = {
        "single": 0.3,
        "rated": 0.2,
        "slope": 0.1,
        "trait": 0.2,
        "shared": 0.3,
        "pair": 0.15,
        "hint": 0.4,
        "noise": 0.2,
    }
    _, gradient = _negative_log_posterior(data, named)
    for index, name in enumerate(named):
        values = [
            _negative_log_posterior(data, {**named, name: named[name] * np.exp(step)})[0] for step in (1e-5, -1e-5)
        ]
        assert gradient[index] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-4)


def synthetic(pair_scale: float, noise: float, count: int = 300) -> Observations:
    rng = np.random.default_rng(1)
    sizes = (6,) * 8
    truth = SlotSum.of(
        [rng.normal(size=6) for _ in sizes], [pair_scale * rng.normal(size=(6, 6)) for _ in sizes[1:]], base=5.0
    )
    options = rng.integers(6, size=(count, len(sizes)))
    scores = truth.total(options) + noise * rng.normal(size=count)
    return Observations(options=options, scores=scores, errors=np.zeros(count), sizes=sizes)


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_noise_is_learned(noise: float) -> None:
    data = synthetic(0.0, noise)
    assert learn_scales(data).noise * data.unit == pytest.approx(noise, rel=0.25)


def test_interactions_are_learned_to_matter() -> None:
    plain, interacting = (learn_scales(synthetic(scale, 0.1)) for scale in (0.0, 0.5))
    assert plain.pair / plain.single < 0.1 < interacting.pair / interacting.single


def test_pairs_can_be_left_out() -> None:
    scales = learn_scales(synthetic(0.5, 0.1), pairs=False)
    model = QualityModel(synthetic(0.5, 0.1), scales)
    assert scales.pair == 0.0
    assert not model.mean().has_pairs


def test_equal_scores_give_a_flat_model() -> None:
    data = replace(observations(), scores=np.full(12, 2.5))
    assert QualityModel(data, learn_scales(data)).mean().total(everything()) == pytest.approx(2.5, abs=1e-6)


def test_options_alike_are_expected_to_be_alike() -> None:
    # Slot 0 shows that trait 0 is good; only the option of slot 1 that has it should profit.
    traits = (np.eye(3)[[2, 0, 1]], np.eye(3)[[2, 0, 1]])
    rng = np.random.default_rng(0)
    options = np.stack([rng.integers(3, size=30), np.zeros(30, dtype=np.int64)], axis=1)
    data = Observations(
        options=options,
        scores=(options[:, 0] == 1) + 0.01 * rng.normal(size=30),
        errors=np.zeros(30),
        sizes=(3, 3),
        traits=traits,
    )
    mean = QualityModel(data, Scales(single=0.1, trait=0.1, shared=0.5, pair=0.0, noise=0.05)).mean()
    assert mean.slots[1][1] > mean.slots[1][2] + 0.1
