"""From a priced candidate to its evaluation: what runs on a worker, and what the journal keeps of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from nas.core.cost import CostEstimate, Violation
from nas.core.errors import NasError
from nas.core.evaluation import Evaluation, Outcome, Proposal, WorkerFailure
from nas.core.protocols import QualityEstimator
from nas.core.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.core.architecture import Architecture
    from nas.core.protocols import Executor

logger = logging.getLogger(__name__)

# An engine may want only what is busy, say trainings on the one GPU, while there is room for other work: it is asked on
# until this many wait. More would be chosen with less knowledge.
MOST_WAITING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLevel:
    """One of several quality estimators, ordered from cheapest to dearest.

    Attributes:
        estimator: What judges at this level.
        price: What one evaluation costs, in evaluations of the highest level.
        resources: What one evaluation reserves; the executor's own when left out.
    """

    estimator: QualityEstimator
    price: float = 1.0
    resources: Resources | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.price <= 1.0:
            raise ValueError(
                f"price of quality level {self.estimator.name!r} must be above 0 and at most 1, got {self.price}"
            )


def quality_levels(estimators: QualityEstimator | Sequence[QualityLevel]) -> tuple[QualityLevel, ...]:
    """Return the levels of a search: one for an estimator by itself.

    Raises:
        ValueError: There is none, or prices do not rise to 1.
    """
    if not isinstance(estimators, Sequence):
        return (QualityLevel(estimator=estimators),)
    prices = [level.price for level in estimators]
    if not prices or prices[-1] != 1.0 or any(low >= high for low, high in pairwise(prices)):
        raise ValueError(f"prices of quality levels must rise to 1, the highest level's, got {prices}")
    return tuple(estimators)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A priced candidate, not a duplicate."""

    proposal: Proposal
    cost: CostEstimate
    violations: tuple[Violation, ...]


class Judges:
    """Sends candidates to the executor and hands back what has finished."""

    def __init__(self, executor: Executor, levels: Sequence[QualityLevel]) -> None:
        self._executor = executor
        self._tasks = [(partial(judge, level.estimator), level.resources) for level in levels]
        self._kinds = tuple(dict.fromkeys(level.resources for level in levels))
        self._search = object()  # an executor may still hold what an interrupted search has submitted
        executor.prepare([level.resources for level in levels if level.resources is not None])

    def submit(self, number: int, proposal: Proposal) -> None:
        """Take a candidate to judge; ``number`` comes back with its outcome."""
        function, resources = self._task(proposal)
        self._executor.submit((self._search, number), function, proposal.architecture, resources)

    def wait(self) -> list[tuple[int, Outcome]]:
        """Return what has finished since the last call, at least one."""
        finished: list[tuple[int, Outcome]] = []
        while not finished:
            results: list[tuple[Any, Any]] = self._executor.wait()
            finished = [(number, _outcome(result)) for (search, number), result in results if search is self._search]
        return finished

    def room(self) -> int:
        """Return how many more candidates to ask for: as many as would start at once, whatever they reserve.

        Up to ``MOST_WAITING`` may wait for one kind of task while there is room for another.
        """
        rooms = [self._executor.room(resources) for resources in self._kinds]
        waiting = sum(max(0, -room) for room in rooms)
        return sum(max(0, room) for room in rooms) if waiting < MOST_WAITING else 0

    def _task(self, proposal: Proposal) -> tuple[Callable[[Architecture], Outcome], Resources | None]:
        """Return the function that judges a candidate and what it reserves."""
        return self._tasks[-1 if proposal.level is None else proposal.level]


def judge(estimator: QualityEstimator, architecture: Architecture) -> Outcome:
    """Estimate one quality; runs on a worker. Errors of the toolkit are results, anything else is a bug and raised."""
    start = time.monotonic()
    try:
        quality = estimator.estimate(architecture)
    except NasError as error:
        return Outcome(quality=None, error=f"{type(error).__name__}: {error}", seconds=time.monotonic() - start)
    return Outcome(quality=quality, error=None, seconds=time.monotonic() - start)


def screened(number: int, proposal: Proposal, draw: Draw) -> Evaluation:
    """A candidate over the budget. Costs are kept without their split, of which there may be thousands of lines."""
    return Evaluation(
        number=number,
        proposal=proposal,
        cost=draw.cost.totals(),
        quality=None,
        violations=draw.violations,
        state="screened",
    )


def judged(number: int, proposal: Proposal, draw: Draw, outcome: Outcome) -> Evaluation:
    """Return the evaluation of a candidate whose quality was asked for; a failed one when there is none."""
    if outcome.error is not None:
        logger.warning("candidate %s failed: %s", proposal.architecture.digest, outcome.error)
    return Evaluation(
        number=number,
        proposal=proposal,
        cost=draw.cost.totals(),
        quality=outcome.quality,
        violations=(),
        state="complete" if outcome.error is None else "failed",
        error=outcome.error,
        seconds=outcome.seconds,
    )


def _outcome(result: Outcome | WorkerFailure) -> Outcome:
    if isinstance(result, WorkerFailure):
        return Outcome(quality=None, error=result.message, seconds=0.0)
    return result
