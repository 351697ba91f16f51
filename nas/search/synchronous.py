"""The synchronous search: whole batches are told together, so one worker and many give the same journal.

A batch ends when it holds ``batch`` candidates inside the budget, or after ``DRAWS_PER_CANDIDATE * batch`` draws. All
its draws come before its first quality, the journal is written in ask order before the engine is told, and the number
of the batch is in every record's note. What finishes behind an unfinished candidate is kept beside the journal at once.
Therefore a search can be killed anywhere: whole batches are told again from the journal, the last one is asked again
and only what neither file holds is judged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from nas.core.errors import InputError
from nas.core.evaluation import Evaluation, FinishedOutcome
from nas.core.protocols import SearchEngine
from nas.search.judging import Draw, Judges, judged, screened
from nas.search.ledger import Identity, Ledger, identity, note, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.core.evaluation import Outcome
    from nas.search.ledger import Identity, Stop

DRAWS_PER_CANDIDATE = 4

logger = logging.getLogger(__name__)


class OutcomeLog(Protocol):
    """Where outcomes are kept that the journal cannot hold yet; ``nas.runs.Outcomes`` is one."""

    def append(self, outcomes: Sequence[FinishedOutcome]) -> None:
        """Add outcomes so that they survive a crash."""
        ...

    def read(self) -> list[FinishedOutcome]:
        """Return every outcome."""
        ...

    def clear(self) -> None:
        """Forget every outcome."""
        ...


class NoOutcomeLog:
    """Keeps nothing: what finishes out of turn is judged again after a crash."""

    def append(self, outcomes: Sequence[FinishedOutcome]) -> None:
        """Forget them."""

    def read(self) -> list[FinishedOutcome]:
        """Return nothing."""
        return []

    def clear(self) -> None:
        """Do nothing."""


@dataclass(slots=True, kw_only=True)
class SynchronousSearch:
    """Draws, judges and tells batch after batch."""

    ledger: Ledger
    engine: SearchEngine
    judges: Judges
    outcomes: OutcomeLog
    batch: int
    exhausted: bool = False

    def run(self) -> Stop:
        """Replay the journal, then draw, judge and tell batches until something stops the search."""
        ledger = self.ledger
        number, recorded = self._replay()
        kept = self.outcomes.read()
        while recorded or (ledger.left(ledger.paid) > 0 and ledger.idle < ledger.patience):
            notes = {"batch": number, "idle": ledger.idle}
            draws = self._draw(recorded)
            self._check_resumed(recorded, draws)
            running = _Batch(
                search=self,
                draws=draws,
                notes=notes,
                written=list(recorded),
                paid=ledger.paid + ledger.price_of(recorded),
            )
            batch = running.judge({(one.digest, one.level): one.outcome for one in kept if one.batch == number})
            kept = [one for one in kept if one.batch > number]  # the journal may end with the batch before theirs
            if not kept:
                self.outcomes.clear()
            self.engine.tell(batch)
            ledger.remember(batch)
            number, recorded = number + 1, []
            if self.exhausted:
                return "exhausted"
        return "patience" if ledger.left(ledger.paid) > 0 else "evaluations"

    def _replay(self) -> tuple[int, list[Evaluation]]:
        """Tell the journal's batches but the last; return the number of the last and its records, if any."""
        ledger = self.ledger
        batches: dict[int, list[Evaluation]] = {}
        records = ledger.journal.read()
        ledger.check_prices(records)
        for record in records:
            batches.setdefault(note(record, "batch"), []).append(record)
        if not batches:
            return 0, []
        last = max(batches)
        for number in range(last):
            told = batches.get(number, [])  # none: every draw of that batch was a duplicate
            self.engine.tell(told)
            ledger.remember(told)
        ledger.idle = note(batches[last][0], "idle")
        paid = ledger.paid + ledger.price_of(batches[last])
        ledger.progress.update(int(paid), ledger.evaluations, "going on from the journal")
        logger.info("going on after %d evaluations in %d batches", sum(map(len, batches.values())), last + 1)
        return last, batches[last]

    def _draw(self, recorded: Sequence[Evaluation]) -> list[Draw]:
        """Draw one batch: at least as far as ``recorded``, the part of it that the journal holds."""
        ledger = self.ledger
        recorded_inside = sum(record.state != "screened" for record in recorded)
        drawn = inside = 0
        paid = ledger.paid
        draws: list[Draw] = []
        seen: set[Identity] = set()
        while drawn < DRAWS_PER_CANDIDATE * self.batch and ledger.idle < ledger.patience:
            want = max(min(self.batch, inside + ledger.affordable(paid)), recorded_inside)
            missing = max(want - inside, len(recorded) - len(draws))
            if missing <= 0:
                break
            proposals = self.engine.ask(min(missing, DRAWS_PER_CANDIDATE * self.batch - drawn))
            if not proposals:
                self.exhausted = True
                break
            for proposal in map(ledger.with_level, proposals):
                if ledger.left(paid) <= 0 and len(draws) >= len(recorded) and inside >= recorded_inside:
                    break  # the rest was asked for in case it is of cheaper levels
                drawn += 1
                draw = ledger.draw(proposal, seen)
                if draw is not None:
                    draws.append(draw)
                    seen.add(identity(proposal))
                    inside += not draw.violations
                    paid += 0.0 if draw.violations else ledger.level(proposal).price
        return draws

    def _check_resumed(self, recorded: Sequence[Evaluation], draws: Sequence[Draw]) -> None:
        """Check that the engine proposes again what the journal's last batch holds.

        Raises:
            InputError: It does not.
        """
        for index, record in enumerate(recorded):
            again = words(draws[index].proposal) if index < len(draws) else "nothing"
            if again != words(record.proposal):
                raise InputError(
                    f"evaluation {record.number} of the journal is {words(record.proposal)}, but the engine now "
                    f"proposes {again} there: the journal was written with other settings or library versions",
                    hint="go on with the settings and versions of the run's manifest, or start a new run directory",
                )


@dataclass(slots=True, kw_only=True)
class _Batch:
    """One batch on its way into the journal.

    Attributes:
        written: Evaluations of the first draws, which the journal holds.
        paid: What is paid so far, this batch included.
        waiting: Evaluations that the journal does not hold yet, by their place among the draws.
    """

    search: SynchronousSearch
    draws: Sequence[Draw]
    notes: dict[str, int]
    written: list[Evaluation]
    paid: float
    waiting: dict[int, Evaluation] = field(default_factory=dict)

    def judge(self, finished: Mapping[Identity, Outcome]) -> list[Evaluation]:
        """Return the evaluation of every draw, in order; ``finished`` holds outcomes of an earlier process."""
        started: list[Draw] = []
        for place in range(len(self.written), len(self.draws)):
            proposal = self.draws[place].proposal
            if self.draws[place].violations:
                self._keep(place, None)
            elif identity(proposal) in finished:
                self._keep(place, finished[identity(proposal)])
            else:
                self.search.judges.submit(place, proposal)
                started.append(self.draws[place])
        self.search.ledger.watcher.started(started)
        self._write(self._in_turn())
        unfinished = len(started)
        while unfinished:
            outcomes = self.search.judges.wait()
            unfinished -= len(outcomes)
            for place, outcome in outcomes:
                self._keep(place, outcome)
            # Before the journal: what is killed in between must not lose them.
            in_turn = self._in_turn()
            self.search.outcomes.append([self._out_of_turn(*one) for one in outcomes if one[0] not in in_turn])
            self._write(in_turn)
        return self.written

    def _keep(self, place: int, outcome: Outcome | None) -> None:
        """Turn a draw into its evaluation."""
        draw, ledger = self.draws[place], self.search.ledger
        number = len(ledger.records) + place
        proposal = replace(draw.proposal, note={**draw.proposal.note, **self.notes})
        if outcome is None:
            self.waiting[place] = screened(number, proposal, draw)
            return
        self.waiting[place] = judged(number, proposal, draw, outcome)
        self.paid += ledger.level(proposal).price
        ledger.report(self.waiting[place], self.paid)

    def _in_turn(self) -> dict[int, Evaluation]:
        """Return what the journal can take next, by place; screened ones wait for one that was paid for, or the end."""
        ready: dict[int, Evaluation] = {}
        while (evaluation := self.waiting.get(place := len(self.written) + len(ready))) is not None:
            ready[place] = evaluation
        paid = any(one.state != "screened" for one in ready.values())
        return ready if paid or len(self.written) + len(ready) == len(self.draws) else {}

    def _write(self, ready: Mapping[int, Evaluation]) -> None:
        """Write what is next in turn, which may be nothing."""
        if not ready and len(self.written) < len(self.draws):
            return
        self.search.ledger.journal.append(list(ready.values()))
        self.written += ready.values()
        for place in ready:
            del self.waiting[place]

    def _out_of_turn(self, place: int, outcome: Outcome) -> FinishedOutcome:
        digest, level = identity(self.draws[place].proposal)
        return FinishedOutcome(batch=self.notes["batch"], digest=digest, level=level, outcome=outcome)
