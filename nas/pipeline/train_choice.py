"""Which architecture the ``train`` stage trains: the search's choice, the largest, or one that is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.architecture import Architecture
from nas.core.errors import ConfigError, InputError
from nas.core.files import read_json
from nas.core.scenario import ScenarioPoint
from nas.pipeline.choice import Chosen, chosen, chosen_member
from nas.runs.front import read_front
from nas.runs.journal import Journal

if TYPE_CHECKING:
    from nas.pipeline.context import Context

NAMED = ("selected", "largest", "smallest")


def chosen_network(context: Context, name: str) -> Chosen:
    """Return the network of ``train.architecture``.

    Raises:
        ConfigError: It is neither a name, a digest of the search nor a file.
        InputError: The file, or the search it needs, is missing or damaged.
        ArchitectureError: The file's architecture is not of the run's space.
    """
    if name == "selected":
        if context.config.search is None:
            raise ConfigError(
                "train.architecture is 'selected', by a search that this YAML lacks",
                hint="give --architecture largest, smallest or a .json file, or add a search section",
            )
        return chosen_member(context)
    if name in ("largest", "smallest"):
        return _plain(context, context.space.largest() if name == "largest" else context.space.smallest())
    if name.endswith(".json") or Path(name).is_file():
        return _plain(context, _read(context, Path(name)))
    front, journal = context.path("search", "front.json"), context.path("search", "evaluations.jsonl")
    if front.is_file() and journal.is_file():
        for evaluation in (*read_front(front).members, *Journal(journal).read()):
            if evaluation.architecture.digest == name:
                return chosen(context, evaluation)
    raise ConfigError(
        f"train.architecture: {name!r} is no candidate of this run's search and no file",
        hint=f"give {', '.join(NAMED)}, a digest of `nas show RUN front`, or a .json file with space and choices",
    )


def _plain(context: Context, architecture: Architecture) -> Chosen:
    return Chosen(digest=architecture.digest, architecture=architecture, point=ScenarioPoint(), context=context)


def _read(context: Context, path: Path) -> Architecture:
    try:
        architecture = Architecture.from_record(read_json(path))
    except ValueError as error:
        raise InputError(
            f"{path}: is no architecture: {error}",
            hint='write {"space": "tiny/1", "choices": {...}}, as `nas show RUN architecture --json` prints it',
        ) from error
    context.space.validate(architecture)
    return architecture
