"""Intervals for what a search selected: the selected look faster than they are, and by how much can be replayed.

A search keeps what its predictor calls fast. Errors of the predictor that belong to it (a block timed too fast, a
slope fitted on few networks) help some candidates onto the front, and intervals that hold for any network hold less
often there. A replay repeats the selection with the predictor's own uncertainty: it takes the predictions for the
truth, disturbs them as another profile would have disturbed them, selects again, and sees how far the selected are
off. Errors that only the truth knows (what no predictor of this kind can see) do not steer the selection and are
added after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latency_models.conformal import conformal_quantile, needed, weighted_quantile
from nas.core.cost import Interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FloatArray = NDArray[np.float64]
Select = Callable[[FloatArray], "NDArray[np.intp]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What selection does to intervals, and what undoes it.

    Attributes:
        coverage: Stated coverage, before and after.
        low_shift_ratio: Factor on the low end; 1 where the correction only bounds how far off the selected may be.
        high_shift_ratio: Factor on the high end; 1.03 where the selected are 3 % slower than predicted.
        widening_ratio: Factor on the half-width, of the logarithm; at least 1.
        seen_before: Share of the selected inside their uncorrected intervals, in the replay.
        seen_after: The same for corrected ones.
        seen_random: Share of all candidates inside their uncorrected intervals, in the replay.
        replays: Selections replayed; 0 where the correction is a bound and not a replay.
        pool: Candidates that were selected from.
        selected: How many were selected; of replays the mean.
    """

    coverage: float
    low_shift_ratio: float
    high_shift_ratio: float
    widening_ratio: float
    seen_before: float | None
    seen_after: float | None
    seen_random: float | None
    replays: int
    pool: int
    selected: float

    def interval(self, predicted: float, plain: Interval) -> Interval:
        """Return the corrected interval of a selected candidate.

        Args:
            predicted: Its prediction, above 0.
            plain: Its uncorrected interval, which holds ``predicted``; low end above 0.
        """
        low = self.low_shift_ratio * predicted * (plain.low / predicted) ** self.widening_ratio
        high = self.high_shift_ratio * predicted * (plain.high / predicted) ** self.widening_ratio
        return Interval(low=low, high=high, coverage=self.coverage)


def replay_selection(
    predicted: ArrayLike,
    select: Select,
    residuals: ArrayLike,
    *,
    half_width: float,
    coverage: float,
    rng: np.random.Generator,
    estimation_errors: ArrayLike | None = None,
    replays: int = 200,
) -> Correction:
    """Replay a selection and return the correction that restores the coverage of the selected.

    Args:
        predicted: Predictions of all candidates the selection was made from, above 0, shape (N,).
        select: Returns the indices it would select, given N predictions; whatever else it needs, such as qualities
            and a budget, it brings along.
        residuals: Logarithms of measured over predicted of held-out items.
        half_width: Of the uncorrected interval: it reaches from ``exp(-half_width)`` to ``exp(half_width)`` times
            the prediction.
        coverage: Stated share of the selected inside.
        rng: Of the replays.
        estimation_errors: Draws of what another profile would have changed in the predictions, as logarithms, shape
            (R, N): the predictor's own part of ``residuals``, alike for candidates that share blocks. Without them all
            of the residuals are taken to be the predictor's own and independent between candidates, which selects as
            badly as can be: the correction is then an upper bound.
        replays: Selections to replay.

    Raises:
        ValueError: Shapes that do not fit, or a prediction that is not above 0.
    """
    centre, held_out = np.asarray(predicted, dtype=float), np.asarray(residuals, dtype=float)
    if centre.ndim != 1 or not len(centre) or not (centre > 0).all():
        raise ValueError("predicted must be one row of numbers above 0")
    if half_width <= 0 or len(held_out) < 2:
        raise ValueError("a replay needs a half-width above 0 and at least 2 residuals")
    own, unseen = _split(held_out, estimation_errors, len(centre))
    logs = np.log(centre)
    chosen: list[FloatArray] = []
    anyone: list[FloatArray] = []
    for _ in range(replays):
        moved = own(rng)
        selected = select(np.exp(logs + moved))
        errors = unseen(rng) - moved  # truth over disturbed prediction
        anyone.append(errors)
        if len(selected):
            chosen.append(errors[selected])
    if not chosen:
        raise ValueError("the selection selected nothing in any replay")
    found = _correction(chosen, anyone, half_width=half_width, coverage=coverage)
    return found if estimation_errors is not None else _one_sided(found, chosen, half_width)


def _split(
    residuals: FloatArray, estimation_errors: ArrayLike | None, count: int
) -> tuple[
    Callable[[np.random.Generator], FloatArray],
    Callable[[np.random.Generator], FloatArray],
]:
    """Return samplers of the predictor's own part of the error and of the part that nothing foresees."""
    if estimation_errors is None:
        return (lambda rng: -_smooth_draws(residuals, count, rng)), (lambda _: np.zeros(count))
    draws = np.asarray(estimation_errors, dtype=float)
    if draws.ndim != 2 or draws.shape[1] != count or not len(draws):
        raise ValueError(f"estimation_errors must be (R, {count}), got {draws.shape}")
    total = float((residuals**2).mean())
    left = max(0.0, 1.0 - float((draws**2).mean()) / total) if total > 0 else 0.0
    scale = left**0.5
    # Normal weights of the draws give as many new ones of the same covariance as there are replays.
    return (lambda rng: rng.standard_normal(len(draws)) @ draws / len(draws) ** 0.5), (
        lambda rng: scale * _smooth_draws(residuals, count, rng)
    )


def _smooth_draws(residuals: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """Draw from the residuals' kernel estimate, of their own variance; resampled anew in every replay.

    Plain resampling never goes beyond the largest of few residuals, where the selected of thousands gather.
    """
    again = rng.choice(residuals, size=len(residuals))  # how much the residuals themselves are a matter of chance
    width = 1.06 * len(residuals) ** -0.2 * float(residuals.std())  # Silverman, "Density estimation" (1986), 3.28
    drawn = rng.choice(again, size=count) + width * rng.standard_normal(count)
    shrunk: FloatArray = drawn / (1.0 + (width / max(float(residuals.std()), 1e-300)) ** 2) ** 0.5
    return shrunk


def _correction(
    chosen: list[FloatArray], anyone: list[FloatArray], *, half_width: float, coverage: float
) -> Correction:
    """Compare the selected with all candidates of the same replays; each replay counts once."""
    errors, weights = _pooled(chosen)
    everyone = np.concatenate(anyone)
    # What the residuals say of everyone (their own median is hardly ever 0) is no effect of selection.
    common = float(np.median(everyone))
    shift = float(weighted_quantile(errors, weights, 0.5, own_weight=0.0)) - common
    usual = float(np.quantile(np.abs(everyone), coverage))
    wanted = float(weighted_quantile(np.abs(errors - shift), weights, coverage, own_weight=0.0))
    # The residuals' conformal half-width knows more of its own uncertainty than the replay does; only the ratio of
    # selected to random candidates is taken from the replay.
    widening = max(1.0, wanted / usual) if usual > 0 else 1.0
    return Correction(
        coverage=coverage,
        low_shift_ratio=exp(shift),
        high_shift_ratio=exp(shift),
        widening_ratio=widening,
        seen_before=float(np.average(np.abs(errors) <= half_width, weights=weights)),
        seen_after=float(np.average(np.abs(errors - shift) <= widening * half_width, weights=weights)),
        seen_random=float(np.mean(np.abs(everyone) <= half_width)),
        replays=len(anyone),
        pool=len(anyone[0]),
        selected=len(errors) / len(chosen),
    )


def _one_sided(found: Correction, chosen: list[FloatArray], half_width: float) -> Correction:
    """Leave the low end where it was: a bound on how slow the selected may be does not say that they are."""
    errors, weights = _pooled(chosen)
    high = log(max(1.0, found.high_shift_ratio)) + found.widening_ratio * half_width
    inside = (errors >= -found.widening_ratio * half_width) & (errors <= high)
    return replace(
        found,
        low_shift_ratio=1.0,
        high_shift_ratio=max(1.0, found.high_shift_ratio),
        seen_after=float(np.average(inside, weights=weights)),
    )


def _pooled(chosen: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    weights = np.repeat([1.0 / len(row) for row in chosen], [len(row) for row in chosen])
    return np.concatenate(chosen), weights


def bounded_selection(residuals: ArrayLike, *, selected: int, pool: int, coverage: float) -> Correction:
    """Return the correction that holds for any way of selecting ``selected`` of ``pool`` candidates.

    Their intervals get the coverage ``1 - (1 - coverage) * selected / pool``, so that the expected share of misses
    among the selected stays below ``1 - coverage``, if errors of different candidates are independent. Held-out
    residuals are hardly ever enough for so high a coverage; beyond what they can give, the half-width goes on as
    Student's distribution does.

    Args:
        residuals: Logarithms of measured over predicted of held-out items.
        selected: Candidates on the front.
        pool: Candidates it was selected from.
        coverage: Stated coverage.

    Raises:
        ProfileError: Too few residuals for ``coverage`` itself.
        ValueError: ``selected`` is not between 1 and ``pool``.

    Source:
        Benjamini, Yekutieli, "False discovery rate-adjusted multiple confidence intervals for selected parameters"
        (JASA 2005), theorem 1. With all candidates selected it changes nothing, with one it is Bonferroni's.
    """
    from scipy.stats import t as student

    if not 1 <= selected <= pool:
        raise ValueError(f"selected must lie in 1 to {pool}, got {selected}")
    scores = np.abs(np.asarray(residuals, dtype=float))
    plain = conformal_quantile(scores, coverage)
    wanted = 1.0 - (1.0 - coverage) * selected / pool
    if len(scores) >= needed(wanted):
        widening = conformal_quantile(scores, wanted) / plain if plain > 0 else 1.0
    else:
        degrees = max(1, len(scores) - 1)
        ends = [float(student.ppf(0.5 + 0.5 * level, degrees)) for level in (coverage, wanted)]
        widening = ends[1] / ends[0]
    return Correction(
        coverage=coverage,
        low_shift_ratio=1.0,
        high_shift_ratio=1.0,
        widening_ratio=max(1.0, widening),
        seen_before=None,
        seen_after=None,
        seen_random=None,
        replays=0,
        pool=pool,
        selected=float(selected),
    )


def jackknife_draws(refits: ArrayLike, predicted: ArrayLike, *, inflation: float) -> FloatArray:
    """Return draws of estimation errors from refits on parts of the data, shape (R, N).

    Args:
        refits: Predictions of each candidate by fits that lack a random part of the data, shape (R, N).
        predicted: Predictions by the fit on all data, shape (N,).
        inflation: Size of the part kept over the size of the part left out; the spread of the refits is its root
            times too small.

    Source:
        Shao, Wu, "A general theory for jackknife variance estimation" (Annals of Statistics 1989): delete-d jackknife.
    """
    draws: FloatArray = inflation**0.5 * np.log(np.asarray(refits, dtype=float) / np.asarray(predicted, dtype=float))
    return draws
