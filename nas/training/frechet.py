"""Distances between sets of clips: Frechet on features, sliced Wasserstein on pixels, and diversity; numpy and scipy.

scipy is imported inside the functions that use it: training and sampling do not need it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PROJECTIONS = 128
_QUANTILES = (np.arange(256) + 0.5) / 256
_PROJECTION_SEED = 0


def moments(features: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Mean (D,) and covariance (D, D) of features (N, D).

    Raises:
        ValueError: There are fewer than two rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"moments need features of shape (N, D) with N of at least 2, got {features.shape}")
    rows = features.astype(np.float64)
    return rows.mean(axis=0), np.cov(rows, rowvar=False)


def frechet_distance(mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats) -> float:
    """Squared Frechet distance of two normal distributions: |m - n|^2 + tr(C + D - 2 (C D)^(1/2)).

    The trace of the root is the sum of the roots of the eigenvalues of C^(1/2) D C^(1/2), which are real; so no
    imaginary part has to be dropped when a covariance is singular.

    Source:
        Dowson and Landau 1982; Heusel et al. 2017 (arXiv 1706.08500), where it compares sets of images.
    """
    import scipy.linalg

    values, vectors = scipy.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    shared = scipy.linalg.eigvalsh(root @ other_covariance @ root)
    cross = np.sqrt(np.clip(shared, 0.0, None)).sum()
    gap = mean - other_mean
    return float(max(gap @ gap + np.trace(covariance) + np.trace(other_covariance) - 2.0 * cross, 0.0))


def projected_quantiles(video: NDArray[np.uint8]) -> Floats:
    """Quantiles of clips (N, ...) along fixed random directions of pixel space: (256, PROJECTIONS).

    Pixels count 0-1 and directions have a root mean square of 1, so that a clip changed by d everywhere at random
    moves by about d.
    """
    flat = video.reshape(len(video), -1)
    directions = np.random.default_rng(_PROJECTION_SEED).standard_normal((flat.shape[1], PROJECTIONS), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    projected = np.concatenate([part.astype(np.float32) @ directions for part in np.array_split(flat, _parts(flat))])
    return np.quantile(projected / 255.0, _QUANTILES, axis=0).astype(np.float64)


def sliced_wasserstein(quantiles: Floats, other: Floats) -> float:
    """Root mean square over directions and quantiles of what ``projected_quantiles`` gives for two sets.

    Source:
        Rabin et al. 2011: the Wasserstein-2 distance in one dimension is that of the quantile functions.
    """
    return float(np.sqrt(np.mean((quantiles - other) ** 2)))


def diversity(video: NDArray[np.uint8], groups: NDArray[np.int64]) -> float:
    """Root mean square difference of pixels (0-1) between clips of one group, such as a caption; 0 without a pair.

    From the variance within groups: two independent draws differ by twice the variance.
    """
    total, pairs = 0.0, 0
    for group in np.unique(groups):
        rows = video[groups == group].reshape((groups == group).sum(), -1).astype(np.float32) / 255.0
        if len(rows) > 1:
            total += 2.0 * float(rows.var(axis=0, ddof=1).mean()) * len(rows)
            pairs += len(rows)
    return float(np.sqrt(total / pairs)) if pairs else 0.0


def _parts(flat: NDArray[np.uint8]) -> int:
    return max(1, len(flat) // 256)
