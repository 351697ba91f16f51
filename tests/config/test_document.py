"""YAML is read with places, and its traps are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nas.config.document import apply_overrides, parse_document, read_document
from nas.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_places_are_those_of_the_keys() -> None:
    document = parse_document("run:\n  name: demo\n  seed: 3\n", source="run.yaml")
    assert document.places[("run", "seed")] == (3, 3)
    assert document.place(("run", "seed", "below")) == (3, 3)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1.5", 1.5), ("-2E3", -2000.0), ("12", 12), ("1e", "1e"), (".5", 0.5)]
)
def test_numbers_are_yaml_1_2(text: str, value: float | str) -> None:
    assert parse_document(f"a: {text}", source="x").data == {"a": value}
    assert type(parse_document(f"a: {text}", source="x").data["a"]) is type(value)


def test_duplicate_key_is_a_problem() -> None:
    document = parse_document("a: 1\nb: 2\na: 3\n", source="run.yaml")
    assert [(problem.path, problem.line) for problem in document.problems] == [("a", 3)]


def test_broken_yaml_names_the_place() -> None:
    with pytest.raises(ConfigError, match="not YAML") as caught:
        parse_document("a: [1,\nb: 2", source="run.yaml")
    assert caught.value.problems[0].line == 2


def test_missing_file_points_to_init(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        read_document(tmp_path / "none.yaml")
    assert caught.value.hint == "`nas init` writes a starter file"


def test_overrides_are_read_as_yaml() -> None:
    document = parse_document("train: {steps: 5}", source="x")
    apply_overrides(document, ("train.steps=7", "train.rate=1e-3", "new.key=[1, two]"))
    assert document.data == {"train": {"steps": 7, "rate": 1e-3}, "new": {"key": [1, "two"]}}


@pytest.mark.parametrize("setting", ["steps", "=3", "train.steps.x=1", "a={"])
def test_bad_overrides_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        apply_overrides(parse_document("train: {steps: 5}", source="x"), (setting,))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: \x07\n", 2),
        ("a: 1\nb: &a [*a]\n", None),
        ("a: " + "[" * 2000 + "]" * 2000, None),
        ("a: 1\nb: 2024-13-45\n", 2),
        ("a: 1\nb: !!int abc\n", 2),
        ("a: 1\nb: !!bool abc\n", 2),
        ("a: 1\n!!int abc: 2\n", 2),
    ],
    ids=["control", "recursive", "deep", "date", "int", "bool", "key"],
)
def test_what_pyyaml_lets_through_is_a_fault_too(text: str, line: int | None) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: not YAML") as caught:
        parse_document(text, source="run.yaml")
    (problem,) = caught.value.problems
    assert problem.file == "run.yaml"
    assert line is None or problem.line == line


@pytest.mark.parametrize("value", ["2024-13-45", "!!int abc", "\x07", "&a [*a]", "[" * 2000])
def test_settings_with_such_values_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        apply_overrides(parse_document("run: {name: x}", source="x"), (f"run.name={value}",))
