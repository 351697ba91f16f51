from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

import search_spaces
from nas.core.architecture import Architecture, ChoiceSpec
from nas.core.errors import ArchitectureError
from search_spaces import CategoricalSpace

CHAIN = {
    "a": (
        ChoiceSpec(name="a.kind", values=("none", "conv", "attention")),
        ChoiceSpec(name="a.width", values=(0.5, 1.0), active_when=(("a.kind", ("conv", "attention")),)),
        ChoiceSpec(name="a.heads", values=(2, 4, 8), active_when=(("a.kind", ("attention",)), ("a.width", (1.0,)))),
    ),
    "b": (ChoiceSpec(name="b.kind", values=("none", "conv")),),
}


@pytest.fixture
def chain() -> CategoricalSpace:
    return CategoricalSpace("chain", 1, CHAIN)


def every_vector(space: CategoricalSpace) -> list[tuple[int, ...]]:
    return list(product(*(range(len(choice.values)) for choice in space.choices())))


def test_count_equals_distinct_decodings_of_all_index_vectors(chain: CategoricalSpace) -> None:
    # none; conv at two widths; attention narrow; attention wide with three numbers of heads: 7, times 2
    assert len({chain.decode(vector) for vector in every_vector(chain)}) == chain.count() == 14


def test_options_enumerate_every_distinct_setting_of_a_slot_once(chain: CategoricalSpace) -> None:
    decoded = {chain.decode(vector) for vector in every_vector(chain)}
    settings = {tuple((name, value) for name, value in point.items() if name[0] == "a") for point in decoded}
    assert sorted(tuple(sorted(option.items())) for option in chain.options("a")) == sorted(settings)


def test_first_option_is_the_first_kind_alone(chain: CategoricalSpace) -> None:
    assert chain.options("a")[0] == {"a.kind": "none"}


def test_inactive_choices_vanish_and_encode_as_zero(chain: CategoricalSpace) -> None:
    point = chain.decode((1, 1, 2, 0))
    assert dict(point) == {"a.kind": "conv", "a.width": 1.0, "b.kind": "none"}
    assert chain.encode(point) == (1, 1, 0, 0)


def test_every_option_vector_round_trips(chain: CategoricalSpace) -> None:
    for vector in product(range(7), range(2)):
        assert chain.to_options(chain.from_options(vector)) == vector


# Hand count: none, conv1d 3 widths x 2 kernels, conv3d 3 widths, four attentions 3 widths x 2 heads; each but none
# once or twice in a row.
@pytest.mark.parametrize(
    ("name", "slots", "options"),
    [("snapgen_v", 10, 1 + 2 * (3 * 2 + 3 + 4 * 3 * 2)), ("tiny", 5, 1 + 2 * 2 + 2 + 4 * 2 * 2)],
)
def test_exact_count_of_the_released_spaces(name: str, slots: int, options: int) -> None:
    space = search_spaces.get(name)
    assert [len(space.options(slot)) for slot in space.slots()] == [options] * slots
    assert space.count() == options**slots


def test_snapgen_v_has_more_than_a_million_million_architectures() -> None:
    assert search_spaces.get("snapgen_v").count() == 67**10 == 1_822_837_804_551_761_449 > 10**12


@given(data=st.data())
def test_tiny_round_trips_through_indices_options_and_dict(data: st.DataObject) -> None:
    space = search_spaces.get("tiny")
    vector = data.draw(st.tuples(*(st.integers(0, len(choice.values) - 1) for choice in space.choices())))
    point = space.decode(vector)
    assert space.decode(space.encode(point)) == point
    assert space.from_options(space.to_options(point)) == point
    assert Architecture.from_dict(point.to_dict()).digest == point.digest


def test_every_fault_of_an_architecture_is_named() -> None:
    space = search_spaces.get("tiny")
    choices = dict(space.smallest().choices)
    choices |= {"down0.0.kind": "conv1d", "down0.0.width_ratio": 0.3, "mid.0.kernel": 3, "mid.0.knd": "none"}
    with pytest.raises(ArchitectureError) as caught:
        space.validate(Architecture("tiny/2", choices))
    assert {(problem.path, problem.message.split(",")[0].split(";")[0]) for problem in caught.value.problems} == {
        ("space", "belongs to space 'tiny/2'"),
        ("mid.0.knd", "unknown choice"),
        ("down0.0.width_ratio", "must be one of 0.5"),
        ("down0.0.kernel", "is missing"),
        ("mid.0.kernel", "is set although its condition does not hold"),
    }
    assert "did you mean 'mid.0.kind'?" in str(caught.value)


@pytest.mark.parametrize("value", [None, ["none"], True])
def test_value_of_another_type_is_refused(chain: CategoricalSpace, value: object) -> None:
    architecture = chain.from_options([0] * len(chain.slots()))
    name = architecture.choices[0][0]
    with pytest.raises(ArchitectureError, match="must be one of"):
        chain.to_options(Architecture(chain.identifier, {**architecture, name: value}))  # type: ignore[dict-item]


def test_whole_number_for_a_ratio_is_refused_because_its_digest_differs() -> None:
    space = search_spaces.get("tiny")
    choices = dict(space.smallest().choices) | {"mid.0.kind": "conv3d", "mid.0.width_ratio": 1}
    with pytest.raises(ArchitectureError, match=r"mid\.0\.width_ratio: must be one of 0\.5, 1\.0, got 1"):
        space.validate(Architecture("tiny/1", choices))


@pytest.mark.parametrize(
    ("indices", "message"),
    [((0, 0, 0), "needs 4 indices, got 3"), ((3, 0, -1, 0), "a.kind: index must be 0 to 2, got 3; a.heads: index")],
)
def test_index_vectors_out_of_range_are_refused(
    chain: CategoricalSpace, indices: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ArchitectureError, match=message):
        chain.decode(indices)


@pytest.mark.parametrize(("options", "message"), [((0,), "needs 2 options"), ((7, 0), "slot 'a' has 7 options, got 7")])
def test_option_vectors_out_of_range_are_refused(
    chain: CategoricalSpace, options: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ArchitectureError, match=message):
        chain.from_options(options)


def test_unknown_slot_lists_the_known_ones(chain: CategoricalSpace) -> None:
    with pytest.raises(ArchitectureError, match="unknown slot 'c'; known are a, b"):
        chain.options("c")


@pytest.mark.parametrize(
    ("condition", "message"),
    [(("b.kind", ("x",)), "not an earlier choice of slot 'a'"), (("a.kind", ("y",)), "'a.kind' does not have")],
)
def test_condition_must_hold_on_an_earlier_choice_of_the_slot(
    condition: tuple[str, tuple[str, ...]], message: str
) -> None:
    dependent = ChoiceSpec(name="a.width", values=(1,), active_when=(condition,))
    with pytest.raises(ValueError, match=message):
        CategoricalSpace("bad", 1, {"a": (ChoiceSpec(name="a.kind", values=("x",)), dependent)})


def test_repeated_choice_name_is_refused() -> None:
    choice = ChoiceSpec(name="kind", values=("x",))
    with pytest.raises(ValueError, match="uses a choice name twice"):
        CategoricalSpace("bad", 1, {"a": (choice,), "b": (choice,)})
