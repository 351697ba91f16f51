"""What the search chose, as later stages need it: the network to build, and the run in the scenario it is meant for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.architecture import Architecture
from nas.core.scenario import ScenarioPoint
from nas.pipeline.context import Context
from nas.pipeline.scenarios import context_at, split
from nas.runs.front import read_front

if TYPE_CHECKING:
    from nas.core.evaluation import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An evaluation as later stages need it.

    Attributes:
        digest: Of the evaluation, which tells scenarios apart; names its folders.
        architecture: What is built, trained and exported: of the run's own space.
        point: What the search chose of the scenario.
        context: The run in that scenario.
    """

    digest: str
    architecture: Architecture
    point: ScenarioPoint
    context: Context


def chosen(context: Context, evaluation: Evaluation) -> Chosen:
    """Return an evaluation of the run's search split into architecture and scenario."""
    architecture, point = split(context, evaluation.architecture)
    return Chosen(
        digest=evaluation.architecture.digest,
        architecture=architecture,
        point=point,
        context=context_at(context, point),
    )


def chosen_member(context: Context) -> Chosen:
    """Return the member of the front that the search selected.

    Raises:
        InputError: There is no front.
    """
    front = read_front(context.path("search", "front.json"))
    return chosen(context, next(item for item in front.members if item.architecture.digest == front.selected))
