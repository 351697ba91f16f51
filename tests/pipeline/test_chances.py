"""Members of a front carry the probability of keeping their limits, and the choice is among those sure enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nas.core.pareto import ParetoFront
from nas.core.protocols import SilentProgress
from nas.pipeline import search
from nas.pipeline.chances import choose
from nas.pipeline.context import open_run
from nas.pipeline.show import describe
from nas.runs.front import DeviceChances, FrontFile, MemberChance, read_front
from tests.pipeline.test_impossible_budgets import RUN


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[FrontFile, str]:
    """The front of a small search on an uncalibrated phone, and what `nas show` prints of it."""
    folder = tmp_path_factory.mktemp("chances")
    limits = "latency_share: 0.4, peak_memory_mb: 60, package_mb: 2.6, probability: 0.9, runs_on: neural_engine"
    text = RUN.replace("DIRECTORY", str(folder / "runs")).replace("BUDGET", limits)
    (folder / "run.yaml").write_text(
        text.replace("evaluations: 8", "evaluations: 24") + "quality: {type: temporal_capacity}\n"
    )
    context = open_run(str(folder / "run.yaml"))
    stage = context.path("search")
    stage.mkdir()
    search.perform(context, stage, SilentProgress())
    return read_front(stage / "front.json"), describe(context, "front", None)[1]


def test_every_member_keeps_its_limits_with_the_asked_probability(searched: tuple[FrontFile, str]) -> None:
    front, _ = searched
    (chances,) = front.chances
    assert (chances.device, chances.asked) == ("iphone15_pro", 0.9)
    assert {item.digest for item in chances.members} == {member.architecture.digest for member in front.members}
    assert all(0.9 <= item.probability < 1.0 for item in chances.members)
    for member in front.members:
        cost = member.cost
        assert cost.upper is not None
        assert cost.upper.level == pytest.approx(0.95)  # latency and memory share the probability of a miss
        assert cost.package_mb is not None
        assert cost.package_mb <= 2.6
        assert not any("conv3d" in str(value) for value in member.architecture.values())


def test_show_prints_probabilities_limits_and_what_nothing_has_checked(searched: tuple[FrontFile, str]) -> None:
    _, text = searched
    assert "P(keeps it)" in text.splitlines()[0]
    assert "package at most 2.60 MB, every block on neural_engine, kept with probability 0.9" in text
    assert "log-normal, unchecked" in text


def test_the_choice_is_among_members_that_keep_it_after_the_selection(searched: tuple[FrontFile, str]) -> None:
    front, _ = searched
    members = front.front.members
    assert len(members) > 2
    best = front.front.best()
    doubtful = tuple(
        MemberChance(digest=item.architecture.digest, probability=0.95, after_selection=0.8 if item is best else 0.92)
        for item in members
    )
    chances = (DeviceChances(device="phone", asked=0.9, basis="test", members=doubtful),)
    others = ParetoFront(tuple(item for item in members if item is not best))
    assert choose(front.front, "best", chances) == others.best()
    assert choose(front.front, best.architecture.digest, chances) == best
    assert choose(front.front, "best", (replace(chances[0], asked=None),)) == best


def test_a_front_that_is_not_sure_enough_is_chosen_from_with_a_warning(
    searched: tuple[FrontFile, str], caplog: pytest.LogCaptureFixture
) -> None:
    front, _ = searched
    low = tuple(MemberChance(digest=item.architecture.digest, probability=0.5) for item in front.members)
    chances = (DeviceChances(device="phone", asked=0.9, basis="test", members=low),)
    assert choose(front.front, "best", chances) == front.front.best()
    assert "no member of the front keeps the asked probability" in caplog.text
