"""Proposals, qualities and evaluations: what a search hands around and keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from nas.core.architecture import Architecture
from nas.core.cost import CostEstimate, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Score of a candidate, higher is better, always.

    ``estimator`` and ``fidelity`` say what was measured and how much was spent: ``supernet``, ``64 held-out clips``.
    ``origin`` is ``proxy`` for a score that no network was run for.
    """

    score: float
    standard_error: float | None = None
    estimator: str
    fidelity: str
    metrics: tuple[tuple[str, float], ...] = ()
    origin: Literal["measured", "proxy"] = "measured"

    def __post_init__(self) -> None:
        if not isfinite(self.score):
            raise ValueError(f"quality.score must be finite, got {self.score}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A candidate and what its engine wants back after a restart.

    ``level`` says by which of several quality estimators it is to be judged, 0 for the cheapest; ``None`` stands for
    the highest level, which is the only one unless a run lists several.
    """

    architecture: Architecture
    note: Mapping[str, Any] = field(default_factory=dict)
    level: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One candidate with its cost and, unless it was screened out, its quality."""

    number: int
    proposal: Proposal
    cost: CostEstimate
    quality: Quality | None
    violations: tuple[Violation, ...]
    state: Literal["complete", "screened", "failed"]
    error: str | None = None
    seconds: float = 0.0

    @property
    def architecture(self) -> Architecture:
        """The candidate."""
        return self.proposal.architecture

    @property
    def at_highest_level(self) -> bool:
        """Whether its quality, if any, comes from the highest level: scores of different levels never mix."""
        return self.proposal.level is None

    @property
    def feasible(self) -> bool:
        """Whether it is complete and inside the budget."""
        return self.state == "complete" and not self.violations


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What judging one candidate gave: a quality, or an error in its place."""

    quality: Quality | None
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedOutcome:
    """An outcome, the candidate it belongs to, and the batch of a search that asked for it."""

    batch: int
    digest: str
    level: int | None = None
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailure:
    """What an executor yields in place of a result when a worker died on an item every time it was tried."""

    message: str
