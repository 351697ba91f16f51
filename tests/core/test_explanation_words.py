"""What a moved limit buys, as a sentence."""

from __future__ import annotations

import pytest

from nas.core.explanation import BudgetStep, Estimate, OptionChange
from nas.core.explanation_words import step_words

CHANGE = OptionChange(slot="mid", before="none", after="conv1d")


@pytest.mark.parametrize(
    ("quality", "changes", "end"),
    [
        (Estimate(mean=0.5, low=0.4, high=0.6), (CHANGE,), ", by changing mid from none to conv1d"),
        (Estimate(mean=0.0, low=0.0, high=0.0), (), "buys 0 (0 to 0) quality, with the same network"),
        (Estimate(mean=0.3, low=0.0, high=1.8), (), ", though the network expected to be best stays the same"),
    ],
)
def test_a_step_that_only_some_draws_gain_by_is_told_from_one_that_buys_nothing(
    quality: Estimate, changes: tuple[OptionChange, ...], end: str
) -> None:
    step = BudgetStep(
        limit="latency_ms", change_ratio=0.1, allowed=11.0, difference=1.0, quality=quality, changes=changes
    )
    assert step_words(step).startswith("+1.00 ms (+10%) buys ")
    assert step_words(step).endswith(end)
