from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from nas.search.exact import SlotSum
from nas.search.observations import residual
from nas.search.quality_model import Observations, Posterior, QualityModel, Scales, learn_scales
from nas.search.scales import negative_log_posterior

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
    names = ["single", "rated", "slope", "trait", "shared", "pair", "hint", "residual", "noise"]
    values = np.array([0.3, 0.2, 0.1, 0.2, 0.3, 0.15, 0.4, 0.35, 0.2, 0.4, 0.7, 1.1])
    _, gradient = negative_log_posterior(data, names, values)
    for index in range(len(values)):
        steps = np.exp(1e-5 * (np.arange(len(values)) == index))
        high, low = (negative_log_posterior(data, names, one)[0] for one in (values * steps, values / steps))
        assert gradient[index] == pytest.approx((high - low) / 2e-5, rel=1e-4, abs=1e-4)


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


def test_believing_one_prediction_sharpens_the_others_as_conditioning_does() -> None:
    data = observations()
    _, covariance = textbook_posterior(data, SCALES)
    posterior = Posterior(QualityModel(data, SCALES), everything())
    means = posterior.mean.copy()
    posterior.believe(5)
    noise = (SCALES.noise**2 + 1e-8) * data.unit**2
    expected = np.diag(covariance) - covariance[5] ** 2 / (covariance[5, 5] + noise)
    assert posterior.deviation == pytest.approx(np.sqrt(expected), abs=1e-6)
    assert (posterior.mean == means).all()


def test_residual_is_the_product_over_slots() -> None:
    data = observations(hints=False)
    first, second = data.features_of(everything()[:5]), data.features_of(everything())
    decays = np.array([0.2, 0.5, 1.1])
    factors = [np.full((size, size), np.exp(-decay)) for size, decay in zip(SIZES, decays, strict=True)]
    for factor in factors:
        np.fill_diagonal(factor, 1.0)
    expected = np.kron(np.kron(factors[0], factors[1]), factors[2])  # everything() counts the last slot up first
    assert residual(first, second, decays) == pytest.approx(expected[:5])


def gated(count: int) -> tuple[Observations, np.ndarray, np.ndarray]:
    """A quality that is worth nothing unless two slots far apart hold options that go together."""
    rng = np.random.default_rng(5)
    table, gate = [rng.uniform(0, 1, 4) for _ in range(5)], rng.uniform(size=(4, 4)) < 0.5
    options = rng.integers(4, size=(count + 300, 5))
    sums = sum(row[column] for row, column in zip(table, options.T, strict=True))
    scores = sums * gate[options[:, 0], options[:, 4]]
    known = Observations(options=options[:count], scores=scores[:count], errors=np.zeros(count), sizes=(4,) * 5)
    return known, options[count:], scores[count:]


def test_residual_learns_what_is_no_sum() -> None:
    data, unseen, expected = gated(150)
    errors = []
    for allowed in (False, True):
        scales = learn_scales(data, residual=allowed)
        assert (scales.residual > 0) is allowed
        errors.append(float(np.std(QualityModel(data, scales).predict(unseen)[0] - expected)))
    assert errors[1] < 0.6 * errors[0]


def test_noise_and_sums_alone_leave_no_residual() -> None:
    assert learn_scales(synthetic(0.5, 0.3)).residual == 0.0


def test_draws_and_mean_agree_when_there_is_a_residual() -> None:
    data, unseen, _ = gated(60)
    scales = Scales(single=0.3, pair=0.1, noise=0.1, residual=0.8, decays=(0.3,) * 5)
    model, generator = QualityModel(data, scales), np.random.default_rng(0)
    draws = np.stack([model.draw(generator).total(unseen[:20]) for _ in range(2000)])
    errors = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - model.mean().total(unseen[:20])) < 5 * errors).all()
