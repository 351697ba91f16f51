"""Gaussian process on blocks of coordinates, hyperparameters by marginal likelihood: the strongest simple baseline.

Log latency is a free level plus, for every block, a linear and a smooth (squared exponential) part with weights of
their own, plus noise. With one-hot and aggregate blocks it is the peer called "GP", with source-device factors as one
more block "GP, factors + own features". scipy is imported where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEVEL_VARIANCE = 4.0  # of the device's overall speed in log units: practically free
_START_WEIGHT, _START_SMOOTH, _START_NOISE = np.log(0.05), np.log(0.02), np.log(0.03**2)
_WEIGHT_SPREAD, _LENGTH_SPREAD, _NOISE_SPREAD = 2.0, 0.7, 1.0
_BOTH_SIDES_90, _ONE_SIDE_80 = 1.6449, 0.8416  # standard deviations that hold 90 % between, 80 % below


def scaled_block(columns: np.ndarray) -> np.ndarray:
    """Centre the columns and scale the block so that two random rows are at squared distance 2 on average."""
    centred = columns - columns.mean(axis=0)
    size = np.sqrt(np.mean(np.sum(centred**2, axis=1)))
    return centred / size if size > 0 else centred


def standardised_block(columns: np.ndarray) -> np.ndarray:
    """Give every column the same spread, then scale as ``scaled_block`` does."""
    spread = columns.std(axis=0)
    kept = columns[:, spread > 1e-9 * np.abs(columns).max()]
    return scaled_block(kept / kept.std(axis=0))


def factor_block(source_log_ms: np.ndarray, log_work: np.ndarray, *, rank: int = 8) -> np.ndarray:
    """Return the leading principal components of the sources' log latencies, with log work as one more source."""
    columns = np.column_stack([source_log_ms, log_work])
    scaled = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    _, vectors = np.linalg.eigh(scaled.T @ scaled)
    return scaled_block(scaled @ vectors[:, ::-1][:, :rank])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedProcess:
    """A process conditioned on ``rows`` of its blocks."""

    blocks: tuple[np.ndarray, ...]
    rows: np.ndarray
    theta: np.ndarray
    level: float
    factor: np.ndarray
    alpha: np.ndarray

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return median, 90 % limits and the bound that 80 % stay below, of one fresh reading in milliseconds."""
        from scipy.linalg import solve_triangular

        cross = np.full((len(rows), len(self.rows)), _LEVEL_VARIANCE)
        prior = np.full(len(rows), _LEVEL_VARIANCE + np.exp(self.theta[-1]))
        for index, block in enumerate(self.blocks):
            linear, smooth, length = np.exp(self.theta[3 * index : 3 * index + 3])
            at, known = block[rows], block[self.rows]
            cross += linear * at @ known.T + smooth * np.exp(-0.5 * _distances(at, known) / length)
            prior += linear * np.sum(at**2, axis=1) + smooth
        mean = self.level + cross @ self.alpha
        explained = np.sum(solve_triangular(self.factor, cross.T, lower=True) ** 2, axis=0)
        deviation = np.sqrt(np.maximum(prior - explained, np.exp(self.theta[-1])))
        ends = (0.0, -_BOTH_SIDES_90, _BOTH_SIDES_90, _ONE_SIDE_80)
        median, low, high, upper = (np.exp(mean + end * deviation) for end in ends)
        return median, low, high, upper


def fit_process(blocks: Sequence[np.ndarray], rows: np.ndarray, latency_ms: np.ndarray) -> FittedProcess:
    """Fit the process to ``latency_ms`` measured at ``rows`` of every block."""
    from scipy.optimize import minimize

    target = np.log(latency_ms)
    level = float(target.mean())
    parts = [(known @ known.T, _distances(known, known)) for known in (block[rows] for block in blocks)]
    centre = np.array([_START_WEIGHT, _START_SMOOTH, np.log(2.0)] * len(blocks) + [_START_NOISE])
    spread = np.array([_WEIGHT_SPREAD, _WEIGHT_SPREAD, _LENGTH_SPREAD] * len(blocks) + [_NOISE_SPREAD])

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _loss(theta, parts, target - level)
        offset = (theta - centre) / spread
        return value + 0.5 * float(offset @ offset), gradient + offset / spread

    bounds = list(zip(centre - 4 * spread, centre + 4 * spread, strict=True))
    found = minimize(objective, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    covariance, _ = _covariance(found.x, parts)
    factor = np.linalg.cholesky(covariance)
    return FittedProcess(
        blocks=tuple(blocks),
        rows=rows,
        theta=found.x,
        level=level,
        factor=factor,
        alpha=np.linalg.solve(covariance, target - level),
    )


def choose_by_variance(
    blocks: Sequence[np.ndarray], candidates: np.ndarray, count: int, *, rng: np.random.Generator, pool: int = 2000
) -> np.ndarray:
    """Return ``count`` candidates, each the one of largest variance given those before it.

    Nothing is measured yet, so every block has its prior weight; the variance is that of the linear parts and of the
    smooth ones. ``pool`` candidates drawn at random compete.
    """
    rows = rng.permutation(candidates)[:pool]
    weights = np.exp([_START_WEIGHT, _START_SMOOTH])
    spread = np.stack([weights[0] * np.sum(block[rows] ** 2, axis=1) + weights[1] for block in blocks]).sum(axis=0)
    variance, chosen, directions = spread + _LEVEL_VARIANCE, [], np.empty((0, len(rows)))
    for _ in range(count):
        index = int(np.argmax(variance))
        row = np.full(len(rows), _LEVEL_VARIANCE)
        for block in blocks:
            at, one = block[rows], block[rows[index]][None]
            row += weights[0] * (at @ one.T)[:, 0] + weights[1] * np.exp(-0.25 * _distances(at, one)[:, 0])
        direction = (row - directions.T @ directions[:, index]) / np.sqrt(variance[index] + np.exp(_START_NOISE))
        directions = np.vstack([directions, direction])
        variance = np.maximum(variance - direction**2, 0.0)
        variance[index] = -1.0  # measured once
        chosen.append(index)
    return rows[np.array(chosen)]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2.0 * a @ b.T, 0.0)


def _covariance(
    theta: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the covariance of the measurements and its derivatives by every element of ``theta``."""
    size = len(parts[0][0])
    covariance = np.full((size, size), _LEVEL_VARIANCE) + np.exp(theta[-1]) * np.eye(size)
    derivatives = []
    for index, (inner, distance) in enumerate(parts):
        linear, smooth, length = np.exp(theta[3 * index : 3 * index + 3])
        straight, curved = linear * inner, smooth * np.exp(-0.5 * distance / length)
        covariance += straight + curved
        derivatives += [straight, curved, curved * 0.5 * distance / length]
    return covariance, [*derivatives, np.exp(theta[-1]) * np.eye(size)]


def _loss(
    theta: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]], target: np.ndarray
) -> tuple[float, np.ndarray]:
    """Negative log marginal likelihood and its gradient (Rasmussen & Williams 2006, equations 5.8 and 5.9)."""
    covariance, derivatives = _covariance(theta, parts)
    inverse = np.linalg.inv(covariance)
    alpha = inverse @ target
    _, log_determinant = np.linalg.slogdet(covariance)
    difference = inverse - np.outer(alpha, alpha)
    gradient = np.array([0.5 * np.sum(difference * part) for part in derivatives])
    return 0.5 * float(target @ alpha + log_determinant), gradient
