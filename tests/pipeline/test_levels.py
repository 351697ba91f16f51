"""Levels of quality and a warm start, from the YAML to the journal and the front."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest

import search_spaces
from nas.config.run import load_run
from nas.core.errors import ConfigError, InputError
from nas.core.protocols import SilentProgress
from nas.pipeline.costs import additive_costs, load_cost_table
from nas.pipeline.foreknowledge import read_foreknowledge
from nas.pipeline.show import describe
from nas.pipeline.stages import perform
from nas.runs.front import read_front
from nas.runs.journal import Journal
from tests.integration.small_run import SMALL_RUN
from tests.pipeline.test_checks import GOOD, found
from tests.pipeline.test_stages import begin, without_sections

if TYPE_CHECKING:
    from pathlib import Path

    from nas.pipeline.context import Context

CAPACITY = "- {type: temporal_capacity, price: 0.05}"
SUPERNET = "- {type: supernet, clips: 32, held_out_clips: 18, price: 0.2, options: {loop: {steps: 2, batch_size: 4}}}"
SHORT = "- {type: short_training, steps: 2, batch_size: 4, backbone_steps: 2, clips: 18, held_out_clips: 18%s}"


SEARCH = "{engine: {type: model_based, start: 6}, evaluations: 3, batch: 4%s}"
PLAIN = "quality: {type: temporal_capacity}\n"


def start(folder: Path, *levels: str, search: str = SEARCH, more: str = "") -> Context:
    """A run of the toy space priced with a phone's prior, whose search judges by ``levels``."""
    folder.mkdir(exist_ok=True)
    text = without_sections(SMALL_RUN.replace("DIRECTORY", str(folder)), "phases", "profile", "calibrate")
    head = text[: text.index("search:")].replace("name: host-cpu", "name: iphone16_pro_max")
    quality = "quality:\n  type: levels\n  levels:\n" + "".join(f"    {level}\n" for level in levels)
    return begin(folder, f"{head}search: {search % more}\n{quality if levels else PLAIN}report: {{}}\n")


def run_search(context: Context) -> None:
    with context.directory.lock():
        perform(context, ("search",), force=False, progress=lambda _: SilentProgress(), say=lambda _: None)


def test_levels_reach_the_journal_and_the_front(tmp_path: Path) -> None:
    context = start(tmp_path, CAPACITY, SUPERNET, SHORT % ", teacher: supernet")
    run_search(context)
    records = Journal(context.path("search", "evaluations.jsonl")).read()
    front = read_front(context.path("search", "front.json"))

    judged = {one.proposal.level: one.quality.estimator for one in records if one.quality}
    assert judged == {0: "temporal_capacity (proxy)", 1: "supernet", None: "short_training"}
    assert {one.quality.estimator for one in front.members if one.quality} == {"short_training"}
    counts = [sum(one.proposal.level == level for one in records) for level in (0, 1, None)]
    assert [(level.price, level.complete) for level in front.levels] == list(zip((0.05, 0.2, 1.0), counts, strict=True))
    assert front.quality_estimator.startswith("short_training, 2 steps distilled")
    assert "quality level 1: temporal_capacity (proxy), training-free" in describe(context, "front", None)[1]
    promoted = front.members[0].architecture.digest
    assert describe(context, "architecture", promoted)[0]["quality"]["estimator"] == "short_training"
    with context.directory.lock():
        perform(context, ("report",), force=False, progress=lambda _: SilentProgress(), say=lambda _: None)
    page = context.path("report", "index.html").read_text()
    assert "Quality was judged at 3 levels" in page
    rows = list(csv.DictReader(context.path("report", "tables", "evaluations.csv").open()))
    assert {row["quality_estimator"] for row in rows if row["in_front"] == "True"} == {"short_training"}


def test_one_estimator_has_no_levels(tmp_path: Path) -> None:
    context = start(tmp_path)
    run_search(context)

    assert read_front(context.path("search", "front.json")).levels == ()
    assert all(one.at_highest_level for one in Journal(context.path("search", "evaluations.jsonl")).read())


def test_warm_start_takes_a_file_and_an_earlier_run(tmp_path: Path) -> None:
    first = start(tmp_path / "first", search="{engine: {type: random}, evaluations: 12, batch: 4%s}")
    run_search(first)
    (tmp_path / "known.csv").write_text("slot,kind,change\ndown0.0,conv1d,0.5\ndown0.0,conv3d,0.2\n")
    second = start(tmp_path / "second", more=f", warm_start: [{tmp_path / 'known.csv'}, {first.directory.path}]")
    run_search(second)
    records = Journal(second.path("search", "evaluations.jsonl")).read()

    slots = second.space.slots()
    kinds = {tuple(one.architecture[f"{slot}.kind"] for slot in slots) for one in records}
    assert ("conv1d", "none", "none", "none", "none") in kinds


def test_warm_start_from_another_space_is_refused(tmp_path: Path) -> None:
    first = start(tmp_path, search="{engine: {type: random}, evaluations: 12, batch: 4%s}")
    run_search(first)
    latency = additive_costs(load_cost_table(first)).hint_ms

    with pytest.raises(InputError, match="is of space 'tiny/1', the run searches 'snapgen_v/1'"):
        read_foreknowledge([str(first.directory.path)], search_spaces.get("snapgen_v"), latency=latency)


def test_warm_start_from_too_little_is_refused(tmp_path: Path) -> None:
    first = start(tmp_path / "first", search="{engine: {type: random}, evaluations: 3, batch: 4%s}")
    run_search(first)

    with pytest.raises(InputError, match="holds 3 judged candidates, needs at least 8"):
        run_search(start(tmp_path / "second", more=f", warm_start: [{first.directory.path}]"))


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        (
            "[{type: temporal_capacity, price: 0.5}, {type: supernet, price: 0.2}]",
            "prices must rise",
        ),
        ("[{type: temporal_capacity, price: 0.5}]", "at least 2"),
        ("[{type: temporal_capacity, price: 0.5}, {type: short_training, teacher: supernet}]", "needs a level of type"),
        ("[{type: temporal_capacity, price: 0}, {type: supernet}]", "above 0"),
        ("[{type: temporal_capacity, price: 0.1}, {type: supernett}]", "did you mean 'supernet'"),
        ("[{type: supernet, price: 0.1}, {type: supernet, clips: 64}]", "share one supernet"),
        (
            "[{type: supernet, price: 0.1}, {type: short_training, start: supernet, supernet: {rule: sandwich}}]",
            "share one supernet",
        ),
        (
            "[{type: proxy, name: grad_norm, backbone_steps: 9, price: 0.1}, {type: short_training}]",
            "share one backbone",
        ),
        ("[{type: proxy, name: naswot, price: 0.1}, {type: supernet}]", "grad_norm"),
        ("[{type: temporal_capacity, price: 0.1, resources: {cpus: 0}}, {type: supernet}]", "processor"),
    ],
)
def test_faulty_levels_are_named(tmp_path: Path, quality: str, message: str) -> None:
    text = GOOD + f"search: {{engine: {{type: random}}}}\nquality: {{type: levels, levels: {quality}}}\n"
    (tmp_path / "run.yaml").write_text(text.replace("DIRECTORY", str(tmp_path)))

    with pytest.raises(ConfigError, match=message):
        load_run(tmp_path / "run.yaml")


def test_engines_that_cannot_wait_are_refused(tmp_path: Path) -> None:
    levels = "quality: {type: levels, levels: [{type: temporal_capacity, price: 0.1}, {type: supernet}]}\n"
    faults = found(tmp_path, GOOD + "search: {engine: {type: evolving}}\n" + levels)

    assert faults["search.engine"][0] == 5
    assert "model_based" in faults["search.engine"][1]


def test_warm_start_paths_are_checked_before_the_run(tmp_path: Path) -> None:
    faults = found(tmp_path, GOOD + f"search:\n  engine: {{type: random}}\n  warm_start: [none.csv, {tmp_path}]\n")

    assert faults["search.warm_start"][0] == 7
    assert "is no run with a search" in faults["search.warm_start"][1]


def test_short_training_needs_the_projects_own_clips(tmp_path: Path) -> None:
    text = GOOD.replace("height: 32", "height: 64") + "search: {}\nquality: {type: short_training}\n"

    assert "quality 'short_training' uses the project's own clips" in found(tmp_path, text)["scenario"][1]


def test_fronts_without_levels_still_read(tmp_path: Path) -> None:
    context = start(tmp_path)
    run_search(context)
    path = context.path("search", "front.json")
    data = json.loads(path.read_text())
    del data["levels"]
    path.write_text(json.dumps(data))

    assert read_front(path).levels == ()
