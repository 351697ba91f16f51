"""How much each kind of coefficient of the quality model matters: the scales of highest evidence.

Source: MacKay 1992, Neural Computation 4, 415-447, with a lognormal prior on every scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.search.observations import covariances, residual

if TYPE_CHECKING:
    from nas.search.exact.tables import FloatArray
    from nas.search.observations import Features, Observations

# In units of the standard deviation of the scores: what is likely before any data, as (median, log10 spread).
_PRIORS = {
    "single": (0.15, 0.5),
    "rated": (0.15, 0.5),
    "slope": (0.15, 0.5),
    "trait": (0.15, 0.5),
    "shared": (0.15, 0.5),
    "pair": (0.05, 0.5),
    "hint": (0.5, 0.7),
    "residual": (0.15, 0.5),
    "noise": (0.05, 0.5),
}
# Decays add up to this over the slots: architectures that share half of their options are then clearly related.
_TOTAL_DECAY, _SPREAD_OF_DECAYS = 2.0, 0.5
_BIAS_SCALE = 10.0
_MOST_OBSERVATIONS = 400
# Without it scores that scatter look like interactions of the highest order, which tell nothing of other architectures.
_EVIDENCE_FOR_RESIDUAL = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """Standard deviations in units of the scores' own: single options, by cost, by slot, and so on; 0: left out.

    ``residual`` is that of what no sum explains; ``decays`` are its decays by slot, see ``observations.residual``.
    """

    single: float = _PRIORS["single"][0]
    rated: float = _PRIORS["rated"][0]
    slope: float = _PRIORS["slope"][0]
    trait: float = _PRIORS["trait"][0]
    shared: float = _PRIORS["shared"][0]
    pair: float = _PRIORS["pair"][0]
    hint: float = _PRIORS["hint"][0]
    noise: float = _PRIORS["noise"][0]
    residual: float = 0.0
    decays: tuple[float, ...] = ()

    @property
    def bias(self) -> float:
        """Standard deviation of the constant: as good as unknown."""
        return _BIAS_SCALE


def learn_scales(observations: Observations, *, pairs: bool = True, residual: bool = True) -> Scales:
    """Return the scales of highest posterior probability, from at most the last 400 observations.

    Args:
        observations: What is known.
        pairs: Whether pairs may matter at all; without them their scale is 0.
        residual: Whether there may be more than sums.
    """
    recent = observations.last(_MOST_OBSERVATIONS)
    absent = {"residual"} if pairs else {"residual", "pair"}
    absent |= set() if observations.hints else {"hint", "rated", "slope"}
    absent |= set() if observations.traits else {"trait", "shared"}
    names = [name for name in _PRIORS if name not in absent]
    found, height = _highest(recent, names, np.array([_PRIORS[name][0] for name in names]))
    if residual:
        decays = [_TOTAL_DECAY / len(observations.sizes)] * len(observations.sizes)
        start = np.array([*found.tolist(), _PRIORS["residual"][0], *decays])
        more, higher = _highest(recent, [*names, "residual"], start)
        if higher > height + _EVIDENCE_FOR_RESIDUAL:
            return _scales([*names, "residual"], more)
    return _scales(names, found)


def _highest(data: Observations, names: list[str], start: FloatArray) -> tuple[FloatArray, float]:
    """Return the values of highest posterior probability, and its logarithm but for a constant."""
    from scipy.optimize import minimize

    def objective(logs: FloatArray) -> tuple[float, FloatArray]:
        return negative_log_posterior(data, names, np.exp(logs))

    medians, _ = _prior(names, len(start) - len(names), len(data.sizes))
    bounds = [(value - 7.0, value + 3.0) for value in medians]
    found = minimize(objective, np.log(start), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
    return np.exp(found.x), -float(found.fun)


def negative_log_posterior(data: Observations, names: list[str], values: FloatArray) -> tuple[float, FloatArray]:
    """Return minus the log evidence and log prior, and its gradient by the logarithms of ``values``.

    Args:
        data: The observations.
        names: Scales that are not 0.
        values: These scales, then the decays, if ``residual`` is among them.
    """
    scales = _scales(names, values)
    parts = dict(data.covariances)
    if "residual" in names:
        parts["residual"] = residual(data.features, data.features, np.array(scales.decays))
    covariance = np.full((len(data.scores), len(data.scores)), _BIAS_SCALE**2)
    for name in names:
        if name != "noise":
            covariance += getattr(scales, name) ** 2 * parts[name]
    covariance[np.diag_indices_from(covariance)] += noise_variances(data, scales)
    factor = cholesky(covariance)
    inverse = solve(factor, np.eye(len(data.scores)))
    wanted = (data.scores - data.centre) / data.unit
    weights = inverse @ wanted
    value = 0.5 * float(wanted @ weights) + float(np.log(np.diag(factor)).sum())
    inner = inverse - np.outer(weights, weights)
    gradient = []
    for name in names:
        slope = np.trace(inner) if name == "noise" else np.vdot(inner, parts[name])
        gradient.append(getattr(scales, name) ** 2 * float(slope))
    if "residual" in names:
        slopes = inner * parts["residual"]
        for column, decay in zip(data.options.T, scales.decays, strict=True):
            different = column[:, None] != column[None, :]
            gradient.append(-0.5 * scales.residual**2 * decay * float(slopes[different].sum()))
    medians, spreads = _prior(names, len(values) - len(names), len(data.sizes))
    distances = (np.log(values) - medians) / spreads
    return value + 0.5 * float(distances @ distances), np.array(gradient) + distances / spreads


def _prior(names: list[str], num_decays: int, num_slots: int) -> tuple[FloatArray, FloatArray]:
    """Return the medians and spreads of the logarithms of scales and decays."""
    medians = [_PRIORS[name][0] for name in names] + [_TOTAL_DECAY / num_slots] * num_decays
    spreads = [_PRIORS[name][1] for name in names] + [_SPREAD_OF_DECAYS] * num_decays
    return np.log(medians), np.log(10) * np.array(spreads)


def _scales(names: list[str], values: FloatArray) -> Scales:
    named = dict.fromkeys(_PRIORS, 0.0)
    named.update(zip(names, values.tolist(), strict=False))
    return Scales(**named, decays=tuple(values[len(names) :].tolist()))


def prior_covariance(first: Features, second: Features, scales: Scales) -> FloatArray:
    """Return the prior covariance (N, M) of qualities without noise."""
    parts = covariances(first, second)
    result = np.full((len(first.options), len(second.options)), scales.bias**2)
    for name, part in parts.items():
        result += getattr(scales, name) ** 2 * part
    if scales.residual:
        result += scales.residual**2 * residual(first, second, np.array(scales.decays))
    return result


def prior_variances(features: Features, scales: Scales) -> FloatArray:
    """Return the diagonal of ``prior_covariance(features, features, scales)``."""
    num_slots = features.options.shape[1]
    fixed = num_slots * scales.single**2 + (num_slots - 1) * scales.pair**2 + scales.bias**2 + scales.residual**2
    return np.asarray(
        fixed
        + scales.rated**2 * (features.rated**2).sum(axis=1)
        + scales.slope**2 * (features.rates**2).sum(axis=1)
        + scales.trait**2 * (features.traits**2).sum(axis=(1, 2))
        + scales.shared**2 * (features.traits.sum(axis=1) ** 2).sum(axis=1)
        + scales.hint**2 * (features.hints**2).sum(axis=1)
    )


def noise_variances(data: Observations, scales: Scales) -> FloatArray:
    """Return the variances (n,) of the scores about the qualities: known errors on top of learned noise."""
    return scales.noise**2 + (data.errors / data.unit) ** 2 + 1e-8


def cholesky(covariance: FloatArray) -> FloatArray:
    """Return the lower factor."""
    return np.asarray(np.linalg.cholesky(covariance), dtype=float)


def solve(factor: FloatArray, right: FloatArray) -> FloatArray:
    """Return the inverse of a factorised matrix times ``right``."""
    from scipy.linalg import cho_solve

    return np.asarray(cho_solve((factor, True), right, check_finite=False))
