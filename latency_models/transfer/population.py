"""The population of covariances seen on source devices: the prior for the covariance of a new device.

Every source device plays the new one in turn. Its covariance, with the others as sources, is fitted on a few hundred of
its measurements; a new device with a handful then only has to say which of these it resembles.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from latency_models.transfer.kernels import (
    JITTER,
    LEVEL_VARIANCE,
    NAMES,
    Coordinates,
    Parts,
    log_likelihood,
    parts,
    terms,
)
from latency_models.transfer.posterior import Population, reading_precisions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Centre and spread of log hyperparameters before any device is seen: log latency varies by a tenth to a half, most of
# it shared; the spread of 1.5 is a factor of 20 both ways at two standard deviations.
_CENTRE = np.log(np.array([0.05, 0.01, 0.01, 0.01, 0.001, 2.0, 4.0]))
_SPREAD = np.array([1.5, 1.5, 1.5, 1.5, 1.5, 0.7, 0.7])
_BOUND = 4.0  # spreads either side of the centre
_PSEUDO_DEVICES = 3.0  # weight of that prior against the source devices, in devices
_DRAWS = 64
_ROUNDS = 3  # of hyperparameters and readings' precisions in turn


def fit_covariance(at: Coordinates, log_latency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log hyperparameters of highest posterior density for one device.

    Args:
        at: Where the measured networks lie.
        log_latency: (n,) natural logarithms of milliseconds.
    """
    from scipy.optimize import minimize

    mixed = parts(at, at)
    target = log_latency - np.median(log_latency)
    precision = np.ones(len(target))
    theta: NDArray[np.float64] = _CENTRE
    bounds = list(zip(_CENTRE - _BOUND * _SPREAD, _CENTRE + _BOUND * _SPREAD, strict=True))
    for _ in range(_ROUNDS):
        loss = partial(_loss, mixed=mixed, target=target, precision=precision)
        found = minimize(loss, theta, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 60})
        theta = np.asarray(found.x, dtype=float)
        precision = _precisions(theta, mixed, target, precision)
    return theta


def _loss(
    theta: NDArray[np.float64], mixed: Parts, target: NDArray[np.float64], precision: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    value, gradient = log_likelihood(theta, mixed, target, precision)
    offset = (theta - _CENTRE) / _SPREAD
    return -value + 0.5 * float(offset @ offset), -gradient + offset / _SPREAD


def _precisions(
    theta: NDArray[np.float64], mixed: Parts, target: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    matrix = np.sum(terms(theta, mixed), axis=0) + LEVEL_VARIANCE + np.diag(np.exp(theta[4]) / precision + JITTER)
    inverse = np.asarray(np.linalg.inv(matrix), dtype=float)
    updated = reading_precisions(theta[4:5], inverse[None], (inverse @ target)[None], precision[None])
    return updated.reshape(-1)


def spread_population(fitted: Sequence[NDArray[np.float64]], *, rng: np.random.Generator) -> Population:
    """Return the population that the fitted covariances were drawn from, and draws of it.

    Mean and covariance are shrunk towards the prior before any device, which weighs as much as three devices.
    """
    seen = np.array(fitted).reshape(-1, len(NAMES))
    count = len(seen)
    mean = (seen.sum(axis=0) + _PSEUDO_DEVICES * _CENTRE) / (count + _PSEUDO_DEVICES)
    offsets = seen - mean
    covariance = (offsets.T @ offsets + _PSEUDO_DEVICES * np.diag(_SPREAD**2)) / (count + _PSEUDO_DEVICES)
    drawn = rng.multivariate_normal(mean, covariance, size=_DRAWS)
    return Population(mean=mean, covariance=covariance, thetas=np.vstack([seen, drawn]), devices=count)
