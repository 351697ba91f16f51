"""What a search knows so far: its evaluations, which candidates are known, what is paid, and what a draw costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from nas.core.cost import Budget
from nas.core.errors import InputError
from nas.core.evaluation import Evaluation
from nas.core.protocols import CostModel, Progress, SearchSpace
from nas.search.judging import Draw, QualityLevel
from nas.search.prices import cost_differences

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from nas.core.evaluation import Proposal

Stop = Literal["evaluations", "exhausted", "patience"]
Identity = tuple[str, int | None]  # digest and level

CHECKED_RECORDS = 1000


class EvaluationLog(Protocol):
    """Where evaluations are kept; ``nas.runs.Journal`` is one."""

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Add evaluations so that they survive a crash."""
        ...

    def read(self) -> list[Evaluation]:
        """Return every evaluation, in order."""
        ...


class Watcher(Protocol):
    """Who is told when candidates go to the workers; ``nas.search.optuna_mirror`` has one."""

    def started(self, draws: Sequence[Draw]) -> None:
        """Note candidates that are about to be judged."""
        ...


class NoWatcher:
    """Looks away."""

    def started(self, draws: Sequence[Draw]) -> None:
        """Do nothing."""


@dataclass(slots=True, kw_only=True)
class Ledger:
    """State of one running search, the same in both modes.

    Attributes:
        evaluations: How many may be paid for.
        patience: How many draws in a row may be duplicates or over the budget.
        paid: What is paid so far.
        idle: Duplicates and candidates over the budget since the last draw that was neither.
    """

    space: SearchSpace
    cost_model: CostModel
    budget: Budget
    journal: EvaluationLog
    progress: Progress
    levels: tuple[QualityLevel, ...]
    evaluations: int
    patience: int
    watcher: Watcher = field(default_factory=NoWatcher)
    records: list[Evaluation] = field(default_factory=list)
    known: set[Identity] = field(default_factory=set)
    paid: float = 0.0
    idle: int = 0
    duplicates: int = 0
    screened: int = 0

    def level(self, proposal: Proposal) -> QualityLevel:
        """Return the level at which a candidate is to be judged."""
        return self.levels[-1 if proposal.level is None else proposal.level]

    def with_level(self, proposal: Proposal) -> Proposal:
        """Return the proposal with no level in place of the highest, so that a journal has one word for it.

        Raises:
            ValueError: There is no such level.
        """
        highest = len(self.levels) - 1
        if proposal.level is None or 0 <= proposal.level < highest:
            return proposal
        if proposal.level == highest:
            return replace(proposal, level=None)
        raise ValueError(f"proposal for quality level {proposal.level}, there are levels 0 to {highest}")

    def price_of(self, evaluations: Sequence[Evaluation]) -> float:
        """Return what was paid for these; screened ones are free, failed ones are not."""
        return sum(self.level(record.proposal).price for record in evaluations if record.state != "screened")

    def left(self, paid: float) -> float:
        """Return what is left to pay, rounded so that twenty times 0.05 is 1."""
        return round(self.evaluations - paid, 9)

    def affordable(self, paid: float) -> int:
        """Return how many candidates of the cheapest level may still be judged; the last may overshoot."""
        return math.ceil(self.left(paid) / self.levels[0].price)

    def draw(self, proposal: Proposal, pending: Container[Identity]) -> Draw | None:
        """Return the priced candidate, ``None`` for one that is known or pending; either counts for the patience."""
        mine = identity(proposal)
        if mine in self.known or mine in pending:
            self.duplicates += 1
            self.idle += 1
            return None
        self.space.validate(proposal.architecture)
        cost = self.cost_model.estimate(proposal.architecture)
        draw = Draw(proposal=proposal, cost=cost, violations=self.budget.violations(cost))
        self.idle = self.idle + 1 if draw.violations else 0
        return draw

    def remember(self, evaluations: Sequence[Evaluation]) -> None:
        """Add what has been judged or screened."""
        self.records.extend(evaluations)
        self.known.update(identity(record.proposal) for record in evaluations)
        self.paid += self.price_of(evaluations)
        self.screened += sum(record.state == "screened" for record in evaluations)

    def check_prices(self, records: Sequence[Evaluation]) -> None:
        """Check that the cost model still says what the journal holds: a front never mixes two price lists.

        Of many records a sample is priced, spread evenly with both ends: another calibration changes most prices, and
        a journal of 100,000 is to open in a second. The front's members are all priced when it is written.

        Raises:
            InputError: It does not.
        """
        places: Sequence[int] = range(len(records))
        if len(records) > CHECKED_RECORDS:
            step = (len(records) - 1) / (CHECKED_RECORDS - 1)
            places = sorted({round(index * step) for index in range(CHECKED_RECORDS)})
        for place in places:
            self._check_price(records[place])

    def _check_price(self, record: Evaluation) -> None:
        self.space.validate(record.architecture)
        cost = self.cost_model.estimate(record.architecture)
        differences = cost_differences(record.cost, cost)
        if bool(self.budget.violations(cost)) != (record.state == "screened"):
            differences.append("whether it is inside the budget")
        if differences:
            place = getattr(self.journal, "path", "the journal")
            raise InputError(
                f"{place}: evaluation {record.number} was priced with another calibration or budget than the present "
                f"one: {'; '.join(differences)}",
                hint="start the search afresh: nas search RUN --force",
            )

    def report(self, latest: Evaluation, paid: float) -> None:
        """Tell the progress about the latest judged candidate, with which ``paid`` is paid in all."""
        score = "failed" if latest.quality is None else f"quality {latest.quality.score:.3g}"
        by = "" if len(self.levels) == 1 else f" by {self.level(latest.proposal).estimator.name}"
        took = f"in {latest.seconds:.1f} s; {self.screened} screened out"
        self.progress.update(int(paid), self.evaluations, f"{latest.architecture.digest[:8]}: {score}{by} {took}")


def identity(proposal: Proposal) -> Identity:
    """Return what makes two proposals the same work: the architecture and the level it is judged at."""
    return proposal.architecture.digest, proposal.level


def words(proposal: Proposal) -> str:
    """Return the same for people."""
    return proposal.architecture.digest + ("" if proposal.level is None else f" at level {proposal.level}")


def note(record: Evaluation, key: str) -> int:
    """Return a number that the search noted with a record.

    Raises:
        InputError: It is not there.
    """
    value = record.proposal.note.get(key)
    if not isinstance(value, int):
        raise InputError(
            f"evaluation {record.number} of the journal has no {key!r} in its note, so it cannot be resumed",
            hint="go on with the search.mode that began the search, or start it afresh: nas search RUN --force",
        )
    return value
