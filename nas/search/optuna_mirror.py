"""A copy of a search for optuna-dashboard: every evaluation of any engine as a trial of an Optuna study.

The journal is the truth and the copy is never read for results. It is a file of Optuna's ``JournalStorage``, in which
a trial takes one line when it starts and a few when it ends, so that the dashboard can follow a search that another
process writes. Lines are written here and not by ``JournalStorage``, which would keep every trial in memory and replay
the file to add one; the format is Optuna's own, and its own storage reads it in the tests.

Parameters are the choices by name. Objectives are latency, peak memory and quality; the constraint is the total
relative excess over the budget, above 0 where a candidate breaks it. A complete evaluation is a complete trial. One
that was screened out unpaid, or judged at a lower level of quality, is a pruned trial (the lower level's score is its
intermediate value), and a failed one has failed. Trials are in the order in which candidates were begun; the attribute
``evaluation`` is the number in the journal. Times of trials that were added from the journal are of the copying.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import optuna
from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from optuna.trial import TrialState

from nas.core.pareto import objectives
from nas.search.ledger import Identity, identity
from nas.search.screening import total_excess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from nas.core.cost import CostEstimate
    from nas.core.evaluation import Evaluation, Proposal
    from nas.core.protocols import SearchSpace
    from nas.search.judging import Draw
    from nas.search.ledger import EvaluationLog

Log = dict[str, Any]

# Optuna's JournalOperation: numbers that files keep, so they cannot change.
_CREATE_TRIAL, _SET_STATE_AND_VALUES, _SET_INTERMEDIATE_VALUE, _SET_USER_ATTRIBUTE = 4, 6, 7, 8
_STUDY = 0
# A lock that a killed process has left is taken over after this time; Optuna warns about less.
_LOCK_GRACE_S = 3
_CHUNK = 1000

logger = logging.getLogger(__name__)


class OptunaMirror:
    """Writes trials to ``path``; one process at a time, dashboards may read and annotate meanwhile."""

    def __init__(self, path: Path, space: SearchSpace, name: str) -> None:
        self.path = path
        self._name = name
        self._distributions = {choice.name: CategoricalDistribution(choice.values) for choice in space.choices()}
        self._texts = {name: distribution_to_json(one) for name, one in self._distributions.items()}
        self._worker = f"nas-{os.getpid()}"
        self._running: dict[Identity, int] = {}
        self._count = 0

    def catch_up(self, evaluations: Sequence[Evaluation]) -> None:
        """Bring the copy up to the journal; write it anew where it is missing, damaged or of another search."""
        try:
            trials = _Trials.read(self.path)
        except (ValueError, LookupError, TypeError) as error:
            logger.warning("%s is damaged and written anew: %s", self.path, error)
            trials = None
        known = {identity(one.proposal) for one in evaluations}
        if trials is None or not trials.finished <= known:
            self._begin()
            trials = _Trials()
        self._count = trials.count
        self._running = {mine: trial for mine, trial in trials.running.items() if mine in known}
        lost = [trial for mine, trial in trials.running.items() if mine not in known]
        self._write([_ended(trial, TrialState.FAIL, None) for trial in lost])  # begun again under another number
        missing = [one for one in evaluations if identity(one.proposal) not in trials.finished]
        for start in range(0, len(missing), _CHUNK):
            self.finish(missing[start : start + _CHUNK])

    def start(self, draws: Iterable[Draw]) -> None:
        """Add running trials for candidates that are about to be judged."""
        logs = []
        for draw in draws:
            self._running[identity(draw.proposal)] = self._count
            fields: Log = {"state": TrialState.RUNNING}
            logs.append(self._created(draw.proposal, draw.cost, fields, excess=0.0, seconds=0.0))
        self._write(logs)

    def finish(self, evaluations: Iterable[Evaluation]) -> None:
        """End the trials of evaluations, or add those that were never running."""
        logs: list[Log] = []
        for one in evaluations:
            trial = self._running.pop(identity(one.proposal), None)
            logs += [self._finished(one)] if trial is None else _ending(trial, one)
        self._write(logs)

    def _finished(self, one: Evaluation) -> Log:
        state, values = _result(one)
        fields = {
            "state": state,
            "value": None,
            "values": values,
            "datetime_complete": _time(0.0),
            "user_attrs": _outcome(one),
            "intermediate_values": _lower_level(one),
        }
        return self._created(one.proposal, one.cost, fields, excess=total_excess(one.violations), seconds=one.seconds)

    def _begin(self) -> None:
        """Make an empty study with Optuna's own storage."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            storage = JournalStorage(self._file())
            directions = [optuna.study.StudyDirection.MINIMIZE] * 2 + [optuna.study.StudyDirection.MAXIMIZE]
            storage.create_new_study(directions, self._name)
            names = ["latency_ms", "peak_memory_mb", "quality"]
            storage.set_study_system_attr(_STUDY, "study:metric_names", names)
        finally:
            optuna.logging.set_verbosity(verbosity)

    def _created(self, proposal: Proposal, cost: CostEstimate, fields: Log, *, excess: float, seconds: float) -> Log:
        self._count += 1
        choices = proposal.architecture.choices
        log = _log(
            _CREATE_TRIAL,
            study_id=_STUDY,
            datetime_start=_time(seconds),
            distributions={name: self._texts[name] for name, _ in choices},
            params={name: self._distributions[name].to_internal_repr(value) for name, value in choices},
            user_attrs=_known(proposal, cost),
            system_attrs={"constraints": [excess]},
            intermediate_values={},
        )
        log["user_attrs"].update(fields.pop("user_attrs", {}))
        return {**log, **fields}

    def _write(self, logs: list[Log]) -> None:
        if logs:
            self._file().append_logs([{**log, "worker_id": self._worker} for log in logs])

    def _file(self) -> JournalFileBackend:
        kind = JournalFileOpenLock if os.name == "nt" else JournalFileSymlinkLock  # links need a privilege there
        return JournalFileBackend(str(self.path), lock_obj=kind(str(self.path), grace_period=_LOCK_GRACE_S))


class _Trials:
    """What a copy holds: how many trials, which identities are running and which ended as the journal says."""

    def __init__(self, logs: Iterable[Log] = ()) -> None:
        identities: list[Identity] = []
        running: dict[int, None] = {}
        numbered: set[int] = set()  # begun trials that a killed process left get no number of an evaluation
        for log in logs:
            if log["op_code"] == _CREATE_TRIAL:
                trial, attributes = len(identities), log["user_attrs"]
                identities.append((attributes["digest"], attributes.get("level")))
            elif log["op_code"] in (_SET_STATE_AND_VALUES, _SET_USER_ATTRIBUTE):
                trial, attributes = log["trial_id"], log.get("user_attr", {})
            else:
                continue
            if "evaluation" in attributes:
                numbered.add(trial)
            if log.get("state") == TrialState.RUNNING:
                running[trial] = None
            elif "state" in log:
                running.pop(trial, None)
        self.count = len(identities)
        self.running = {identities[trial]: trial for trial in running}
        self.finished = {identities[trial] for trial in numbered if trial not in running}

    @classmethod
    def read(cls, path: Path) -> _Trials | None:
        """Read a copy; None where there is none.

        Raises:
            ValueError: A line is torn or no JSON.
            LookupError: A line is of something else.
        """
        data = path.read_bytes() if path.exists() else b""
        if not data.endswith(b"\n"):
            if data:
                raise ValueError("its last line is torn")
            return None
        return cls(msgspec.json.Decoder(Log).decode_lines(data))


class MirroredJournal:
    """A journal whose evaluations are copied; a copy that cannot be written is given up with a warning."""

    def __init__(self, journal: EvaluationLog, mirror: OptunaMirror) -> None:
        self.path = getattr(journal, "path", None)
        self._journal = journal
        self._mirror: OptunaMirror | None = mirror

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Append to the journal, then to the copy."""
        self._journal.append(evaluations)
        self._copy(lambda mirror: mirror.finish(evaluations))

    def read(self) -> list[Evaluation]:
        """Return every evaluation; the copy is brought up to them."""
        evaluations = self._journal.read()
        self._copy(lambda mirror: mirror.catch_up(evaluations))
        return evaluations

    def started(self, draws: Sequence[Draw]) -> None:
        """Copy candidates that are about to be judged."""
        self._copy(lambda mirror: mirror.start(draws))

    def _copy(self, write: Callable[[OptunaMirror], None]) -> None:
        if self._mirror is None:
            return
        try:
            write(self._mirror)
        except Exception as error:  # noqa: BLE001  # whatever happens to a copy, the search goes on
            logger.warning(
                "%s is no longer written (%s: %s); the search goes on, and the next one on this journal writes it anew",
                self._mirror.path, type(error).__name__, error,
            )  # fmt: skip
            self._mirror = None


def _known(proposal: Proposal, cost: CostEstimate) -> Log:
    """Return the attributes of a candidate before it is judged."""
    latency, memory = cost.latency_interval_ms, cost.memory_interval_mb
    attributes = {
        "digest": proposal.architecture.digest,
        "latency_low_ms": latency.low,
        "latency_high_ms": latency.high,
        "memory_low_mb": memory.low,
        "memory_high_mb": memory.high,
        "coverage": latency.coverage,
        "parameters": cost.parameters,
        "origin": cost.origin,
        "in_domain": cost.in_domain,
    }
    return attributes if proposal.level is None else {**attributes, "level": proposal.level}


def _outcome(evaluation: Evaluation) -> Log:
    """Return the attributes that an evaluation adds."""
    quality = evaluation.quality
    attributes: Log = {"evaluation": evaluation.number, "state": evaluation.state}
    if evaluation.violations:
        attributes["breaks"] = [one.limit for one in evaluation.violations]
    if evaluation.error is not None:
        attributes["error"] = evaluation.error
    if quality is not None:
        attributes["estimator"] = f"{quality.estimator}, {quality.fidelity}"
        if quality.standard_error is not None:
            attributes["quality_standard_error"] = quality.standard_error
    return attributes


def _result(evaluation: Evaluation) -> tuple[TrialState, list[float] | None]:
    if evaluation.state == "failed":
        return TrialState.FAIL, None
    if evaluation.quality is None or not evaluation.at_highest_level:
        return TrialState.PRUNED, None
    latency_ms, memory_mb = objectives(evaluation)[:2]
    return TrialState.COMPLETE, [latency_ms, memory_mb, evaluation.quality.score]


def _lower_level(evaluation: Evaluation) -> dict[int, float]:
    level, quality = evaluation.proposal.level, evaluation.quality
    return {} if level is None or quality is None else {level: quality.score}


def _ending(trial: int, evaluation: Evaluation) -> list[Log]:
    """Return what ends a running trial."""
    return [
        *(
            _log(_SET_USER_ATTRIBUTE, trial_id=trial, user_attr={key: value})
            for key, value in _outcome(evaluation).items()
        ),
        *(
            _log(_SET_INTERMEDIATE_VALUE, trial_id=trial, step=step, intermediate_value=score)
            for step, score in _lower_level(evaluation).items()
        ),
        _ended(trial, *_result(evaluation)),
    ]


def _ended(trial: int, state: TrialState, values: list[float] | None) -> Log:
    return _log(_SET_STATE_AND_VALUES, trial_id=trial, state=state, values=values, datetime_complete=_time(0.0))


def _log(operation: int, **fields: Any) -> Log:
    return {"op_code": operation, **fields}


def _time(seconds_ago: float) -> str:
    return (datetime.now(tz=UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="microseconds")
