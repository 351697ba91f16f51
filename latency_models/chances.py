"""How likely a device keeps a limit: one-sided ends of predictions at any probability, and the probability of a limit.

The distribution of an error is that of the held-out errors of the calibration where there are any, else the stated
factor of a prior, taken as log-normal. scipy is imported inside functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from latency_models.conformal import weighted_quantile

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models.phases import Pipeline
    from latency_models.pricing import IntervalRatios

# Levels outside are not told apart: no error model is known that far out.
_LEAST_LEVEL, _MOST_LEVEL = 1e-4, 1.0 - 1e-4
_HALVINGS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorLaw:
    """Distribution of the logarithm of a fresh true figure over its prediction, from held-out errors.

    Attributes:
        errors: For each held-out item its error under each of the shifts that a fresh session may have; an item
            counts once.
        extra_sd: Standard deviation of what the priced OS version and unit leave open on top.
        least: Quantiles from the median up are no lower than this; None for no such bound.
    """

    errors: tuple[tuple[float, ...], ...]
    extra_sd: float = 0.0
    least: float | None = None

    def __post_init__(self) -> None:
        if len(self.errors) < 2 or not all(self.errors):
            raise ValueError("an error law needs at least 2 items with at least one error each")

    @property
    def most_level(self) -> float:
        """Highest probability that so many items can tell: n / (n + 1)."""
        return len(self.errors) / (len(self.errors) + 1)

    def quantile(self, level: float) -> float:
        """Return what a fresh error does not exceed with probability ``level``.

        Up to ``most_level`` the conformal quantile, which needs no shape of the distribution; beyond it the quantile
        goes on from there as Student's distribution with n - 1 degrees of freedom does.

        Source:
            Lei et al., "Distribution-free predictive inference for regression" (JASA 2018), with signed scores.
        """
        known = self._conformal(min(level, self.most_level))
        if level > self.most_level:
            from scipy.stats import t as student

            degrees, centre = len(self.errors) - 1, self._conformal(0.5)
            stretch = float(student.ppf(level, degrees) / student.ppf(self.most_level, degrees))
            known = centre + stretch * (known - centre)
        known += NormalDist().inv_cdf(level) * self.extra_sd
        return known if self.least is None or level < 0.5 else max(known, self.least)

    def _conformal(self, level: float) -> float:
        values = np.concatenate([np.asarray(row) for row in self.errors])
        weights = np.repeat([1.0 / len(row) for row in self.errors], [len(row) for row in self.errors])
        return float(weighted_quantile(values, weights, level, interpolated=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperRatios:
    """Upper ends that the truth keeps with probability ``level``, as ratios of the prediction.

    ``latency`` is for blocks in the domain, ``outside`` for the others, ``memory`` for activations. The high ends of
    the other phases move out from their values by ``phases``, in the logarithm.
    """

    level: float
    latency: float
    outside: float
    memory: float
    phases: float

    def at_least_predicted(self) -> UpperRatios:
        """Return the ends that a limit is held against: never below the prediction, however slow it seems to be."""
        return UpperRatios(
            level=self.level,
            latency=max(1.0, self.latency),
            outside=max(1.0, self.outside),
            memory=max(1.0, self.memory),
            phases=max(0.0, self.phases),
        )

    def others_ms(self, pipeline: Pipeline) -> float:
        """Return the upper end of the time of the phases besides the denoiser; their ends add up."""
        total_ms = 0.0
        for phase in pipeline.phases:
            time = phase.latency_ms
            total_ms += time.value * exp(self.phases * log(time.high / time.value)) if time.value > 0.0 else time.high
        return total_ms


def upper_ratios(ratios: IntervalRatios, level: float) -> UpperRatios:
    """Return the one-sided ends at ``level``.

    Without held-out errors, and for blocks outside the domain, the two-sided interval is taken for that of a log-normal
    distribution: its high end is then the quantile at ``(1 + coverage) / 2``.
    """
    normal = NormalDist()
    factor = normal.inv_cdf(level) / normal.inv_cdf(0.5 * (1.0 + ratios.coverage))
    latency = ratios.latency[1] ** factor
    if ratios.latency_law is not None:
        latency = exp(ratios.latency_law.quantile(level))
    memory = ratios.memory[1] ** factor
    if ratios.memory_law is not None:
        memory = exp(ratios.memory_law.quantile(level))
    outside = ratios.outside[1] ** factor
    return UpperRatios(
        level=level,
        latency=latency,
        outside=max(latency, outside) if level > 0.5 else outside,
        memory=memory,
        phases=factor,
    )


def split_level(probability: float, num_limits: int) -> float:
    """Return the level of each of several ends so that all hold together with ``probability``.

    Source:
        Boole's inequality: the chances of missing add up at most.
    """
    return 1.0 - (1.0 - probability) / max(1, num_limits)


def chance_below(upper: Callable[[float], float], limit: float) -> float:
    """Return the probability that a figure keeps ``limit``, given its one-sided upper end at every level.

    Found by halving, since upper ends rise with their level; between 0.0001 and 0.9999, beyond which nothing is known.
    """
    low, high = _LEAST_LEVEL, _MOST_LEVEL
    if upper(low) > limit:
        return 0.0
    if upper(high) <= limit:
        return _MOST_LEVEL
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if upper(middle) <= limit else (low, middle)
    return low


def moved(upper_ms: float, predicted_ms: float, *, shift_ratio: float, widening_ratio: float) -> float:
    """Return an upper end after a selection: see ``latency_models.selection.Correction``."""
    if predicted_ms <= 0.0:
        return upper_ms
    return shift_ratio * predicted_ms * exp(widening_ratio * log(max(upper_ms / predicted_ms, 5e-324)))


def basis_words(ratios: IntervalRatios) -> str:
    """Say what a probability of a predictor rests on."""
    law = ratios.latency_law
    if law is None:
        width = ratios.latency[1]
        return f"the stated factor {width:.3g} of the interval ({ratios.coverage:.0%}), taken as log-normal, unchecked"
    return (
        f"held-out errors of {len(law.errors)} networks; above {law.most_level:.3g}, the most that so many can tell, "
        "continued as Student's distribution"
    )
