from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import search_spaces
from nas.core.architecture import ChoiceSpec
from search_spaces import CategoricalSpace
from search_spaces.operators import crossover, hamming, mutate, neighbours, sample

TINY = search_spaces.get("tiny")
seeds = st.integers(0, 2**32)


@given(seed=seeds)
def test_sample_is_valid_and_a_function_of_the_generator(seed: int) -> None:
    point = sample(TINY, Random(seed))
    TINY.validate(point)
    assert sample(TINY, Random(seed)) == point


def test_sample_draws_every_architecture_equally_often() -> None:
    kind = ChoiceSpec(name="kind", values=("none", "conv"))
    width = ChoiceSpec(name="width", values=(1, 2, 3), active_when=(("kind", ("conv",)),))
    space = CategoricalSpace("small", 1, {"slot": (kind, width)})
    rng = Random(0)
    drawn = Counter(sample(space, rng) for _ in range(4000))
    # Four architectures; a draw by choice would give "none" half of the draws. 5 sigma of a binomial is 137.
    assert len(drawn) == 4
    assert all(abs(count - 1000) < 137 for count in drawn.values())


@given(seed=seeds, slots=st.integers(1, 7))
def test_mutate_changes_exactly_the_wanted_number_of_slots(seed: int, slots: int) -> None:
    rng = Random(seed)
    point = sample(TINY, rng)
    changed = mutate(TINY, point, rng, slots=slots)
    TINY.validate(changed)
    assert hamming(TINY, point, changed) == min(slots, 5)


def test_mutate_reaches_every_neighbour() -> None:
    rng = Random(0)
    point = TINY.largest()
    reached = {mutate(TINY, point, rng) for _ in range(3000)}
    assert reached == set(neighbours(TINY, point))


def test_mutate_refuses_no_slots() -> None:
    with pytest.raises(ValueError, match="slots must be at least 1, got 0"):
        mutate(TINY, TINY.smallest(), Random(0), slots=0)


@given(seed=seeds)
def test_crossover_takes_every_slot_from_a_parent(seed: int) -> None:
    rng = Random(seed)
    first, second = sample(TINY, rng), sample(TINY, rng)
    child = TINY.to_options(crossover(TINY, first, second, rng))
    parents = zip(TINY.to_options(first), TINY.to_options(second), strict=True)
    assert all(option in pair for option, pair in zip(child, parents, strict=True))


@given(seed=seeds)
def test_crossover_of_equal_parents_is_the_parent(seed: int) -> None:
    rng = Random(seed)
    point = sample(TINY, rng)
    assert crossover(TINY, point, point, rng) == point


def test_neighbours_are_all_architectures_at_distance_one() -> None:
    point = sample(TINY, Random(1))
    near = neighbours(TINY, point)
    assert len(set(near)) == len(near) == 5 * 22
    assert {hamming(TINY, point, other) for other in near} == {1}


def test_neighbourhood_is_symmetric() -> None:
    point = sample(TINY, Random(2))
    assert all(point in neighbours(TINY, other) for other in neighbours(TINY, point)[::10])


@given(seed=seeds)
def test_hamming_is_a_metric(seed: int) -> None:
    rng = Random(seed)
    one, two, three = (sample(TINY, rng) for _ in range(3))
    assert hamming(TINY, one, one) == 0
    assert hamming(TINY, one, two) == hamming(TINY, two, one)
    assert hamming(TINY, one, three) <= hamming(TINY, one, two) + hamming(TINY, two, three)
