"""Predictors to compare with: from multiply-adds alone to a Gaussian process over source devices.

Each one sees the features of all networks, the predicted latencies of the source devices and ``k`` measurements of the
new device; ``SourceCurves`` are the one-off source models. scikit-learn is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from few_shot_gp import choose_by_variance, factor_block, fit_process, scaled_block, standardised_block

if TYPE_CHECKING:
    from devbench_features import Features

_RIDGE_STRENGTHS = 10.0 ** np.arange(-4.0, 4.1, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What a predictor says of some networks: median, 90 % interval, and a bound that 80 % stay below.

    Limits are None where it has no interval.
    """

    median_ms: np.ndarray
    low_ms: np.ndarray | None = None
    high_ms: np.ndarray | None = None
    upper_ms: np.ndarray | None = None
    in_domain: np.ndarray | None = None


Predict = Callable[[np.ndarray], Prediction]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Background:
    """All that is known before the new device is measured.

    Attributes:
        features: Columns of every network, one-hot and aggregates side by side.
        one_hot: The one-hot columns.
        work: Multiply-adds in millions.
        source_log_ms: Predicted log latency of every network on every source device.
        blocks: Coordinates of the Gaussian processes: one-hot, aggregates, source factors.
    """

    features: np.ndarray
    one_hot: np.ndarray
    work: np.ndarray
    source_log_ms: np.ndarray
    blocks: tuple[np.ndarray, np.ndarray, np.ndarray]


def make_background(features: Features, rows: np.ndarray, source_log_ms: np.ndarray) -> Background:
    """Return the background of the networks ``rows``; ``source_log_ms`` has a row for each of them."""
    work = features.work[rows]
    return Background(
        features=features.matrix[rows],
        one_hot=features.one_hot[rows],
        work=work,
        source_log_ms=source_log_ms,
        blocks=(
            scaled_block(features.one_hot[rows]),
            standardised_block(features.aggregates[rows]),
            factor_block(source_log_ms, np.log(work)),
        ),
    )


def source_curve(matrix: np.ndarray, latency_ms: np.ndarray, *, networks: int, rng: np.random.Generator) -> np.ndarray:
    """Predict the log latency of every network on one source device from ``networks`` of its measurements.

    Ridge regression with boosted trees on what it leaves.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.sort(rng.permutation(np.flatnonzero(np.isfinite(latency_ms)))[:networks])
    target = np.log(latency_ms[rows])
    linear = make_pipeline(StandardScaler(), RidgeCV(_RIDGE_STRENGTHS)).fit(matrix[rows], target)
    trees = HistGradientBoostingRegressor(
        max_iter=100, learning_rate=0.08, max_leaf_nodes=15, random_state=int(rng.integers(2**31))
    )
    trees.fit(matrix[rows], target - linear.predict(matrix[rows]))
    return linear.predict(matrix) + trees.predict(matrix)


def constant(_: Background, _rows: np.ndarray, latency_ms: np.ndarray, *, seed: int) -> Predict:
    """Say the median for every network."""
    del seed
    middle = float(np.median(latency_ms))
    return lambda rows: Prediction(median_ms=np.full(len(rows), middle))


def flops_linear(background: Background, measured: np.ndarray, latency_ms: np.ndarray, *, seed: int) -> Predict:
    """Fit a straight line through multiply-adds, of non-negative slope."""
    del seed
    work = background.work
    line = _rising_line(work[measured], latency_ms)
    return lambda rows: Prediction(median_ms=_positive(line[0] + line[1] * work[rows], latency_ms))


def additive_table(background: Background, measured: np.ndarray, latency_ms: np.ndarray, *, seed: int) -> Predict:
    """Fit a table of one cost per decision: ridge regression on the one-hot columns, strength by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    del seed
    model = RidgeCV(_RIDGE_STRENGTHS).fit(background.one_hot[measured], latency_ms)
    return lambda rows: Prediction(median_ms=_positive(model.predict(background.one_hot[rows]), latency_ms))


def boosting(background: Background, measured: np.ndarray, latency_ms: np.ndarray, *, seed: int) -> Predict:
    """Boost regression trees on all features, in log latency."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=150, max_depth=3, learning_rate=0.1, subsample=0.8, random_state=seed
    )
    model.fit(background.features[measured], np.log(latency_ms))
    return lambda rows: Prediction(median_ms=np.exp(model.predict(background.features[rows])))


def gaussian_process(background: Background, measured: np.ndarray, latency_ms: np.ndarray, *, seed: int) -> Predict:
    """Fit a Gaussian process on one-hot and aggregate features, without source devices."""
    del seed
    return _process(background.blocks[:2], measured, latency_ms)


def factors_process(background: Background, measured: np.ndarray, latency_ms: np.ndarray, *, seed: int) -> Predict:
    """Fit a Gaussian process on source-device factors and the networks' own features: the best known before."""
    del seed
    return _process(background.blocks, measured, latency_ms)


def nearest_device(background: Background, measured: np.ndarray, latency_ms: np.ndarray, *, seed: int) -> Predict:
    """Rescale the one source device whose line fits the measurements best, left out one at a time."""
    del seed
    source = np.exp(background.source_log_ms)
    errors = [_left_out_error(column[measured], latency_ms) for column in source.T]
    best = int(np.argmin(errors))
    line = _rising_line(source[measured, best], latency_ms)
    return lambda rows: Prediction(median_ms=_positive(line[0] + line[1] * source[rows, best], latency_ms))


def source_ridge(background: Background, measured: np.ndarray, latency_ms: np.ndarray, *, seed: int) -> Predict:
    """Ridge regression on the log latencies of the source devices and on log work, strength by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    del seed
    columns = np.column_stack([background.source_log_ms, np.log(background.work)])
    scaled = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    model = RidgeCV(_RIDGE_STRENGTHS).fit(scaled[measured], np.log(latency_ms))
    return lambda rows: Prediction(median_ms=np.exp(model.predict(scaled[rows])))


BASELINES: dict[str, Callable[..., Predict]] = {
    "gp_factors_chosen": factors_process,
    "gp_factors": factors_process,
    "gp": gaussian_process,
    "source_ridge": source_ridge,
    "nearest": nearest_device,
    "boosting": boosting,
    "additive": additive_table,
    "flops": flops_linear,
    "constant": constant,
}


def choose_for_process(
    background: Background, candidates: np.ndarray, count: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Return the networks that ``gp_factors_chosen`` measures: greatest variance first."""
    return choose_by_variance(background.blocks, candidates, count, rng=rng)


def _process(blocks: tuple[np.ndarray, ...], measured: np.ndarray, latency_ms: np.ndarray) -> Predict:
    fitted = fit_process(blocks, measured, latency_ms)

    def predict(rows: np.ndarray) -> Prediction:
        median, low, high, upper = fitted.predict(rows)
        return Prediction(median_ms=median, low_ms=low, high_ms=high, upper_ms=upper)

    return predict


def _rising_line(at: np.ndarray, latency_ms: np.ndarray) -> tuple[float, float]:
    spread = float(np.sum((at - at.mean()) ** 2))
    slope = float(np.sum((at - at.mean()) * (latency_ms - latency_ms.mean()))) / spread if spread > 0 else 0.0
    slope = max(slope, 0.0)
    return float(latency_ms.mean() - slope * at.mean()), slope


def _left_out_error(at: np.ndarray, latency_ms: np.ndarray) -> float:
    errors = []
    for index in range(len(at)):
        kept = np.arange(len(at)) != index
        level, slope = _rising_line(at[kept], latency_ms[kept])
        errors.append(abs(level + slope * at[index] - latency_ms[index]) / latency_ms[index])
    return float(np.mean(errors))


def _positive(predicted_ms: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
    """Keep a linear extrapolation above a tenth of the fastest measurement: no time is zero or less."""
    return np.maximum(predicted_ms, 0.1 * latency_ms.min())
