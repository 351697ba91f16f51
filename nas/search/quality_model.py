"""Quality learned from evaluations: a Bayesian linear model over options, pairs of neighbouring options and hints.

    y = b + sum_l (a_l[x_l] + w_l[x_l] (r_l[x_l] + s_l)) + sum_l c_l[x_l, x_(l+1)] + sum_h g_h h(x) + noise

where ``w`` is what an option costs: what costs more may matter more, in some slots more than in others. That ``s_l`` is
one for all options of a slot lets an option that was never tried share in what its neighbours have shown.

Where options are made of several choices (kind, heads, depth ...) there are also coefficients for each of their values,
in one slot and across all, so that options alike in something are expected to be alike in quality.

Every coefficient has a Gaussian prior; the scales of all kinds of them and of the noise are those of highest evidence
(MacKay 1992, Neural Computation 4, 415-447), under a prior that expects pairs to matter less than single options. All
work is done on the n x n covariance of the evaluations, since there are far more coefficients than evaluations. A
posterior draw is a prior draw corrected by the data (Matheron's rule, Wilson et al. 2020, arXiv:2002.09309), again a
sum over slots and pairs, which the exact solver can take.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.search.exact.problem import FloatArray, IntArray, SlotSum
from nas.search.observations import Observations, residual
from nas.search.scales import (
    Scales,
    cholesky,
    learn_scales,
    noise_variances,
    prior_covariance,
    prior_variances,
    solve,
)

__all__ = ["Observations", "Posterior", "QualityModel", "Scales", "learn_scales"]


class QualityModel:
    """The posterior given observations and scales."""

    def __init__(self, observations: Observations, scales: Scales) -> None:
        self.observations = observations
        self.scales = scales
        variances = noise_variances(observations, scales)
        covariance = prior_covariance(observations.features, observations.features, scales)
        covariance[np.diag_indices_from(covariance)] += variances
        self._variances = variances
        self._factor = cholesky(covariance)
        self._wanted = (observations.scores - observations.centre) / observations.unit
        self._weights = solve(self._factor, self._wanted)

    def mean(self) -> SlotSum:
        """Return the posterior mean of all but the residual."""
        nothing = np.zeros(len(self.observations.options))
        return self._corrected(_Coefficients.zeros(self.observations), nothing)

    def draw(self, generator: np.random.Generator, *, temperature: float = 1.0) -> SlotSum:
        """Return a draw of all but the residual; its distance from the mean is multiplied by ``temperature``."""
        prior = _Coefficients.drawn(self.observations, self.scales, generator, temperature)
        noise = self._noise_factor @ generator.normal(size=len(self._variances)) * temperature
        return self._corrected(prior, noise)

    def predict(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation (N,) of the qualities of architectures (N, L), without noise."""
        posterior = Posterior(self, options)
        return posterior.mean, posterior.deviation

    def smoothed(self) -> FloatArray:
        """Return the means (n,) of the observations' own qualities."""
        return self.observations.centre + self.observations.unit * (self._wanted - self._variances * self._weights)

    @cached_property
    def _noise_factor(self) -> FloatArray:
        """Square root of the covariance of what sums do not explain: residual and noise."""
        if not self.scales.residual:
            return np.diag(np.sqrt(self._variances))
        features, decays = self.observations.features, np.array(self.scales.decays)
        covariance = self.scales.residual**2 * residual(features, features, decays)
        covariance[np.diag_indices_from(covariance)] += self._variances
        return cholesky(covariance)

    def _corrected(self, prior: _Coefficients, noise: FloatArray) -> SlotSum:
        """Add to ``prior`` what the data say against it."""
        data, scales = self.observations, self.scales
        weights = solve(self._factor, self._wanted - prior.total(data) - noise)
        single = []
        tables = zip(prior.single, _single_variances(data, scales), data.weights, data.options.T, strict=True)
        for row, variances, rates, column in tables:
            shown = variances * np.bincount(column, weights, minlength=len(row))
            single.append(row + shown + scales.slope**2 * rates * float(rates[column] @ weights))
        common = scales.shared**2 * (data.features.traits.sum(axis=1).T @ weights)
        for slot, table in enumerate(data.traits):
            single[slot] += table @ (common + scales.trait**2 * (data.features.traits[:, slot].T @ weights))
        pair = []
        for slot, table in enumerate(prior.pair):
            flat = data.options[:, slot] * table.shape[1] + data.options[:, slot + 1]
            added = np.bincount(flat, weights, minlength=table.size).reshape(table.shape)
            pair.append(table + scales.pair**2 * added)
        hint = prior.hint + scales.hint**2 * (data.features.hints.T @ weights)
        bias = prior.bias + scales.bias**2 * float(weights.sum())
        return _Coefficients(single=single, pair=pair, hint=hint, bias=bias).as_sum(data)


class Posterior:
    """Means and variances of some architectures, which can be told that one of them was found to be as expected."""

    def __init__(self, model: QualityModel, options: IntArray) -> None:
        from scipy.linalg import solve_triangular

        data, scales = model.observations, model.scales
        self._features = data.features_of(options)
        self._scales = scales
        cross = prior_covariance(data.features, self._features, scales)
        self.mean = data.centre + data.unit * (cross.T @ model._weights)
        self._unit = data.unit
        self._known = solve_triangular(model._factor, cross, lower=True, check_finite=False)
        self._variances = prior_variances(self._features, scales) - (self._known**2).sum(axis=0)

    @property
    def deviation(self) -> FloatArray:
        """Standard deviations (N,), in the scores' own unit."""
        return np.asarray(self._unit * np.sqrt(np.maximum(self._variances, 0.0)))

    def believe(self, index: int) -> None:
        """Take architecture ``index`` to be judged at its mean: means stay, what it tells of the others is known."""
        prior = prior_covariance(self._features.part(index), self._features, self._scales)[0]
        row = prior - self._known[:, index] @ self._known
        row /= np.sqrt(max(float(self._variances[index]), 0.0) + self._scales.noise**2 + 1e-8)
        self._known = np.concatenate([self._known, row[None, :]])
        self._variances = self._variances - row**2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Coefficients:
    """One value of every coefficient, for scores with mean 0 and standard deviation 1."""

    single: list[FloatArray]
    pair: list[FloatArray]
    hint: FloatArray
    bias: float

    @classmethod
    def zeros(cls, data: Observations) -> _Coefficients:
        return cls(
            single=[np.zeros(size) for size in data.sizes],
            pair=[np.zeros(shape) for shape in zip(data.sizes[:-1], data.sizes[1:], strict=True)],
            hint=np.zeros(len(data.hints)),
            bias=0.0,
        )

    @classmethod
    def drawn(
        cls, data: Observations, scales: Scales, generator: np.random.Generator, temperature: float
    ) -> _Coefficients:
        shapes = zip(data.sizes[:-1], data.sizes[1:], strict=True)
        single = [
            temperature * (np.sqrt(row) * generator.normal(size=len(row)) + scales.slope * rates * generator.normal())
            for row, rates in zip(_single_variances(data, scales), data.weights, strict=True)
        ]
        if data.traits:
            num_traits = data.traits[0].shape[1]
            common = scales.shared * generator.normal(size=num_traits)
            for row, table in zip(single, data.traits, strict=True):
                row += temperature * table @ (common + scales.trait * generator.normal(size=num_traits))
        return cls(
            single=single,
            pair=[temperature * scales.pair * generator.normal(size=shape) for shape in shapes],
            hint=temperature * scales.hint * generator.normal(size=len(data.hints)),
            bias=temperature * scales.bias * float(generator.normal()),
        )

    def total(self, data: Observations) -> FloatArray:
        table = SlotSum(slots=tuple(self.single), pairs=tuple(self.pair), base=self.bias)
        result = table.total(data.options) + data.features.hints @ self.hint
        return np.asarray(result, dtype=float)

    def as_sum(self, data: Observations) -> SlotSum:
        """Return the coefficients as one table in the scores' own unit."""
        slots = [row.copy() for row in self.single]
        pairs = [table.copy() for table in self.pair]
        base = self.bias
        for weight, hint in zip(self.hint.tolist(), data.scaled_hints, strict=True):
            base += weight * hint.base
            for row, added in zip(slots, hint.slots, strict=True):
                row += weight * added
            for table, more in zip(pairs, hint.pairs or (), strict=False):
                table += weight * more
        scaled = SlotSum(slots=tuple(slots), pairs=tuple(pairs), base=base).scaled(data.unit)
        return SlotSum(slots=scaled.slots, pairs=scaled.pairs, base=scaled.base + data.centre)


def _single_variances(data: Observations, scales: Scales) -> list[FloatArray]:
    """Return the prior variance of what each option adds."""
    return [scales.single**2 + scales.rated**2 * row**2 for row in data.weights]
