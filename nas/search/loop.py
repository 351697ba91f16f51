"""The search loop: ask, drop duplicates, price, screen, judge, write the journal, tell.

A batch ends when it holds ``batch`` candidates inside the budget, or after ``DRAWS_PER_CANDIDATE * batch`` draws. All
its draws come before its first quality, the journal is written in ask order before the engine is told, and the number
of the batch is in every record's note. Therefore a search can be killed anywhere: whole batches are told again from
the journal, the last one is asked again and only what the journal lacks is judged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from nas.core.architecture import Architecture
from nas.core.cost import Budget
from nas.core.errors import InputError, NasError
from nas.core.evaluation import Evaluation, Proposal
from nas.core.pareto import ParetoFront
from nas.core.protocols import CostModel, Executor, Progress, SearchEngine, SearchSpace, SilentProgress
from nas.search.executors.serial import SerialExecutor
from nas.search.judging import Draw, Outcome, judge, judged, screened
from nas.search.prices import cost_differences
from nas.search.screening import budget_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nas.core.protocols import QualityEstimator

DRAWS_PER_CANDIDATE = 4
PATIENCE = 1000

logger = logging.getLogger(__name__)

Stop = Literal["evaluations", "exhausted", "patience"]


class EvaluationLog(Protocol):
    """Where evaluations are kept; ``nas.runs.Journal`` is one."""

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Add evaluations so that they survive a crash."""
        ...

    def read(self) -> list[Evaluation]:
        """Return every evaluation, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found.

    ``stopped`` says why it ended: all ``evaluations`` are paid, the engine proposed nothing more (``exhausted``), or
    too many draws in a row were duplicates or over the budget (``patience``). ``duplicates`` counts those that this
    process dropped.
    """

    front: ParetoFront
    evaluations: tuple[Evaluation, ...]
    stopped: Stop
    duplicates: int
    seconds: float

    @property
    def complete(self) -> int:
        """Evaluations with a quality."""
        return self._count("complete")

    @property
    def screened(self) -> int:
        """Evaluations that broke the budget before quality was paid for."""
        return self._count("screened")

    @property
    def failed(self) -> int:
        """Evaluations whose quality could not be found out."""
        return self._count("failed")

    def _count(self, state: str) -> int:
        return sum(evaluation.state == state for evaluation in self.evaluations)


def search(
    space: SearchSpace,
    engine: SearchEngine,
    *,
    cost_model: CostModel,
    quality_estimator: QualityEstimator,
    budget: Budget,
    journal: EvaluationLog,
    evaluations: int,
    batch: int = 16,
    executor: Executor | None = None,
    progress: Progress | None = None,
    patience: int = PATIENCE,
) -> SearchResult:
    """Search ``space``, or go on with the search that ``journal`` holds.

    Args:
        space: Where candidates come from; each proposal is validated by it.
        engine: A fresh engine: the journal is told to it here.
        cost_model: Prices every candidate.
        quality_estimator: Judges the ones inside the budget.
        budget: Limits on the upper ends of the cost intervals.
        journal: Where evaluations are kept.
        evaluations: How many candidates to pay quality for, over all processes that worked on the journal;
            screened ones do not count, failed ones do.
        batch: Candidates judged between two tells; results depend on it, and not on the number of workers.
        executor: Runs the quality estimates; in this process when left out.
        progress: Told after every estimate.
        patience: Consecutive duplicates or candidates over the budget after which the search stops.

    Raises:
        BudgetError: No candidate met the budget; the message holds the nearest miss.
        InputError: The journal is damaged, or was written under other settings.
        NasError: Every estimate failed; the message holds the first error.
        ValueError: ``evaluations``, ``batch`` or ``patience`` is below 1.
    """
    for name, value in (("evaluations", evaluations), ("batch", batch), ("patience", patience)):
        if value < 1:
            raise ValueError(f"search.{name} must be at least 1, got {value}")
    start = time.monotonic()
    run = _Search(
        space=space,
        engine=engine,
        cost_model=cost_model,
        judge=partial(judge, quality_estimator),
        budget=budget,
        journal=journal,
        evaluations=evaluations,
        batch=batch,
        executor=executor or SerialExecutor(),
        progress=progress or SilentProgress(),
        patience=patience,
    )
    stopped = run.run()
    records = tuple(run.records)
    if all(record.violations for record in records):
        raise budget_error(records, budget)
    if not any(record.state == "complete" for record in records):
        failed = [record for record in records if record.state == "failed"]
        raise NasError(f"quality could not be estimated for any of {len(failed)} candidates; first: {failed[0].error}")
    return SearchResult(
        front=ParetoFront.of(records),
        evaluations=records,
        stopped=stopped,
        duplicates=run.duplicates,
        seconds=time.monotonic() - start,
    )


@dataclass(slots=True, kw_only=True)
class _Search:
    """State of one running search."""

    space: SearchSpace
    engine: SearchEngine
    cost_model: CostModel
    judge: Callable[[Architecture], Outcome]
    budget: Budget
    journal: EvaluationLog
    evaluations: int
    batch: int
    executor: Executor
    progress: Progress
    patience: int
    records: list[Evaluation] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    paid: int = 0
    judged: int = 0
    idle: int = 0
    duplicates: int = 0
    exhausted: bool = False

    def run(self) -> Stop:
        """Replay the journal, then draw, judge and tell batches until something stops the search."""
        number, recorded = self._replay()
        while recorded or (self.paid < self.evaluations and self.idle < self.patience):
            idle_before = self.idle
            draws = self._draw(recorded)
            self._check_resumed(recorded, draws)
            notes = {"batch": number, "idle": idle_before}
            self.judged = self.paid + sum(map(_is_paid, recorded))
            batch = [*recorded, *self._evaluate(draws[len(recorded) :], notes, first=len(self.records) + len(recorded))]
            self.engine.tell(batch)
            self._remember(batch)
            number, recorded = number + 1, []
            if self.exhausted:
                return "exhausted"
        return "evaluations" if self.paid >= self.evaluations else "patience"

    def _replay(self) -> tuple[int, list[Evaluation]]:
        """Tell the journal's batches but the last; return the number of the last and its records, if any."""
        batches: dict[int, list[Evaluation]] = {}
        for record in self.journal.read():
            self._check_price(record)
            batches.setdefault(_note(record, "batch"), []).append(record)
        if not batches:
            return 0, []
        last = max(batches)
        for number in range(last):
            told = batches.get(number, [])  # none: every draw of that batch was a duplicate
            self.engine.tell(told)
            self._remember(told)
        self.idle = _note(batches[last][0], "idle")
        paid = self.paid + sum(map(_is_paid, batches[last]))
        self.progress.update(paid, self.evaluations, "going on from the journal")
        logger.info("going on after %d evaluations in %d batches", sum(map(len, batches.values())), last + 1)
        return last, batches[last]

    def _check_price(self, record: Evaluation) -> None:
        """Check that the cost model still says what the journal holds: a front never mixes two price lists.

        Raises:
            InputError: It does not.
        """
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

    def _draw(self, recorded: Sequence[Evaluation]) -> list[Draw]:
        """Draw one batch: at least as far as ``recorded``, the part of it that the journal holds."""
        want = max(min(self.batch, self.evaluations - self.paid), sum(map(_is_paid, recorded)))
        drawn = inside = 0
        draws: list[Draw] = []
        seen: set[str] = set()
        while drawn < DRAWS_PER_CANDIDATE * self.batch and self.idle < self.patience:
            missing = max(want - inside, len(recorded) - len(draws))
            if missing <= 0:
                break
            proposals = self.engine.ask(min(missing, DRAWS_PER_CANDIDATE * self.batch - drawn))
            if not proposals:
                self.exhausted = True
                break
            for proposal in proposals:
                drawn += 1
                draw = self._price(proposal, seen)
                if draw is not None:
                    draws.append(draw)
                    seen.add(proposal.architecture.digest)
                if draw is None or draw.violations:
                    self.idle += 1
                else:
                    self.idle = 0
                    inside += 1
        return draws

    def _price(self, proposal: Proposal, seen: set[str]) -> Draw | None:
        """Return the priced candidate, or ``None`` for a duplicate."""
        architecture = proposal.architecture
        if architecture.digest in self.known or architecture.digest in seen:
            self.duplicates += 1
            return None
        self.space.validate(architecture)
        cost = self.cost_model.estimate(architecture)
        return Draw(proposal=proposal, cost=cost, violations=self.budget.violations(cost))

    def _check_resumed(self, recorded: Sequence[Evaluation], draws: Sequence[Draw]) -> None:
        """Check that the engine proposes again what the journal's last batch holds.

        Raises:
            InputError: It does not.
        """
        for index, record in enumerate(recorded):
            again = draws[index].proposal.architecture.digest if index < len(draws) else "nothing"
            if again != record.architecture.digest:
                raise InputError(
                    f"evaluation {record.number} of the journal is {record.architecture.digest}, but the engine now "
                    f"proposes {again} there: the journal was written with other settings or library versions",
                    hint="go on with the settings and versions of the run's manifest, or start a new run directory",
                )

    def _evaluate(self, draws: Sequence[Draw], notes: dict[str, int], *, first: int) -> Iterator[Evaluation]:
        """Judge what is inside the budget; yield every draw's evaluation in order, each already in the journal."""
        inside = [draw.proposal.architecture for draw in draws if not draw.violations]
        outcomes = self.executor.map(self.judge, inside)
        waiting: list[Evaluation] = []  # screened ones go to the disk together with the next one that was paid for
        for number, draw in enumerate(draws, start=first):
            proposal = replace(draw.proposal, note={**draw.proposal.note, **notes})
            if draw.violations:
                waiting.append(screened(number, proposal, draw))
                continue
            evaluation = judged(number, proposal, draw, next(outcomes))
            self.journal.append([*waiting, evaluation])
            yield from waiting
            yield evaluation
            waiting = []
            self.judged += 1
            self.progress.update(self.judged, self.evaluations, self._message(evaluation))
        self.journal.append(waiting)
        yield from waiting

    def _message(self, latest: Evaluation) -> str:
        score = "failed" if latest.quality is None else f"quality {latest.quality.score:.3g}"
        num_screened = sum(record.state == "screened" for record in self.records)
        return f"{latest.architecture.digest[:8]}: {score} in {latest.seconds:.1f} s; {num_screened} screened out"

    def _remember(self, batch: Sequence[Evaluation]) -> None:
        self.records.extend(batch)
        self.known.update(record.architecture.digest for record in batch)
        self.paid += sum(map(_is_paid, batch))


def _is_paid(evaluation: Evaluation) -> bool:
    return evaluation.state != "screened"


def _note(record: Evaluation, key: str) -> int:
    value = record.proposal.note.get(key)
    if not isinstance(value, int):
        raise InputError(
            f"evaluation {record.number} of the journal has no {key!r} in its note, so it cannot be resumed"
        )
    return value
