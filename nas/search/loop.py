"""The search loop: ask, drop duplicates, price, screen, judge, write the journal, tell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from nas.core.errors import NasError
from nas.core.evaluation import Evaluation
from nas.core.pareto import ParetoFront
from nas.core.protocols import SilentProgress
from nas.search.asynchronous import AsynchronousSearch
from nas.search.executors.serial import SerialExecutor
from nas.search.judging import Judges, quality_levels
from nas.search.ledger import Ledger, NoWatcher, Stop
from nas.search.screening import budget_error
from nas.search.synchronous import NoOutcomeLog, SynchronousSearch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget
    from nas.core.protocols import CostModel, Executor, Progress, QualityEstimator, SearchEngine, SearchSpace
    from nas.search.judging import QualityLevel
    from nas.search.ledger import EvaluationLog, Watcher
    from nas.search.synchronous import OutcomeLog

PATIENCE = 1000

Mode = Literal["synchronous", "asynchronous"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found.

    The front, and ``complete``, count what was judged at the highest level; ``judged_below`` what was at lower ones.
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
        """Evaluations with a quality of the highest level."""
        return sum(one.state == "complete" and one.at_highest_level for one in self.evaluations)

    @property
    def judged_below(self) -> int:
        """Evaluations with a quality of a lower level."""
        return self._count("complete") - self.complete

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
    quality_estimator: QualityEstimator | Sequence[QualityLevel],
    budget: Budget,
    journal: EvaluationLog,
    evaluations: int,
    batch: int = 16,
    executor: Executor | None = None,
    progress: Progress | None = None,
    patience: int = PATIENCE,
    mode: Mode = "synchronous",
    outcomes: OutcomeLog | None = None,
    watcher: Watcher | None = None,
) -> SearchResult:
    """Search ``space``, or go on with the search that ``journal`` holds.

    Args:
        space: Where candidates come from; each proposal is validated by it.
        engine: A fresh engine: the journal is told to it here.
        cost_model: Prices every candidate.
        quality_estimator: Judges the ones inside the budget; or several levels, cheapest first, of which a proposal
            names one.
        budget: Limits on the upper ends of the cost intervals.
        journal: Where evaluations are kept.
        evaluations: How many candidates to pay quality for, over all processes that worked on the journal;
            screened ones do not count, failed ones do, those of a lower level count as its price.
        batch: Candidates judged between two tells of a synchronous search; results depend on it, and not on the
            number of workers.
        executor: Runs the quality estimates; in this process when left out.
        progress: Told after every estimate.
        patience: Consecutive duplicates or candidates over the budget after which the search stops.
        mode: ``synchronous`` tells whole batches and gives the same journal for any number of workers;
            ``asynchronous`` gives every free worker the next candidate at once.
        outcomes: Where a synchronous search keeps what finishes out of turn; nowhere when left out.
        watcher: Told which candidates are about to be judged.

    Raises:
        BudgetError: No candidate met the budget; the message holds the nearest miss.
        InputError: The journal is damaged, or was written under other settings.
        NasError: Every estimate failed; the message holds the first error.
        UnavailableError: The executor was lost, or can never run what a candidate reserves.
        ValueError: ``evaluations``, ``batch`` or ``patience`` is below 1, ``mode`` is unknown, or prices of levels do
            not rise to 1.
    """
    for name, value in (("evaluations", evaluations), ("batch", batch), ("patience", patience)):
        if value < 1:
            raise ValueError(f"search.{name} must be at least 1, got {value}")
    if mode not in get_args(Mode):
        raise ValueError(f"search.mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    start = time.monotonic()
    levels = quality_levels(quality_estimator)
    ledger = Ledger(
        space=space,
        cost_model=cost_model,
        budget=budget,
        journal=journal,
        progress=progress or SilentProgress(),
        levels=levels,
        evaluations=evaluations,
        patience=patience,
        watcher=watcher or NoWatcher(),
    )
    judges = Judges(executor or SerialExecutor(), levels)
    run: SynchronousSearch | AsynchronousSearch
    if mode == "asynchronous":
        run = AsynchronousSearch(ledger=ledger, engine=engine, judges=judges)
    else:
        run = SynchronousSearch(
            ledger=ledger, engine=engine, judges=judges, outcomes=outcomes or NoOutcomeLog(), batch=batch
        )
    stopped = run.run()
    records = tuple(ledger.records)
    if all(record.violations for record in records):
        raise budget_error(records, budget)
    if not any(record.state == "complete" and record.at_highest_level for record in records):
        failed = [record for record in records if record.state == "failed"]
        if not failed:
            raise NasError(
                f"no candidate was judged at the highest level of quality, {len(records)} at lower ones",
                hint="allow more search.evaluations",
            )
        raise NasError(f"quality could not be estimated for any of {len(failed)} candidates; first: {failed[0].error}")
    return SearchResult(
        front=ParetoFront.of(records),
        evaluations=records,
        stopped=stopped,
        duplicates=ledger.duplicates,
        seconds=time.monotonic() - start,
    )
