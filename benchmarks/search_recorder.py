"""What one run has paid for so far: counts evaluations, keeps each with its processor time, stops at the limit.

Every evaluation is a line of a progress file, so that a killed run keeps its checkpoints, and a run that is slow
enough to be worth it goes on from there.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from search_problems import Problem, Row


# Answers known already and designs rejected cost nothing, so that a converged engine could ask for ever.
ASKED_PER_EVALUATION = 200


class Finished(Exception):
    """The run has paid for all its evaluations; the way out of a peer's own loop."""


class Recorder:
    """Judges architectures for one run."""

    def __init__(self, problem: Problem, evaluations: int, progress: Path, *, resume: bool = False) -> None:
        self.problem = problem
        self.evaluations = evaluations
        self.rows: list[Row] = []
        self.scores: list[float] = []
        self.cpu_s: list[float] = []
        self.asked = 0
        self._progress = progress
        if resume and progress.exists():
            for line in progress.read_text().splitlines():
                row, score, cpu_s = json.loads(line)
                self.rows.append(tuple(row))
                self.scores.append(score)
                self.cpu_s.append(cpu_s)
        else:
            progress.parent.mkdir(parents=True, exist_ok=True)
            progress.write_text("")
        self._known = dict(zip(self.rows, self.scores, strict=True))
        self._start = time.process_time() - (self.cpu_s[-1] if self.cpu_s else 0.0)

    @property
    def done(self) -> bool:
        """Whether all evaluations are paid for, or too much was asked that costs nothing."""
        return len(self.rows) >= self.evaluations or self.asked >= ASKED_PER_EVALUATION * self.evaluations

    def judge(self, row: Any) -> float:
        """Pay for one architecture and return what its training says; an answer known already costs nothing.

        Raises:
            Finished: The limit was reached before, or the engine keeps asking for what it knows.
        """
        row = tuple(int(option) for option in row)
        self.count()
        if row in self._known:
            return self._known[row]
        before = time.process_time()
        cpu_s = before - self._start
        score = self.problem.judged(row)
        self._start += time.process_time() - before  # what judging takes is not the engine's
        self._known[row] = score
        self.rows.append(row)
        self.scores.append(score)
        self.cpu_s.append(cpu_s)
        with self._progress.open("a") as file:
            file.write(json.dumps([row, score, round(cpu_s, 4)]) + "\n")
        return score

    def count(self) -> None:
        """Count a design asked about, whether it is paid for or not.

        Raises:
            Finished: The limit was reached before, or the engine keeps asking for what costs nothing.
        """
        if self.done:
            raise Finished
        self.asked += 1
