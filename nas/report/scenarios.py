"""Which scenario each member of the front is meant for, where the search chose it together with the architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.scenario import scenario_point

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.core.evaluation import Evaluation
    from nas.core.scenario import ScenarioPoint
    from nas.runs.front import FrontFile

_STATED = "stated_worth_of_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioRow:
    """The members of the front in one scenario: how many, and the ends of their latency, memory and quality.

    ``stated`` is the part of their quality that the user stated for the scenario; None where nothing was stated.
    """

    text: str
    members: int
    selected: bool
    latency_ms: tuple[float, float]
    peak_memory_mb: tuple[float, float]
    quality: tuple[float, float] | None
    stated: float | None


def scenario_of(evaluation: Evaluation) -> ScenarioPoint:
    """Return what was chosen of an evaluation's scenario."""
    return scenario_point(evaluation.architecture)


def scenario_rows(front: FrontFile | None) -> tuple[ScenarioRow, ...]:
    """Return a row for each scenario on the front, most members first; none where the scenario was not searched."""
    groups: dict[str, list[Evaluation]] = {}
    for member in front.members if front else ():
        groups.setdefault(scenario_of(member).text, []).append(member)
    groups.pop("", None)
    rows = [_row(text, members, front.selected if front else "") for text, members in groups.items()]
    return tuple(sorted(rows, key=lambda row: (-row.members, row.latency_ms)))


def scenario_texts(front: FrontFile | None) -> Mapping[str, str]:
    """Return the scenario of each member of the front by digest; empty where the scenario was not searched."""
    texts = {item.architecture.digest: scenario_of(item).text for item in front.members} if front else {}
    return texts if any(texts.values()) else {}


def stated_worth(evaluation: Evaluation) -> float | None:
    """Return what of an evaluation's quality the user stated for its scenario; None where nothing was."""
    metrics = evaluation.quality.metrics if evaluation.quality else ()
    stated = [value for name, value in metrics if name.startswith(_STATED)]
    return sum(stated) if stated else None


def _row(text: str, members: list[Evaluation], selected: str) -> ScenarioRow:
    latency = [item.cost.latency_ms for item in members]
    memory = [item.cost.peak_memory_mb for item in members]
    scores = [item.quality.score for item in members if item.quality]
    return ScenarioRow(
        text=text,
        members=len(members),
        selected=any(item.architecture.digest == selected for item in members),
        latency_ms=(min(latency), max(latency)),
        peak_memory_mb=(min(memory), max(memory)),
        quality=(min(scores), max(scores)) if scores else None,
        stated=stated_worth(members[0]),
    )
