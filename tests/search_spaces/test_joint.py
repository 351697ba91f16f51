"""A joint space keeps every law of a search space, and gives back architecture and scenario."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import search_spaces
from nas.core.architecture import Architecture
from nas.core.errors import ArchitectureError
from nas.core.scenario import Scenario, ScenarioPoint, scenario_point
from search_spaces.joint import JointSpace, ScenarioValues

TINY = search_spaces.get("tiny")
VALUES = ScenarioValues(denoising_steps=(2, 4, 8), frames=(8, 16), size=((32, 32), (32, 64)), weight_bits=(16, 4))
SPACE = JointSpace(TINY, VALUES)
ROWS = st.tuples(*(st.integers(0, len(SPACE.options(slot)) - 1) for slot in SPACE.slots()))


def test_count_is_that_of_the_architectures_times_the_scenarios() -> None:
    assert SPACE.count() == TINY.count() * 3 * 2 * 2 * 2
    assert len(set(SPACE.points)) == len(SPACE.points) == 24


@given(ROWS)
def test_options_index_vectors_and_text_give_back_the_architecture(row: tuple[int, ...]) -> None:
    architecture = SPACE.from_options(row)
    SPACE.validate(architecture)
    assert SPACE.to_options(architecture) == row
    assert SPACE.decode(SPACE.encode(architecture)) == architecture
    assert Architecture.from_text(architecture.text) == architecture


@given(ROWS)
def test_a_split_architecture_is_of_the_inner_space_and_joins_again(row: tuple[int, ...]) -> None:
    architecture = SPACE.from_options(row)
    inner, point = SPACE.split(architecture)
    TINY.validate(inner)
    assert TINY.to_options(inner) == row[:-1]
    assert SPACE.join(inner, point) == architecture
    assert scenario_point(architecture) == point


def test_digests_tell_scenarios_apart() -> None:
    digests = {SPACE.join(TINY.smallest(), point).digest for point in SPACE.points}
    assert len(digests) == len(SPACE.points)


def test_only_what_is_a_choice_is_in_the_slot() -> None:
    space = JointSpace(TINY, ScenarioValues(frames=(8, 16)))
    assert [dict(option) for option in space.options("scenario")] == [{"scenario.frames": 8}, {"scenario.frames": 16}]
    assert space.points == (ScenarioPoint(frames=8), ScenarioPoint(frames=16))


def test_a_point_replaces_its_own_part_of_a_scenario() -> None:
    scenario = Scenario(frames=8, height=32, width=32, denoising_steps=4, guidance=True)
    changed = ScenarioPoint(denoising_steps=2, size=(64, 32)).applied(scenario)
    assert changed == Scenario(frames=8, height=64, width=32, denoising_steps=2, guidance=True)


def test_a_workload_is_that_of_the_inner_architecture_in_the_chosen_scenario() -> None:
    base = Scenario(frames=8, height=32, width=32, denoising_steps=4)
    inner = TINY.largest()
    joint = SPACE.join(inner, ScenarioPoint(denoising_steps=8, frames=16, size=(32, 64), weight_bits=4))
    wide = Scenario(frames=16, height=32, width=64, denoising_steps=8)
    assert SPACE.workload(joint, base) == TINY.workload(inner, wide)


def test_an_architecture_without_its_scenario_is_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"belongs to space 'tiny/1', not to 'tiny\+scenario/1'"):
        SPACE.split(TINY.smallest())


def test_a_joint_space_needs_a_choice() -> None:
    with pytest.raises(ValueError, match="at least one choice of the scenario"):
        JointSpace(TINY, ScenarioValues())
