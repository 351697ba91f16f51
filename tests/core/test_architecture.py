"""Architectures are canonical, hashable and survive JSON."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.core.architecture import Architecture, ChoiceSpec
from nas.core.errors import InputError
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


@given(choices=CHOICES)
def test_record_round_trip_keeps_every_choice_and_its_type(choices: dict[str, str | int | float]) -> None:
    architecture = Architecture("space/1", choices)
    again = Architecture.from_record(json.loads(json.dumps(architecture.to_record())))
    assert again.digest == architecture.digest
    assert again == architecture
    assert to_data(again) == to_data(architecture)
    assert list(map(type, again.values())) == list(map(type, architecture.values()))


@given(choices=CHOICES)
def test_digest_is_of_the_canonical_json(choices: dict[str, str | int | float]) -> None:
    text = json.dumps(
        {"space": "space/1", "choices": choices}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert Architecture("space/1", choices).digest == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_zero_and_negative_zero_are_different_values() -> None:
    zeros = [Architecture("s/1", {"a": value}) for value in (0.0, -0.0)]
    assert zeros[0].digest != zeros[1].digest
    assert [one.to_record().split("=")[1] for one in zeros] == ["0.0", "-0.0"]


def test_record_of_plain_choices_is_one_line_of_text() -> None:
    architecture = Architecture("s/1", {"b": 1, "a": "x", "c": 0.5})
    assert architecture.to_record() == f"{architecture.digest} s/1 a=x b=1 c=0.5"


def test_changed_record_is_noticed_when_it_is_used() -> None:
    record = Architecture("s/1", {"b": 1, "a": "x"}).to_record()
    with pytest.raises(InputError, match="has choices of another digest"):
        _ = Architecture.from_record(record.replace("b=1", "b=2")).choices


@pytest.mark.parametrize("record", ["", "a=1", "2b3fecb475d97e26", "2b3fecb475d97e26 s a=1", 5, {"space": "s/1"}])
def test_record_that_is_no_architecture_is_refused(record: Any) -> None:
    with pytest.raises(ValueError, match="an architecture is"):
        Architecture.from_record(record)
