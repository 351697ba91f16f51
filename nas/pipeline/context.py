"""Everything a stage needs: the validated configuration, the run directory, the space and the random streams."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

import search_spaces
from nas.config.run import RunConfig, load_run
from nas.core.errors import ConfigError
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario
from nas.runs.directory import RunDirectory
from search_spaces.temporal import TemporalSpace

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """An open run."""

    config: RunConfig
    directory: RunDirectory
    space: TemporalSpace
    scenario: Scenario
    streams: RandomStreams

    def path(self, *parts: str) -> Path:
        """Return a path inside the run directory."""
        return self.directory.path.joinpath(*parts)


def open_run(run: str, *, overrides: tuple[str, ...] = ()) -> Context:
    """Open a run directory, or start or continue the run of a YAML file.

    Raises:
        ConfigError: The YAML is faulty, or ``overrides`` are given for a run directory.
        InputError: The path does not exist or is damaged.
    """
    path = Path(run)
    if path.is_dir():
        if overrides:
            raise ConfigError(
                f"{path}: --set cannot change a run that has begun", hint="give the YAML file to start another run"
            )
        directory = RunDirectory.open(path)
        return _context(load_run(path / "resolved.yaml"), directory)
    config = load_run(path, overrides)
    directory = RunDirectory.for_config(
        path,
        parent=Path(config.run.directory),
        name=config.run.name,
        resolved=resolved_text(config),
        seed=config.run.seed,
    )
    return _context(config, directory)


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
    space = search_spaces.get(config.space.name)
    if space.version != config.space.version:
        raise ConfigError(
            f"space.version: {config.space.name!r} is at version {space.version}, got {config.space.version}"
        )
    scenario = config.scenario.build()
    space.backbone.latent_size(scenario)
    return Context(
        config=config,
        directory=directory,
        space=space,
        scenario=scenario,
        streams=RandomStreams(config.run.seed),
    )
