"""Weights of calibration items when the items to be predicted are drawn from elsewhere.

scikit-learn is imported inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]


def likelihood_ratio_weights(
    calibration: ArrayLike, target: ArrayLike, *, penalty: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Return how much likelier each item is among the targets than among the calibration items: (n,), (m,).

    A logistic classifier tells the two sets apart on standardised features; its odds, divided by the share of the sets,
    are the ratio of densities. Give the first to ``weighted_quantile`` as weights and the second as own weights.

    Args:
        calibration: Features of the calibration items, shape (n, d).
        target: Features of items as they are going to be predicted, shape (m, d); need not be measured.
        penalty: Strength of the classifier's ridge penalty; a high one gives weights near 1.

    Raises:
        ValueError: The features differ in number, or a set is empty.

    Source:
        Tibshirani, Barber, Candès, Ramdas, "Conformal prediction under covariate shift" (NeurIPS 2019), section 2.3.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    here, there = _features(calibration, target)
    labels = np.repeat([0, 1], [len(here), len(there)])
    # Both sets count alike in the classifier, so that its odds are the ratio of densities.
    share = np.where(labels == 1, len(here) / len(there), 1.0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0 / penalty, max_iter=1000))
    model.fit(np.vstack([here, there]), labels, logisticregression__sample_weight=share)
    return np.exp(model.decision_function(here)), np.exp(model.decision_function(there))


def _features(calibration: ArrayLike, target: ArrayLike) -> tuple[FloatArray, FloatArray]:
    here, there = np.asarray(calibration, dtype=float), np.asarray(target, dtype=float)
    if here.ndim != 2 or there.ndim != 2 or here.shape[1] != there.shape[1] or not len(here) or not len(there):
        raise ValueError(f"features must be (n, d) and (m, d) with n, m above 0, got {here.shape} and {there.shape}")
    return here, there
