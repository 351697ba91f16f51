"""The report says which scenario each member of the front is meant for, and what of its quality was stated."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nas.core.architecture import Architecture
from nas.core.cost import Budget
from nas.core.evaluation import Evaluation, Proposal
from nas.core.scenario import ScenarioPoint
from nas.report import build_report
from nas.report.facts import scenario_words
from nas.report.figures import temporal_layers
from nas.report.scenarios import scenario_rows, scenario_texts
from nas.runs.front import FrontFile, write_front
from tests.report.conftest import make_evaluation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def in_scenario(number: int, steps: int, frames: int, worth: float) -> Evaluation:
    plain = make_evaluation(number)
    choices = {**plain.architecture, "scenario.denoising_steps": steps, "scenario.frames": frames}
    quality = plain.quality
    assert quality is not None
    return replace(
        plain,
        proposal=Proposal(architecture=Architecture("tiny+scenario/1", choices)),
        quality=replace(quality, metrics=(("stated_worth_of_frames", worth),)),
    )


@pytest.fixture
def front() -> FrontFile:
    members = (
        in_scenario(1, 2, 8, 0.0),
        in_scenario(2, 4, 8, 0.0),
        in_scenario(3, 2, 8, 0.0),
        in_scenario(4, 4, 16, 0.2),
    )
    return FrontFile(
        members=members,
        budget=Budget(),
        selected=members[3].architecture.digest,
        selection="best",
        hypervolume=1.0,
        reference=(900.0, 60.0, 0.0),
        quality_estimator="supernet",
        screened=0,
        complete=4,
    )


def test_rows_are_scenarios_with_the_ends_of_their_members(front: FrontFile) -> None:
    first, *others = scenario_rows(front)
    assert (first.text, first.members, first.selected, first.stated) == ("2 steps, 8 frames", 2, False, 0.0)
    assert first.latency_ms == (189.0, 207.0)  # 180 + 9 a number
    assert [(row.text, row.members, row.selected, row.stated) for row in others] == [
        ("4 steps, 8 frames", 1, False, 0.0),
        ("4 steps, 16 frames", 1, True, 0.2),
    ]


def test_without_scenarios_there_is_no_table(front: FrontFile) -> None:
    plain = replace(front, members=(make_evaluation(1),))
    assert scenario_rows(plain) == ()
    assert scenario_texts(plain) == {}
    assert scenario_rows(None) == ()


def test_the_page_shows_them(make_run: Callable[[Path], Path], front: FrontFile, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_front(run / "search/front.json", front)
    page = build_report(run).read_text()
    with (run / "report/tables/scenarios.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert "Scenarios on the front" in page
    assert "4 steps, 16 frames (chosen)" in page
    assert "a statement, not a measurement" in page
    assert [row["denoising_steps"] for row in rows] == ["2", "4", "2", "4"]
    assert rows[3]["stated_worth"] == "0.2"


def test_layers_of_a_choice_leave_out_its_scenario(front: FrontFile) -> None:
    slots = [slot for slot, _ in temporal_layers(front.members[0].architecture)]
    assert "scenario" not in slots
    assert slots


def test_the_scenario_in_words_is_the_chosen_one() -> None:
    config = {"scenario": {"frames": 8, "height": 32, "width": 32, "denoising_steps": 4, "precision": "float16"}}
    point = ScenarioPoint(denoising_steps=2, size=(64, 32), weight_bits=8)
    assert scenario_words(config, point) == (
        "8 latent frames at 32 x 64 px; 2 denoising steps, no guidance; float16; 8-bit weights"
    )
