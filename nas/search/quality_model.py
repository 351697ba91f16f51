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

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nas.search.exact.problem import FloatArray, IntArray, SlotSum

# In units of the standard deviation of the scores: what is likely before any data, as (median, log10 spread).
_PRIORS = {
    "single": (0.15, 0.5),
    "rated": (0.15, 0.5),
    "slope": (0.15, 0.5),
    "trait": (0.15, 0.5),
    "shared": (0.15, 0.5),
    "pair": (0.05, 0.5),
    "hint": (0.5, 0.7),
    "noise": (0.05, 0.5),
}
_BIAS_SCALE = 10.0
_MOST_FOR_SCALES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """Standard deviations in units of the scores' own: single options, by cost, by slot, and so on; 0: left out."""

    single: float = _PRIORS["single"][0]
    rated: float = _PRIORS["rated"][0]
    slope: float = _PRIORS["slope"][0]
    trait: float = _PRIORS["trait"][0]
    shared: float = _PRIORS["shared"][0]
    pair: float = _PRIORS["pair"][0]
    hint: float = _PRIORS["hint"][0]
    noise: float = _PRIORS["noise"][0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Observations:
    """Architectures that were judged.

    Attributes:
        options: Option indices (n, L).
        scores: Their qualities (n,).
        errors: Known standard errors (n,), 0 where none is known; they come on top of the learned noise.
        sizes: Number of options of each slot.
        hints: Figures that quality may be a multiple of, such as latency; they only have to be sums over slots.
            What options add to the first is the weight ``w`` above.
        traits: For each slot an array (options, traits), 1 where an option has a trait; the same traits in all slots.
    """

    options: IntArray
    scores: FloatArray
    errors: FloatArray
    sizes: tuple[int, ...]
    hints: tuple[SlotSum, ...] = ()
    traits: tuple[FloatArray, ...] = ()

    def first(self, count: int) -> Observations:
        """Return the first ``count`` of them."""
        return self._part(slice(count))

    def last(self, count: int) -> Observations:
        """Return the last ``count`` of them."""
        return self._part(slice(max(0, len(self.options) - count), None))

    def _part(self, rows: slice) -> Observations:
        return replace(self, options=self.options[rows], scores=self.scores[rows], errors=self.errors[rows])

    @cached_property
    def centre(self) -> float:
        """Mean score."""
        return float(self.scores.mean())

    @cached_property
    def unit(self) -> float:
        """Standard deviation of the scores, 1 where they are all equal."""
        return float(self.scores.std()) or 1.0

    @cached_property
    def features(self) -> Features:
        """What the model sees of them."""
        return self.features_of(self.options)

    def features_of(self, options: IntArray) -> Features:
        """Return what the model sees of architectures (N, L), these observations being the yardstick."""
        columns = list(zip(options.T, self.weights, strict=True))
        held = [(column[:, None] == np.arange(len(row))) * row for column, row in columns]
        hints = [hint.total(options) for hint in self.scaled_hints]
        traits = [table[column] for table, column in zip(self.traits, options.T, strict=False)]
        return Features(
            options=options,
            rates=np.stack([row[column] for column, row in columns], axis=1),
            rated=np.concatenate(held, axis=1),
            hints=np.array(hints).reshape(len(hints), len(options)).T,
            traits=np.stack(traits, axis=1) if traits else np.zeros((len(options), len(self.sizes), 0)),
        )

    @cached_property
    def scaled_hints(self) -> tuple[SlotSum, ...]:
        """Hints with mean 0 and standard deviation 1 over the observations."""
        scaled = []
        for hint in self.hints:
            values = hint.total(self.options)
            factor = 1.0 / (float(values.std()) or 1.0)
            table = hint.scaled(factor)
            base = table.base - factor * float(values.mean())
            scaled.append(SlotSum(slots=table.slots, pairs=table.pairs, base=base))
        return tuple(scaled)

    @cached_property
    def weights(self) -> list[FloatArray]:
        """What each option adds to the first hint, against the slot's least, 1 on average; 0 without hints."""
        if not self.hints:
            return [np.zeros(size) for size in self.sizes]
        above = [row - row.min() for row in self.hints[0].slots]
        unit = float(np.mean(np.concatenate(above))) or 1.0
        return [row / unit for row in above]

    @cached_property
    def covariances(self) -> dict[str, FloatArray]:
        """Covariances (n, n) that a unit scale of each kind of coefficient gives the scores."""
        return covariances(self.features, self.features)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What the model sees of N architectures.

    Attributes:
        options: Option indices (N, L).
        rates: Weights of the options held (N, L).
        rated: One column for every option of every slot: its weight where it is held, else 0.
        hints: Standardised hints (N, number of hints).
        traits: Traits of the options held (N, L, traits); none where none are known.
    """

    options: IntArray
    rates: FloatArray
    rated: FloatArray
    hints: FloatArray
    traits: FloatArray


def covariances(first: Features, second: Features) -> dict[str, FloatArray]:
    """Return the prior covariances (N, M) of two lots of architectures, for a unit scale of each kind."""
    shape = len(first.options), len(second.options)
    singles, pairs = np.zeros((2, *shape), dtype=np.uint16)  # counts; small integers are fast to add
    before = np.zeros(shape, dtype=bool)
    for column, other in zip(first.options.T, second.options.T, strict=True):
        same = column[:, None] == other[None, :]
        singles += same
        pairs += same & before
        before = same
    size = first.traits.shape[1] * first.traits.shape[2]
    return {
        "trait": first.traits.reshape(len(first.options), size) @ second.traits.reshape(len(second.options), size).T,
        "shared": first.traits.sum(axis=1) @ second.traits.sum(axis=1).T,
        "single": singles.astype(float),
        "rated": first.rated @ second.rated.T,
        "slope": first.rates @ second.rates.T,
        "pair": pairs.astype(float),
        "hint": first.hints @ second.hints.T,
    }


class QualityModel:
    """The posterior given observations and scales."""

    def __init__(self, observations: Observations, scales: Scales) -> None:
        self.observations = observations
        self.scales = scales
        self._variances = _variances(observations, scales)
        self._factor = _cholesky(_covariance(observations, scales))

    def mean(self) -> SlotSum:
        """Return the posterior mean."""
        nothing = np.zeros(len(self.observations.options))
        return self._corrected(_Coefficients.zeros(self.observations), nothing)

    def draw(self, generator: np.random.Generator, *, temperature: float = 1.0) -> SlotSum:
        """Return a draw from the posterior; its distance from the mean is multiplied by ``temperature``."""
        prior = _Coefficients.drawn(self.observations, self.scales, generator, temperature)
        noise = generator.normal(size=len(self._variances)) * np.sqrt(self._variances) * temperature
        return self._corrected(prior, noise)

    def predict(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation (N,) of the qualities of architectures (N, L), without noise."""
        from scipy.linalg import solve_triangular

        data, scales = self.observations, self.scales
        there = data.features_of(options)
        cross = _summed(covariances(data.features, there), scales)
        known = solve_triangular(self._factor, cross, lower=True, check_finite=False)
        variances = _prior_variances(there, scales) - (known**2).sum(axis=0)
        return self.mean().total(options), data.unit * np.sqrt(np.maximum(variances, 0.0))

    def _corrected(self, prior: _Coefficients, noise: FloatArray) -> SlotSum:
        """Add to ``prior`` what the data say against it."""
        data, scales = self.observations, self.scales
        wanted = (data.scores - data.centre) / data.unit
        weights = _solve(self._factor, wanted - prior.total(data) - noise)
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
        bias = prior.bias + _BIAS_SCALE**2 * float(weights.sum())
        return _Coefficients(single=single, pair=pair, hint=hint, bias=bias).as_sum(data)


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
            bias=temperature * _BIAS_SCALE * float(generator.normal()),
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


def learn_scales(observations: Observations, *, pairs: bool = True) -> Scales:
    """Return the scales of highest posterior probability, from at most the last 400 observations.

    Args:
        observations: What is known.
        pairs: Whether pairs may matter at all; without them their scale is 0.
    """
    from scipy.optimize import minimize

    recent = observations.last(_MOST_FOR_SCALES)
    absent = set() if pairs else {"pair"}
    absent |= set() if observations.hints else {"hint", "rated", "slope"}
    absent |= set() if observations.traits else {"trait", "shared"}
    names = [name for name in _PRIORS if name not in absent]
    start = np.log([_PRIORS[name][0] for name in names])

    def objective(logs: FloatArray) -> tuple[float, FloatArray]:
        return _negative_log_posterior(recent, dict(zip(names, np.exp(logs).tolist(), strict=True)))

    bounds = [(value - 7.0, value + 3.0) for value in start]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
    return _scales(dict(zip(names, np.exp(found.x).tolist(), strict=True)))


def _scales(named: dict[str, float]) -> Scales:
    return Scales(**{name: named.get(name, 0.0) for name in _PRIORS})


def _negative_log_posterior(data: Observations, named: dict[str, float]) -> tuple[float, FloatArray]:
    """Return minus the log evidence and log prior, and its gradient by the logarithms of the scales."""
    scales = _scales(named)
    factor = _cholesky(_covariance(data, scales))
    inverse = _solve(factor, np.eye(len(data.scores)))
    wanted = (data.scores - data.centre) / data.unit
    weights = inverse @ wanted
    value = 0.5 * float(wanted @ weights) + float(np.log(np.diag(factor)).sum())
    inner = inverse - np.outer(weights, weights)
    gradient = []
    for name, scale in named.items():
        slope = np.trace(inner) if name == "noise" else np.sum(inner * data.covariances[name])
        median, spread = _PRIORS[name]
        distance = (np.log(scale) - np.log(median)) / (spread * np.log(10))
        value += 0.5 * distance**2
        gradient.append(scale**2 * float(slope) + distance / (spread * np.log(10)))
    return value, np.array(gradient)


def _summed(parts: dict[str, FloatArray], scales: Scales) -> FloatArray:
    """Return the prior covariance of scores without noise from that of each kind."""
    result = sum(getattr(scales, name) ** 2 * part for name, part in parts.items())
    return np.asarray(result + _BIAS_SCALE**2)


def _covariance(data: Observations, scales: Scales) -> FloatArray:
    result = _summed(data.covariances, scales)
    result[np.diag_indices_from(result)] += _variances(data, scales)
    return result


def _prior_variances(features: Features, scales: Scales) -> FloatArray:
    """Return the diagonal of ``_summed(covariances(features, features), scales)``."""
    num_slots = features.options.shape[1]
    fixed = num_slots * scales.single**2 + (num_slots - 1) * scales.pair**2 + _BIAS_SCALE**2
    return np.asarray(
        fixed
        + scales.rated**2 * (features.rated**2).sum(axis=1)
        + scales.slope**2 * (features.rates**2).sum(axis=1)
        + scales.trait**2 * (features.traits**2).sum(axis=(1, 2))
        + scales.shared**2 * (features.traits.sum(axis=1) ** 2).sum(axis=1)
        + scales.hint**2 * (features.hints**2).sum(axis=1)
    )


def _single_variances(data: Observations, scales: Scales) -> list[FloatArray]:
    """Return the prior variance of what each option adds."""
    return [scales.single**2 + scales.rated**2 * row**2 for row in data.weights]


def _variances(data: Observations, scales: Scales) -> FloatArray:
    return scales.noise**2 + (data.errors / data.unit) ** 2 + 1e-8


def _cholesky(covariance: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.cholesky(covariance), dtype=float)


def _solve(factor: FloatArray, right: FloatArray) -> FloatArray:
    from scipy.linalg import cho_solve

    return np.asarray(cho_solve((factor, True), right, check_finite=False))
