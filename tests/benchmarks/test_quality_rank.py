"""The ranking benchmark: its architectures cover the space, and its verdicts are right on made-up trainings."""

from __future__ import annotations

from typing import Any

import pytest
import quality_rank_scores
from quality_rank_scores import to_markdown, verdicts
from quality_rank_truth import LAYERS, SPACE, architectures, set_of


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_rank_scores, "DRAWS", 200)


LOSSES = [0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01]


def trainings(noise: float = 0.0) -> list[dict[str, Any]]:
    once = [
        {"index": index, "replicate": 0, "loss": loss, "jitter": loss, "mean": 0.5, "options": [1, 1, 1, 0, 0],
         "training_cpu_s": 100.0}
        for index, loss in enumerate(LOSSES)
    ]  # fmt: skip
    return once + [{**row, "replicate": 1, "loss": row["loss"] + noise} for row in once[:4]]


def estimates(name: str, scores: list[float], cpu_s: float) -> list[dict[str, Any]]:
    return [{"estimator": name, "index": index, "score": score, "cpu_s": cpu_s} for index, score in enumerate(scores)]


def test_architectures_are_distinct_and_both_sets_cover_the_space() -> None:
    rows = [SPACE.to_options(architecture) for architecture in architectures()]
    assert len(set(rows)) == 48
    assert rows[:2] == [SPACE.to_options(SPACE.smallest()), SPACE.to_options(SPACE.largest())]
    for name, layers in LAYERS.items():
        mine = [row for index, row in enumerate(rows) if index > 1 and set_of(index) == name]
        filled = [sum(option > 0 for option in row) for row in mine]
        assert {count: filled.count(count) for count in layers} == layers
        for position, slot in enumerate(SPACE.slots()):
            kinds = {SPACE.options(slot)[row[position]][f"{slot}.kind"] for row in mine}
            assert len(kinds) == 7


def test_best_affordable_estimator_is_recommended() -> None:
    perfect, good = [-loss for loss in LOSSES], [-loss for loss in [LOSSES[1], LOSSES[0], *LOSSES[2:]]]
    judged = estimates("dear", perfect, 6.0) + estimates("cheap", good, 1.0) + estimates("wrong", LOSSES, 0.0)
    found = verdicts(trainings(), judged, once={"cheap": 200.0}, candidates=100)
    rows = {row["estimator"]: row for row in found["rows"]}
    assert found["recommended"] == "cheap"
    assert [row["estimator"] for row in found["rows"]] == ["dear", "cheap", "wrong"]
    assert (rows["dear"]["tau"], rows["wrong"]["tau"]) == (pytest.approx(1.0), pytest.approx(-1.0))
    assert rows["cheap"]["tau"] == pytest.approx(19 / 21)  # one of 21 pairs is turned round
    assert rows["cheap"]["share_in_a_search"] == pytest.approx((1.0 + 200.0 / 100) / 100.0)


def test_choice_on_one_set_is_judged_on_the_other() -> None:
    perfect = [-loss for loss in LOSSES]
    lucky = [*perfect[:4], *reversed(perfect[4:])]  # right where it was chosen, wrong where not
    late = [*reversed(perfect[:4]), *perfect[4:]]
    found = verdicts(
        trainings(),
        estimates("lucky", lucky, 1.0) + estimates("late", late, 1.0),
        once={}, candidates=10, unseen=(4, 5, 6),
    )  # fmt: skip
    assert found["recommended"] == "lucky"
    assert [(row["estimator"], row["architectures"]) for row in found["validation"]] == [("late", 3), ("lucky", 3)]
    assert found["validation"][1]["tau"] == pytest.approx(-1.0)
    document = {
        **found, "truth": [{**row, "direction": 0.25} for row in trainings()], "not_run": [], "command": "",
        "seeds": {"truth": 0, "estimators": 1}, "candidates_of_a_search": 10,
    }  # fmt: skip
    text = to_markdown(document)
    assert "its tau is **-1.00**" in text
    assert "the aim of 0.7 is **missed**" in text


def test_mean_of_ranks_adds_costs_and_not_scores() -> None:
    judged = estimates("one", [1, 2, 3, 4, 5, 6, 7], 1.0) + estimates("other", [0, 0, 0, 0, 0, 0, 9e9], 2.0)
    found = verdicts(
        trainings(), judged, once={"one": 10.0, "other": 20.0}, candidates=10, combined={"both": ("one", "other")}
    )
    rows = {row["estimator"]: row for row in found["rows"]}
    assert rows["both"]["tau"] == pytest.approx(1.0)
    assert (rows["both"]["each_cpu_s"], rows["both"]["once_cpu_s"]) == (3.0, 30.0)


def test_regret_is_what_the_first_five_miss() -> None:
    found = verdicts(trainings(), estimates("one", [7, 6, 5, 4, 3, 2, 1], 0.0), once={}, candidates=10)
    assert found["rows"][0]["top5_regret_ratio"] == pytest.approx((0.1 - 0.01) / (0.5 - 0.01))


def test_noise_of_the_truth_lowers_what_can_be_reached() -> None:
    known = [verdicts(trainings(noise), [], once={}, candidates=1)["noise_of_truth"] for noise in (0.0, 0.2)]
    assert known[0]["tau_of_truth"] == pytest.approx(1.0)
    assert known[1]["deviation_of_a_seed"] == pytest.approx(0.2 / 2**0.5)
    assert known[1]["tau_of_truth"] < 0.8
