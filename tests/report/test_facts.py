from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nas.core.cost import Interval
from nas.report import facts
from nas.report.clips import clips_of, describe_row
from nas.report.origins import origins
from nas.report.run_files import StageState, TrainedRun, TrainingRow, read_run
from nas.runs.front import MemberInterval, SelectionEffect, read_front, write_front

if TYPE_CHECKING:
    from pathlib import Path


def test_headline_says_predicted_and_measured_side_by_side(finished_run: Path) -> None:
    files = read_run(finished_run)
    headline = facts.headline(files)
    assert headline is not None
    origins = {fact.label: fact.origin for fact in headline.facts}
    assert origins["Latency"] == "predicted"
    assert origins["Latency, measured"] == "measured"
    assert headline.digest == files.front.selected if files.front else False


def test_headline_says_that_nothing_was_measured(finished_run: Path) -> None:
    headline = facts.headline(replace(read_run(finished_run), closed_loop=None))
    assert headline is not None
    measured = next(fact for fact in headline.facts if fact.label == "Latency, measured")
    assert (measured.value, measured.origin) == ("—", "")


def test_a_measurement_outside_its_interval_is_marked(finished_run: Path) -> None:
    files = read_run(finished_run)
    assert files.closed_loop is not None
    rows = tuple(replace(row, measured_ms=2 * row.high_ms) for row in files.closed_loop.rows)
    headline = facts.headline(replace(files, closed_loop=replace(files.closed_loop, rows=rows)))
    assert headline is not None
    measured = next(fact for fact in headline.facts if fact.label == "Latency, measured")
    assert measured.tone == "bad"
    assert "outside the interval" in measured.detail


def test_extrapolation_is_said(finished_run: Path) -> None:
    files = read_run(finished_run)
    assert files.front is not None
    members = tuple(replace(item, cost=replace(item.cost, in_domain=False)) for item in files.front.members)
    headline = facts.headline(replace(files, front=replace(files.front, members=members)))
    assert headline is not None
    assert any(fact.label == "Outside calibration" for fact in headline.facts)


def test_extrapolation_is_explained(finished_run: Path) -> None:
    files = read_run(finished_run)
    assert files.front is not None
    members = tuple(
        replace(item, cost=replace(item.cost, in_domain=False, domain_note="3 blocks not measured"))
        for item in files.front.members
    )
    headline = facts.headline(replace(files, front=replace(files.front, members=members)))
    assert headline is not None
    outside = next(fact for fact in headline.facts if fact.label == "Outside calibration")
    assert outside.detail == "3 blocks not measured"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ((0.81, 0.9), "of 12 selected from 96, 81 % were inside before and 90 % after"),
        ((None, None), "a bound for 12 selected of 96"),
    ],
)
def test_interval_after_selection_stands_beside_the_one_before(
    run_dir: Path, seen: tuple[float | None, float | None], words: str
) -> None:
    write_effect(run_dir, seen)
    headline = facts.headline(read_run(run_dir))
    assert headline is not None
    fact = next(fact for fact in headline.facts if fact.label == "Latency, allowing for the selection")
    assert (fact.value[:3], fact.value[4:7]) == ("100", "200")
    assert words in fact.detail
    assert fact.detail.startswith("before, ")


def write_effect(run_dir: Path, seen: tuple[float | None, float | None]) -> None:
    """Add to the run's front what was found out about its selection."""
    path = run_dir / "search/front.json"
    front = read_front(path)
    member = MemberInterval(digest=front.selected, latency_interval_ms=Interval(low=100.0, high=200.0, coverage=0.9))
    effect = SelectionEffect(
        coverage=0.9,
        low_shift_ratio=1.02,
        high_shift_ratio=1.02,
        widening_ratio=1.1,
        seen_before=seen[0],
        seen_after=seen[1],
        seen_random=0.9,
        replays=200,
        pool=96,
        selected=12.0,
        members=(member,),
    )
    write_front(path, replace(front, selection_effect=effect))


def test_every_origin_names_a_file_of_the_run(finished_run: Path) -> None:
    files = read_run(finished_run)
    rows = origins(files, ())
    assert all((finished_run / row.file).exists() for row in rows)
    assert {row.origin for row in rows} == {"predicted", "measured", "counted"}


def test_export_says_how_far_package_and_network_are_apart(finished_run: Path) -> None:
    (run,) = read_run(finished_run).exported
    values = {fact.label: fact.value for fact in facts.export_facts(run)}
    assert values["Largest relative difference from the network"] == "2.2e-03 in float16"
    assert values["Activation peak of the program"] == "0.221 MB"


def test_export_without_parity_says_nothing_of_it(finished_run: Path) -> None:
    (run,) = read_run(finished_run).exported
    labels = {fact.label for fact in facts.export_facts(replace(run, model=replace(run.model, parity=None)))}
    assert "Activation peak of the program" not in labels


def test_attribute_table_keeps_raw_values_for_the_csv() -> None:
    row = TrainingRow(name="s", stage="teacher", steps=4, metrics={"colour": 0.98765, "flicker": None}, num_clips=100)
    table = facts.attribute_table(TrainedRun(digest="d", folder="train/d", metrics=(), rows=(row,)))
    assert table is not None
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert (cells["colour"].text, cells["colour"].raw) == ("0.99", 0.98765)
    assert cells["flicker"].text == "—"
    assert "at most 5.0 %" in table.note  # sqrt(0.25 / 100)


def test_timeline_places_stages_by_their_start() -> None:
    stages = (
        StageState(name="profile", state="done", started_at="2026-01-01T00:00:00Z", seconds=30.0),
        StageState(name="search", state="done", started_at="2026-01-01T00:01:00Z", seconds=60.0),
        StageState(name="train", state="pending"),
    )
    spans = facts.timeline(stages)
    assert [(span.start_ratio, span.length_ratio) for span in spans] == [(0.0, 0.25), (0.5, 0.5), (0.0, 0.0)]
    assert [span.shown for span in spans] == [True, True, False]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (TrainingRow(name="r", stage="real", metrics={}), "held-out clips, not generated"),
        (
            TrainingRow(name="t", stage="teacher", steps=25, guidance=3.0, calls=50, metrics={}),
            "teacher, 25 steps, guidance 3, 50 denoiser calls",
        ),
        (
            TrainingRow(name="s", stage="adversarial", steps=1, guidance=0.0, calls=1, metrics={}),
            "adversarial, 1 step, no guidance, 1 denoiser call",
        ),
    ],
)
def test_clip_captions_say_what_they_show(row: TrainingRow, text: str) -> None:
    assert describe_row(row) == text


def test_clips_are_real_first_and_carry_their_size(finished_run: Path) -> None:
    clips = clips_of(finished_run, read_run(finished_run).trained[0])
    assert [clip.role for clip in clips] == ["real", "teacher", "distillation", "distillation", "adversarial"]
    assert {(clip.width, clip.height) for clip in clips} == {(134, 66)}
    assert all(clip.uri and clip.uri.startswith("data:image/gif;base64,R0lGOD") for clip in clips)


def test_clips_beyond_the_limit_are_named_not_shown(finished_run: Path) -> None:
    clips = clips_of(finished_run, read_run(finished_run).trained[0], byte_limit=10)
    assert all(clip.uri is None and clip.missing.startswith("left out") for clip in clips)


@pytest.mark.parametrize(
    ("clip", "content", "missing"),
    [
        ("samples/none.gif", None, "file is absent"),
        ("samples/text.gif", b"<svg onload=alert(1)>", "is not a GIF"),
        ("../../secret.gif", b"GIF89a" + bytes(10), "lies outside its training folder"),
    ],
)
def test_a_clip_that_cannot_be_shown_says_why(tmp_path: Path, clip: str, content: bytes | None, missing: str) -> None:
    folder = tmp_path / "train/d"
    (folder / "samples").mkdir(parents=True)
    if content is not None:
        (folder / clip).resolve().write_bytes(content)
    row = TrainingRow(name="n", stage="teacher", metrics={}, clip=clip)
    (found,) = clips_of(tmp_path, TrainedRun(digest="d", folder="train/d", metrics=(), rows=(row,)))
    assert found.uri is None
    assert found.missing == missing
