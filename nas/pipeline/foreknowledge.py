"""What a search may know before its first evaluation: sensitivities, and what earlier runs have judged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.errors import InputError
from nas.runs.journal import Journal
from nas.search.levels import LevelModels
from nas.search.sensitivities import read_sensitivities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchSpace
    from nas.search.exact import SlotSum

FEWEST_EVALUATIONS = 8

logger = logging.getLogger(__name__)


def read_foreknowledge(paths: Sequence[str], space: SearchSpace, *, latency: SlotSum) -> tuple[SlotSum, ...]:
    """Return one hint for every path of ``search.warm_start``.

    Args:
        paths: Run directories and sensitivities files.
        space: What will be searched.
        latency: Latency by slot and option, for the model of an earlier run's qualities.

    Raises:
        InputError: A path does not exist, is of another space or version, or holds too little.
    """
    hints = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            hints.append(_learned(path, space, latency))
        else:
            hints.append(read_sensitivities(path, space))
        logger.info("warm start from %s", path)
    return tuple(hints)


def _learned(run: Path, space: SearchSpace, latency: SlotSum) -> SlotSum:
    """Return what the evaluations of an earlier run say, of whatever estimators; the dearest has the last word."""
    path = run / "search" / "evaluations.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: does not exist", hint="search.warm_start takes the directory of a run with a search")
    records = [record for record in Journal(path).read() if record.quality is not None]
    if len(records) < FEWEST_EVALUATIONS:
        raise InputError(f"{path}: holds {len(records)} judged candidates, needs at least {FEWEST_EVALUATIONS}")
    other = next((one.architecture.space for one in records if one.architecture.space != space.identifier), None)
    if other is not None:
        raise InputError(f"{path}: is of space {other!r}, the run searches {space.identifier!r}")
    highest = 1 + max((one.proposal.level for one in records if one.proposal.level is not None), default=-1)
    models = LevelModels(
        sizes=tuple(len(space.options(slot)) for slot in space.slots()), num_levels=highest + 1, latency=latency
    )
    for record in records:
        _add(models, record, space, highest)
    model = models.model(highest)
    if model is None:
        raise InputError(f"{path}: holds too few judged candidates at any one level of quality, {len(records)} in all")
    return model.mean()


def _add(models: LevelModels, record: Evaluation, space: SearchSpace, highest: int) -> None:
    assert record.quality is not None  # chosen so by the caller
    level = highest if record.proposal.level is None else record.proposal.level
    row = tuple(space.to_options(record.architecture))
    models.add(level, row, record.quality.score, record.quality.standard_error or 0.0)
