"""The benchmark of cheap estimators: a source is as related to the truth as it says, and runs are found again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fidelities import SOURCES, cheap_source, longest, run, run_all, sensitivities, to_markdown
from search_problems import make_synthetic

from nas.core.files import JsonLines

if TYPE_CHECKING:
    from pathlib import Path

KIND = "interacting, unrelated"


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_cheap_scores_correlate_with_the_truth_as_told(correlation: float) -> None:
    problem = make_synthetic(KIND, 3, num_slots=8, num_options=5)
    source = cheap_source(problem, correlation)
    rng = np.random.default_rng(0)
    options = rng.integers(5, size=(20_000, 8))
    scores = source.table.total(options) + source.noise * rng.normal(size=len(options))

    assert np.corrcoef(scores, problem.quality.total(options))[0, 1] == pytest.approx(
        correlation, abs=0.1
    )  # the two tables are alike by chance


def test_sensitivities_of_noise_alone_know_nothing() -> None:
    problem = make_synthetic(KIND, 3, num_slots=8, num_options=5)
    truth = np.concatenate([row[1:] for row in problem.quality.slots])
    noisy, useless = (
        np.concatenate([row[1:] for row in sensitivities(problem, ratio).slots]) for ratio in (1.0, float("inf"))
    )

    assert np.corrcoef(noisy, truth)[0, 1] > 0.5 > abs(np.corrcoef(useless, truth)[0, 1])


def test_a_search_pays_for_both_levels() -> None:
    problem = make_synthetic(KIND, 3, num_slots=5, num_options=4)
    figures = run(problem, 0, evaluations=25, correlation=0.7, start=6)

    assert figures["dear"] + 0.05 * figures["cheap"] == pytest.approx(25.5, abs=0.6)
    assert 0.0 < figures["shares"]["25"] <= 1.0


def test_finished_runs_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def remembered(_problem: Any, seed: int, **_: Any) -> dict[str, Any]:
        done.append(seed)
        return {"shares": {"25": 0.5}, "dear": 20, "cheap": 100, "cpu_s": 1.0}

    monkeypatch.setattr("fidelities.run", remembered)
    monkeypatch.setattr("fidelities.make_synthetic", lambda *_: KIND)
    cache = JsonLines(tmp_path / "runs.jsonl")
    for evaluations in (25, 25, 50):
        run_all(cache, kinds=[KIND], seeds=[0, 1], evaluations=evaluations)

    assert done == 2 * [seed for seed in (0, 1) for _ in SOURCES]
    assert {row["evaluations"] for row in longest(cache.read())} == {50}
    assert "| dear estimator alone | 0.500 (0.50 to 0.50; 2) | 20 | 100 | 1 |" in to_markdown(longest(cache.read()))
