"""The asynchronous search: a free worker never waits for the rest of a batch.

As soon as there is room the engine is asked, and it is told every candidate by itself as soon as it is finished, while
others are pending. The journal is in the order in which candidates finished or were screened; each record's note says
when it was asked for. A search that goes on tells the journal in the order of the asking, which engines with numbered
trials need; what was pending at the end is lost. Two such searches need not be equal; none judges a candidate twice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nas.core.evaluation import Evaluation, Proposal
from nas.core.protocols import SearchEngine
from nas.search.judging import Draw, Judges, judged, screened
from nas.search.ledger import Identity, Ledger, identity, note

if TYPE_CHECKING:
    from nas.core.evaluation import Outcome
    from nas.search.ledger import Stop

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class AsynchronousSearch:
    """Keeps the workers busy and the engine up to date.

    Attributes:
        asked: Proposals so far, which number the next one.
        running: What is being judged, by its number.
        pending: The identities of these.
        running_price: What these will cost.
        unwritten: Screened candidates, which go to the disk together with the next one that was paid for.
    """

    ledger: Ledger
    engine: SearchEngine
    judges: Judges
    asked: int = 0
    running: dict[int, Draw] = field(default_factory=dict)
    pending: set[Identity] = field(default_factory=set)
    running_price: float = 0.0
    unwritten: list[Evaluation] = field(default_factory=list)

    def run(self) -> Stop:
        """Replay the journal, then go on until something stops the search and nothing is running."""
        self._replay()
        while True:
            stop = self._fill()
            if not self.running:
                self._write([])
                return stop
            self._write([self._finished(number, outcome) for number, outcome in self.judges.wait()])

    def _replay(self) -> None:
        """Tell the journal, in the order of the asking."""
        ledger = self.ledger
        records = ledger.journal.read()
        ledger.check_prices(records)
        for record in sorted(records, key=lambda record: note(record, "asked")):
            self.engine.tell([record])
            self.asked = note(record, "asked") + 1
        ledger.remember(records)
        if records:
            ledger.progress.update(int(ledger.paid), ledger.evaluations, "going on from the journal")
            logger.info("going on after %d evaluations", len(records))

    def _fill(self) -> Stop:
        """Ask for candidates while there is room; return why no more are asked for, should nothing be running."""
        ledger = self.ledger
        while True:
            affordable = ledger.affordable(ledger.paid + self.running_price)
            if affordable <= 0:
                return "evaluations"
            if ledger.idle >= ledger.patience:
                return "patience"
            room = self.judges.room()
            proposals = self.engine.ask(min(affordable, room)) if room > 0 else []
            if not proposals:
                return "exhausted"
            for proposal in map(ledger.with_level, proposals):
                if ledger.left(ledger.paid + self.running_price) > 0:
                    self._take(proposal)

    def _take(self, proposal: Proposal) -> None:
        """Screen a candidate or send it to a worker."""
        ledger = self.ledger
        number, self.asked = self.asked, self.asked + 1
        draw = ledger.draw(proposal, self.pending)
        if draw is None:
            return
        proposal = replace(proposal, note={**proposal.note, "asked": number})
        if draw.violations:
            evaluation = screened(len(ledger.records), proposal, draw)
            ledger.remember([evaluation])
            self.unwritten.append(evaluation)
            self.engine.tell([evaluation])
            return
        self.running[number] = replace(draw, proposal=proposal)
        self.pending.add(identity(proposal))
        self.running_price += ledger.level(proposal).price
        self.judges.submit(number, proposal)
        ledger.watcher.started([self.running[number]])

    def _finished(self, number: int, outcome: Outcome) -> Evaluation:
        """Return the evaluation of a candidate that was running."""
        ledger = self.ledger
        draw = self.running.pop(number)
        evaluation = judged(len(ledger.records), draw.proposal, draw, outcome)
        self.pending.discard(identity(draw.proposal))
        self.running_price -= ledger.level(draw.proposal).price
        ledger.remember([evaluation])
        ledger.report(evaluation, ledger.paid)
        return evaluation

    def _write(self, finished: list[Evaluation]) -> None:
        """Write what is new to the journal, then tell the engine what has finished."""
        self.ledger.journal.append([*self.unwritten, *finished])
        self.unwritten = []
        for evaluation in finished:
            self.engine.tell([evaluation])
