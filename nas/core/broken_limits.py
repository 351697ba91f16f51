"""Why candidates were screened out: how many broke which limit, blocks that run nowhere by rule and not one by one."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.core.cost import Infeasibility, Violation
    from nas.core.evaluation import Evaluation

_SIZE = re.compile(r"^(?P<rule>.*) (?P<value>[\d.,]*\d), at most (?P<limit>.*)$")


@dataclass(slots=True)
class _Rule:
    """What refuses some blocks; ``sizes`` maps each size found to its text."""

    candidates: int = 0
    blocks: set[str] = field(default_factory=set)
    sizes: dict[float, str] = field(default_factory=dict)


def broken_limits(evaluations: Iterable[Evaluation]) -> list[tuple[str, int]]:
    """Return limits with the number of candidates that broke each, most first.

    A rule of a compute unit is one line for all blocks and sizes it refuses; of the sizes it names the ends.
    """
    counts: Counter[str] = Counter()
    rules: defaultdict[tuple[str, str, str, str], _Rule] = defaultdict(_Rule)
    for evaluation in evaluations:
        counts.update(_name(item) for item in evaluation.violations if item.limit != "placement")
        for item in evaluation.violations:
            if item.limit == "placement":
                _count(_faults(evaluation, item.device), rules)
    found = [*counts.items(), *((_text(key, rule), rule.candidates) for key, rule in rules.items())]
    return sorted(found, key=lambda item: (-item[1], item[0]))


def _name(violation: Violation) -> str:
    return f"{violation.limit} on {violation.device}" if violation.device else violation.limit


def _faults(evaluation: Evaluation, device: str) -> tuple[Infeasibility, ...]:
    costs = {item.device: item.infeasible for item in evaluation.cost.devices}
    return costs.get(device, ()) if device else evaluation.cost.infeasible


def _count(infeasible: Iterable[Infeasibility], rules: defaultdict[tuple[str, str, str, str], _Rule]) -> None:
    seen = set()
    for fault in infeasible:
        sized = _SIZE.match(fault.reason)
        rule, limit = (sized["rule"], sized["limit"]) if sized else (fault.reason, "")
        key = (fault.compute_unit, rule, limit, fault.source)
        rules[key].blocks.add(fault.block)
        if sized:
            rules[key].sizes[float(sized["value"].replace(",", ""))] = sized["value"]
        if key not in seen:
            rules[key].candidates += 1
            seen.add(key)


def _text(key: tuple[str, str, str, str], rule: _Rule) -> str:
    unit, what, limit, source = key
    blocks = sorted(rule.blocks)
    where = blocks[0] if len(blocks) == 1 else f"{len(blocks)} blocks such as {blocks[0]}"
    least, most = (rule.sizes[end(rule.sizes)] for end in (min, max)) if rule.sizes else ("", "")
    size = f" {least}" if least == most else f" {least} to {most}"
    return f"placement: {where} on {unit}: {what}" + (f"{size}, at most {limit}" if limit else "") + f" ({source})"
