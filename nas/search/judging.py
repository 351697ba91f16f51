"""From a priced candidate to its evaluation: what runs on a worker, and what the journal keeps of it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nas.core.cost import CostEstimate, Violation
from nas.core.errors import NasError
from nas.core.evaluation import Evaluation, Proposal, Quality, WorkerFailure

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.core.protocols import QualityEstimator

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A priced candidate, not a duplicate."""

    proposal: Proposal
    cost: CostEstimate
    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What judging one candidate gave."""

    quality: Quality | None
    error: str | None
    seconds: float


def judge(estimator: QualityEstimator, architecture: Architecture) -> Outcome:
    """Estimate one quality; runs on a worker. Errors of the toolkit are results, anything else is a bug and raised."""
    start = time.monotonic()
    try:
        quality = estimator.estimate(architecture)
    except NasError as error:
        return Outcome(quality=None, error=f"{type(error).__name__}: {error}", seconds=time.monotonic() - start)
    return Outcome(quality=quality, error=None, seconds=time.monotonic() - start)


def screened(number: int, proposal: Proposal, draw: Draw) -> Evaluation:
    """A candidate over the budget; its cost is kept without the blocks, of which there may be thousands of lines."""
    cost = replace(draw.cost, blocks=())
    return Evaluation(
        number=number, proposal=proposal, cost=cost, quality=None, violations=draw.violations, state="screened"
    )


def judged(number: int, proposal: Proposal, draw: Draw, outcome: Outcome | WorkerFailure) -> Evaluation:
    """Return the evaluation of a candidate whose quality was asked for; a failed one when there is none."""
    if isinstance(outcome, WorkerFailure):
        outcome = Outcome(quality=None, error=outcome.message, seconds=0.0)
    if outcome.error is not None:
        logger.warning("candidate %s failed: %s", proposal.architecture.digest, outcome.error)
    return Evaluation(
        number=number,
        proposal=proposal,
        cost=draw.cost,
        quality=outcome.quality,
        violations=(),
        state="complete" if outcome.error is None else "failed",
        error=outcome.error,
        seconds=outcome.seconds,
    )
