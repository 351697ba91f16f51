"""Single blocks: scores of repeats and of the prior, and the coverage of both."""

from __future__ import annotations

import numpy as np
import pytest

from latency_models.block_errors import check_blocks, repeat_scores
from latency_models.summaries import Summary


def make_summary(*times_ms: float) -> Summary:
    return Summary(
        subject="block",
        centre_ms=float(np.median(times_ms)),
        centres_ms=times_ms,
        raw_ms=1.0,
        spread_ratio=0.0,
        repeat_ratio=1.0,
        num_samples=len(times_ms),
        peak_memory_mb=None,
    )


def test_a_repeat_is_held_against_the_median_of_the_others() -> None:
    scores = repeat_scores([make_summary(1.0, 2.0, 4.0), make_summary(5.0)])
    # Medians of the logarithms of the other two: log 2.83, log 2, log 1.41.
    assert scores == [pytest.approx([1.5 * np.log(2), 0.0, 1.5 * np.log(2)])]


def test_fresh_blocks_and_fresh_repeats_are_covered() -> None:
    generator = np.random.default_rng(0)
    repeats, priors = [], []
    for _ in range(150):
        times = np.exp(generator.normal(size=(40, 1)) + 0.05 * generator.standard_t(3, size=(40, 4)))
        errors = 0.3 * generator.normal(size=41)
        check = check_blocks([make_summary(*row) for row in times[:, :3]], list(errors[:40]), 0.9)
        assert check.repeat_ratio is not None
        assert check.prior_ratio is not None
        off = np.log(times[:, 3]) - np.median(np.log(times[:, :3]), axis=1)
        repeats.append(np.mean(np.abs(off) <= np.log(check.repeat_ratio)))
        priors.append(abs(errors[40]) <= np.log(check.prior_ratio))
    # Repeats: the table has three records where scores had two, so slightly above; priors: ceil(41 * 0.9) / 41 = 0.902,
    # of 150 with four standard errors of 0.097.
    assert 0.9 <= np.mean(repeats) <= 0.95
    assert np.mean(priors) == pytest.approx(0.902, abs=0.097)


def test_too_few_blocks_have_no_interval() -> None:
    check = check_blocks([make_summary(1.0, 1.1)] * 8, [0.1] * 8, 0.9)
    assert (check.repeat_ratio, check.repeat_coverage, check.prior_ratio, check.prior_coverage) == (None,) * 4
    assert (check.num_repeated, check.num_priced) == (8, 8)
