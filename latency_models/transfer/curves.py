"""Noise-free latencies of all candidates on a source device, from a few hundred measured networks.

A source model is the mean of a Gaussian process (linear plus smooth kernel, chosen in closed form by leave-one-out
error) and of ridge regression with boosted trees on its residual. Both see log latencies. scikit-learn and scipy are
imported where they are used, to keep start-up short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latency_models.transfer.kernels import squared_distances

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTHS_SQUARED = (1.0, 4.0, 16.0)  # features are scaled to a typical squared distance of 2
_CONSTANT = 1e-9  # relative spread below which a column is constant
_NOISE_RATIOS = 10.0 ** np.arange(-5.0, 1.1, 0.5)


def scaled_features(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre the columns and scale them so that two random networks are at squared distance 2 on average.

    Columns of zeros and ones keep their relative spread, all others get the same; each of the two kinds makes up half
    of the squared distance.
    """
    varying = features[:, features.std(axis=0) > _CONSTANT * np.abs(features).max(axis=0)]
    binary = np.all((varying == 0) | (varying == 1), axis=0)
    numbers = varying[:, ~binary]
    blocks = [block for block in (varying[:, binary], numbers / numbers.std(axis=0)) if block.shape[1]]
    if not blocks:
        return np.zeros((len(features), 1))
    centred = [block - block.mean(axis=0) for block in blocks]
    return np.hstack([block / np.sqrt(np.mean(np.sum(block**2, axis=1)) * len(blocks)) for block in centred])


def source_curve(
    own: NDArray[np.float64], latency_ms: NDArray[np.float64], *, networks: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Predict the log latency of all candidates on one device.

    Args:
        own: (N, F) scaled features.
        latency_ms: (N,) measured, NaN where not.
        networks: How many measured networks to use, drawn at random.
        rng: Draws the networks and seeds the trees.

    Returns:
        (N,) predicted log milliseconds, and the rows that were used.
    """
    measured = np.flatnonzero(np.isfinite(latency_ms))
    rows = np.sort(rng.permutation(measured)[:networks])
    target = np.log(latency_ms[rows])
    level = float(target.mean())
    smooth = _gaussian_process(own, rows, target - level)
    boosted = _boosted_ridge(own, rows, target - level, seed=int(rng.integers(2**31)))
    return level + (smooth + boosted) / 2.0, rows


def _kernel(a: NDArray[np.float64], b: NDArray[np.float64], length_squared: float) -> NDArray[np.float64]:
    # A wide smooth kernel varies little over the candidates, so its share grows with the squared length.
    smooth = (1.0 + length_squared) * np.exp(-0.5 * squared_distances(a, b) / length_squared)
    result: NDArray[np.float64] = smooth + a @ b.T
    return result


def _gaussian_process(
    own: NDArray[np.float64], rows: NDArray[np.intp], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Kernel ridge with length and noise of least leave-one-out error (Rasmussen & Williams 2006, eq. 5.12)."""
    from scipy.linalg import eigh

    seen = own[rows]
    best = (np.inf, _LENGTHS_SQUARED[0], np.zeros_like(target))
    for length_squared in _LENGTHS_SQUARED:
        values, vectors = eigh(_kernel(seen, seen, length_squared))
        projected = vectors.T @ target
        for noise in _NOISE_RATIOS * float(values.mean()):
            weights = vectors @ (projected / (values + noise))
            diagonal = (vectors**2) @ (1.0 / (values + noise))
            error = float(np.mean((weights / diagonal) ** 2))
            if error < best[0]:
                best = (error, length_squared, weights)
    _, length_squared, weights = best
    result: NDArray[np.float64] = _kernel(own, seen, length_squared) @ weights
    return result


def _boosted_ridge(
    own: NDArray[np.float64], rows: NDArray[np.intp], target: NDArray[np.float64], *, seed: int
) -> NDArray[np.float64]:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV

    linear = RidgeCV(np.logspace(-5, 2, 15)).fit(own[rows], target)
    trees = HistGradientBoostingRegressor(
        max_iter=200, learning_rate=0.08, max_leaf_nodes=15, min_samples_leaf=10, random_state=seed
    ).fit(own[rows], target - linear.predict(own[rows]))
    result: NDArray[np.float64] = linear.predict(own) + trees.predict(own)
    return result
