"""Architectures are canonical, hashable and survive JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.core.architecture import Architecture, ChoiceSpec
from nas.core.schema import from_data, to_data

CHOICES = st.dictionaries(
    st.text(min_size=1), st.one_of(st.integers(), st.text(), st.floats(allow_nan=False, allow_infinity=False))
)


@given(choices=CHOICES)
def test_json_round_trip_keeps_equality_hash_and_digest(choices: dict[str, str | int | float]) -> None:
    architecture = Architecture("space/1", choices)
    again = from_data(Architecture, json.loads(json.dumps(to_data(architecture))))
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert again.digest == architecture.digest


def test_order_of_choices_does_not_matter() -> None:
    assert Architecture("s/1", {"a": 1, "b": 2}) == Architecture("s/1", {"b": 2, "a": 1})


def test_digest_is_pinned() -> None:
    # SHA-256 of {"choices":{"a":"x","b":1},"space":"s/1"}, computed with sha256sum.
    assert Architecture("s/1", {"b": 1, "a": "x"}).digest == "2b3fecb475d97e26"


def test_space_is_part_of_identity() -> None:
    assert Architecture("s/1", {"a": 1}) != Architecture("s/2", {"a": 1})


def test_an_architecture_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        Architecture("s/1", {}).space = "other"


@pytest.mark.parametrize("values", [(), (1, 1)])
def test_a_choice_needs_distinct_values(values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"has no values|repeats a value"):
        ChoiceSpec(name="kind", values=values)


WORDS = st.text(alphabet="abc.", min_size=1)


@given(
    choices=st.dictionaries(WORDS, st.one_of(st.integers(), WORDS, st.floats(allow_nan=False, allow_infinity=False)))
)
def test_text_round_trip_keeps_the_digest(choices: dict[str, str | int | float]) -> None:
    architecture = Architecture("space/1", choices)
    assert Architecture.from_text(architecture.text).digest == architecture.digest


@pytest.mark.parametrize(
    ("text", "message"), [("tiny a=1", "begins with its space and version"), ("tiny/1 a= b", "got 'a'")]
)
def test_text_that_is_no_architecture_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture.from_text(text)
