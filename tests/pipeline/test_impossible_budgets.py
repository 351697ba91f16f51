"""An impossible budget ends a search before its quality estimator costs anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nas.core.errors import BudgetError
from nas.core.protocols import SilentProgress
from nas.pipeline import search, stages
from nas.pipeline.context import open_run

if TYPE_CHECKING:
    from pathlib import Path

    from nas.config.run import RunConfig

RUN = """\
run: {name: x, directory: DIRECTORY}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32}
device: {name: iphone15_pro}
budget: {BUDGET}
search: {evaluations: 8, batch: 4}
"""


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("package_mb: 1", "package_mb allows 1 MB, the least of any is 1.88 MB"),
        ("parameters: 900000, latency_share: 0.5, package_mb: 1.9", None),
        ("probability: 0.99, latency_ms: 0.5", "the end that all limits keep with a probability of 0.99"),
    ],
)
def test_nothing_is_trained_for_a_budget_that_nothing_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str, message: str | None
) -> None:
    class Reached(Exception):
        pass

    def estimator(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr(search, "make_levels", estimator)
    file = tmp_path / "run.yaml"
    file.write_text(RUN.replace("DIRECTORY", str(tmp_path / "runs")).replace("BUDGET", budget))
    context = open_run(str(file))
    if message is None:
        with pytest.raises(Reached):
            search.perform(context, tmp_path, SilentProgress())
        return
    with pytest.raises(BudgetError) as caught:
        search.perform(context, tmp_path, SilentProgress())
    assert message in caught.value.message
    assert not (tmp_path / "evaluations.jsonl").exists()


def test_an_impossible_budget_leaves_the_journal_of_an_earlier_search_even_when_forced(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    text = RUN.replace("DIRECTORY", str(tmp_path / "runs")).replace("BUDGET", "latency_share: 0.5")
    file.write_text(text + "quality: {type: temporal_capacity}\n")
    context = open_run(str(file))

    def perform(config: RunConfig, *, force: bool) -> None:
        own = replace(context, config=config)
        stages.perform(own, ("search",), force=force, progress=lambda _: SilentProgress(), say=lambda _: None)

    perform(context.config, force=False)
    journal = context.path("search", "evaluations.jsonl")
    before = journal.read_bytes()
    limits = context.config.budget.model_copy(update={"package_mb": 0.5})
    with pytest.raises(BudgetError, match=r"package_mb allows 0\.5 MB"):
        perform(context.config.model_copy(update={"budget": limits}), force=True)
    assert before
    assert journal.read_bytes() == before
    assert context.directory.state("search") == "done"
