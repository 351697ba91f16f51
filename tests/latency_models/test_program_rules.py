"""Rules on programs: their file is whole, they hold where they say and nowhere else."""

from __future__ import annotations

import pytest

from latency_models.devices import get as device
from latency_models.devices import names
from latency_models.program_rules import ProgramRule, read_rules, rules_for
from nas.core.errors import InputError

HEAD = "schema: nas/program_rules/1\nrules:\n"
RULE = "- {id: a, unit: gpu, effect: risk, operations: [pow], text: t, source: s, date: '2026-11-21'}\n"


def refused(kind: str, chip: str = "A18 Pro", shape: tuple[int, ...] = (1, 8), dtype: str = "float16") -> list[str]:
    rules = [rule for rule in rules_for("neural_engine", chip) if rule.effect == "refused"]
    return [rule.id for rule in rules if rule.applies(kind, inputs=(shape,), outputs=(shape,), dtypes=(dtype,))]


def test_other_types_than_float16_leave_the_engine() -> None:
    assert refused("add", dtype="float32") == ["ne-float16-only"]
    assert refused("add") == []


@pytest.mark.parametrize(
    ("chip", "found"), [("A14 Bionic", ["ne-trigonometry"]), ("A18 Pro", []), ("M1", ["ne-trigonometry"])]
)
def test_sine_depends_on_the_chip(chip: str, found: list[str]) -> None:
    assert refused("sin", chip) == found


def test_operations_that_never_run_on_the_engine() -> None:
    assert refused("gather") == ["ne-gather"]
    assert refused("while_loop") == ["ne-control-flow"]
    assert refused("lstm") == ["ne-no-path"]
    assert refused("linear", shape=(1, 1, 1, 2, 8)) == ["ne-linear-rank"]
    assert refused("linear", shape=(1, 1, 2, 8)) == []


def test_attention_on_the_gpu_is_a_risk_from_ten_rows_on() -> None:
    rule = next(rule for rule in rules_for("gpu", "A18 Pro") if rule.id == "gpu-attention-rows")

    def applies(batch: int) -> bool:
        shape = (batch, 4, 16, 8)
        return rule.applies("scaled_dot_product_attention", inputs=(shape,) * 3, outputs=(shape,), dtypes=("float16",))

    assert [applies(batch) for batch in (1, 9, 10, 64)] == [False, False, True, True]


def test_slices_inside_the_last_axis_only() -> None:
    rule = next(rule for rule in rules_for("neural_engine", "A14 Bionic") if rule.last_axis)
    shapes = {"inputs": ((2, 8, 64),), "dtypes": ("float16",)}
    assert rule.applies("split", outputs=((2, 8, 32),), **shapes)
    assert not rule.applies("split", outputs=((2, 4, 64),), **shapes)


def test_chips_of_rules_are_known() -> None:
    known = {device(name).chip for name in names()}
    rules = [rule for unit in ("neural_engine", "gpu", "cpu") for chip in known for rule in rules_for(unit, chip)]
    assert {chip for rule in rules for chip in rule.chips} <= known
    assert any("A14 Bionic" in rule.chips for rule in rules)


def test_every_rule_has_source_and_date() -> None:
    rules = {rule.id: rule for unit in ("neural_engine", "gpu", "cpu") for rule in rules_for(unit, "A14 Bionic")}
    assert len(rules) >= 13
    assert all(rule.source and rule.date >= "2026" for rule in rules.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + RULE + RULE, "several rules are called a"),
        ("schema: nas/program_rules/2\nrules: []\n", "nas/program_rules/2"),
        (HEAD + RULE.replace("risk", "ban"), "refused"),
        (HEAD + RULE.replace("operations: [pow], ", ""), "names neither operations nor dtypes"),
        (HEAD + RULE.replace("source: s", "source: ''"), "needs a source and a date"),
    ],
)
def test_faulty_files_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_rules(text, where="rules.yaml")


def test_rule_without_a_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="would hold for everything"):
        ProgramRule(id="x", unit="cpu", effect="risk", text="t", source="s", date="2026-11-21")
