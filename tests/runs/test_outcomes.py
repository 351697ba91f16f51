from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nas.core.errors import InputError
from nas.core.evaluation import FinishedOutcome, Outcome, Quality
from nas.runs.outcomes import Outcomes

if TYPE_CHECKING:
    from pathlib import Path

COMPLETE = FinishedOutcome(
    batch=3,
    digest="0" * 16,
    level=1,
    outcome=Outcome(quality=Quality(score=0.1 + 0.2, estimator="table", fidelity="exact"), error=None, seconds=2.5),
)
FAILED = FinishedOutcome(batch=3, digest="f" * 16, outcome=Outcome(quality=None, error="no number", seconds=0.0))


def test_outcomes_are_read_as_they_were_written(tmp_path: Path) -> None:
    log = Outcomes(tmp_path / "outcomes.jsonl")
    assert log.read() == []
    log.append([COMPLETE])
    log.append([])
    log.append([FAILED])
    assert Outcomes(log.path).read() == [COMPLETE, FAILED]


def test_torn_last_line_counts_as_never_written(tmp_path: Path) -> None:
    log = Outcomes(tmp_path / "outcomes.jsonl")
    log.append([COMPLETE, FAILED])
    log.path.write_bytes(log.path.read_bytes()[:-9])
    assert log.read() == [COMPLETE]
    log.append([FAILED])
    assert log.read() == [COMPLETE, FAILED]


def test_cleared_outcomes_are_gone(tmp_path: Path) -> None:
    log = Outcomes(tmp_path / "outcomes.jsonl")
    log.clear()
    assert not log.path.exists()
    log.append([COMPLETE])
    Outcomes(log.path).clear()
    assert log.read() == []


def test_damaged_outcome_is_named(tmp_path: Path) -> None:
    log = Outcomes(tmp_path / "outcomes.jsonl")
    log.append([COMPLETE, FAILED])
    log.path.write_text(log.path.read_text().replace('"seconds":0.0', '"seconds":"none"'))
    with pytest.raises(InputError, match=r"outcomes\.jsonl: record 2: not a FinishedOutcome"):
        log.read()
