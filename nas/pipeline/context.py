"""Everything a stage needs: the validated configuration, the run directory, the space and the random streams."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from nas.config.joint import NAMES
from nas.config.run import RunConfig, load_run, load_run_document
from nas.core.errors import ConfigError
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario
from nas.pipeline.checks import check_run
from nas.pipeline.spaces import space_of, with_backbone_digest
from nas.runs.directory import RunDirectory
from search_spaces.joint import JointSpace, ScenarioValues
from search_spaces.temporal import TemporalSpace

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainChoice:
    """What one call of ``nas train`` does otherwise than the YAML says: one stage alone, another network."""

    only: str | None = None
    architecture: str | None = None

    @property
    def whole(self) -> bool:
        """Whether the call does all that the YAML says."""
        return self == TrainChoice()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """An open run.

    Attributes:
        space: What can be built, trained and exported.
        scenario: The run's own; of a run in one of several scenarios, that one.
        joint: Architectures and scenarios where both are searched, else None.
        train_choice: What this call trains, where not all that the YAML says.
    """

    config: RunConfig
    directory: RunDirectory
    space: TemporalSpace
    scenario: Scenario
    streams: RandomStreams
    joint: JointSpace | None = None
    train_choice: TrainChoice = TrainChoice()

    @property
    def search_space(self) -> TemporalSpace | JointSpace:
        """What the search draws from."""
        return self.joint or self.space

    def path(self, *parts: str) -> Path:
        """Return a path inside the run directory."""
        return self.directory.path.joinpath(*parts)


def open_run(run: str, *, overrides: tuple[str, ...] = ()) -> Context:
    """Open a run directory, or start or continue the run of a YAML file.

    Raises:
        ConfigError: The YAML is faulty, or ``overrides`` are given for a run directory.
        InputError: The path does not exist or is damaged.
    """
    path, config = _read(run, overrides)
    if path.is_dir():
        return _context(config, RunDirectory.open(path))
    parent, name = Path(config.run.directory), config.run.name
    directory = RunDirectory.for_config(
        path, parent=parent, name=name, resolved=resolved_text(config), seed=config.run.seed
    )
    return _context(config, directory)


def context_of(run: str, *, overrides: tuple[str, ...] = ()) -> Context:
    """Return ``open_run`` without writing anything; a run that has not begun has a directory that does not exist.

    Raises:
        ConfigError: See ``open_run``.
        InputError: See ``open_run``.
    """
    config, directory = find_run(run, overrides=overrides)
    return _context(config, directory or RunDirectory(Path(config.run.directory) / config.run.name))


def find_run(run: str, *, overrides: tuple[str, ...] = ()) -> tuple[RunConfig, RunDirectory | None]:
    """Return the configuration of ``open_run`` and its directory if there is one already; writes nothing.

    Raises:
        ConfigError: See ``open_run``.
        InputError: See ``open_run``.
    """
    path, config = _read(run, overrides)
    if path.is_dir():
        return config, RunDirectory.open(path)
    parent, name = Path(config.run.directory), config.run.name
    return config, RunDirectory.find(parent=parent, name=name, resolved=resolved_text(config))


def _read(run: str, overrides: tuple[str, ...]) -> tuple[Path, RunConfig]:
    path = Path(run)
    if not path.is_dir():
        config, document = load_run_document(path, overrides)
        check_run(config, document)
        return path, with_backbone_digest(config)
    if overrides:
        raise ConfigError(
            f"{path}: --set cannot change a run that has begun", hint="give the YAML file to start another run"
        )
    RunDirectory.open(path)
    return path, load_run(path / "resolved.yaml")


def present(section: T | None, name: str) -> T:
    """Return a section of the YAML that a stage needs.

    Raises:
        ConfigError: The YAML does not have it.
    """
    if section is None:
        raise ConfigError(f"the YAML has no section {name!r}, which this stage needs", hint=f"add `{name}: {{}}`")
    return section


def resolved_text(config: RunConfig) -> str:
    """Return the configuration as YAML with every default filled in; it reproduces the run."""
    return yaml.safe_dump(config.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True)


def _context(config: RunConfig, directory: RunDirectory) -> Context:
    space = space_of(config.space)
    return Context(
        config=config,
        directory=directory,
        space=space,
        scenario=config.scenario.build(),
        streams=RandomStreams(config.run.seed),
        joint=joint_space(space, config),
    )


def joint_space(space: TemporalSpace, config: RunConfig) -> JointSpace | None:
    """Return the space of architectures and scenarios of a run; None where the scenario is not searched."""
    section = config.search.scenario if config.search else None
    if section is None:
        return None
    return JointSpace(space, ScenarioValues(**{name: getattr(section, name) or () for name in NAMES}))
