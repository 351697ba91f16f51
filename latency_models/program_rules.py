"""Rules on operations of ML Programs: what a unit refuses and what may go wrong on it, each with source and date."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import yaml

from nas.core.cost import ComputeUnit
from nas.core.errors import InputError
from nas.core.schema import check_schema, from_data

Effect = Literal["refused", "risk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRule:
    """One rule; a condition that is empty holds always.

    Attributes:
        id: Its name in audits.
        unit: The unit it is about.
        effect: ``refused``: the unit does not run it; ``risk``: it runs, and may be wrong or slow.
        operations: MIL types.
        dtypes: Element types, of anything the operation reads or makes.
        ranks: Numbers of axes of what it reads.
        chips: Labels of chips.
        least_batch: Least length of the first axis.
        last_axis: Only where the operation's result is shorter than its input in the last axis.
        text: What happens, in words.
        source: Where that is known from.
        date: When the source was read.
    """

    id: str
    unit: ComputeUnit
    effect: Effect
    text: str
    source: str
    date: str
    operations: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    chips: tuple[str, ...] = ()
    least_batch: int = 0
    last_axis: bool = False

    def __post_init__(self) -> None:
        if not (self.operations or self.dtypes):
            raise ValueError(f"rule {self.id!r} names neither operations nor dtypes: it would hold for everything")
        if not (self.source and self.date):
            raise ValueError(f"rule {self.id!r} needs a source and a date")

    def applies(
        self,
        kind: str,
        *,
        inputs: tuple[tuple[int, ...], ...],
        outputs: tuple[tuple[int, ...], ...],
        dtypes: tuple[str, ...],
    ) -> bool:
        """Whether the rule is about an operation of type ``kind`` with these shapes and element types."""
        if self.operations and kind not in self.operations:
            return False
        if self.dtypes and not set(self.dtypes) & set(dtypes):
            return False
        if self.ranks and not {len(shape) for shape in inputs} & set(self.ranks):
            return False
        if self.least_batch and max((shape[0] for shape in inputs if shape), default=0) < self.least_batch:
            return False
        return not self.last_axis or (bool(inputs and inputs[0]) and outputs[0][-1:] != inputs[0][-1:])


def rules_for(unit: ComputeUnit, chip: str) -> tuple[ProgramRule, ...]:
    """Return the rules of a unit of a chip, by the chip's label."""
    return tuple(rule for rule in _rules() if rule.unit == unit and (not rule.chips or chip in rule.chips))


@cache
def _rules() -> tuple[ProgramRule, ...]:
    file = resources.files("latency_models") / "program_rules.yaml"
    return read_rules(file.read_text(encoding="utf-8"), where="program_rules.yaml")


def read_rules(text: str, *, where: str) -> tuple[ProgramRule, ...]:
    """Return the rules of a ``nas/program_rules/1`` file.

    Raises:
        InputError: Not such a file, or two rules of one id.
    """
    body = check_schema(yaml.safe_load(text), "program_rules", 1, where=where)
    rules = from_data(tuple[ProgramRule, ...], body.get("rules"), where=where)
    ids = [rule.id for rule in rules]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise InputError(f"{where}: several rules are called {', '.join(twice)}")
    return rules
