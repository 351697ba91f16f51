"""The search space of a run's YAML, with the image network of its pruning plan if it names one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import search_spaces
from nas.core.errors import InputError
from search_spaces.plan import read_plan

if TYPE_CHECKING:
    from nas.config.run import RunConfig, SpaceSection
    from search_spaces import TemporalSpace


def space_of(section: SpaceSection) -> TemporalSpace:
    """Return the space.

    Raises:
        ConfigError: Name or version is unknown, or the space reads no plan.
        InputError: The plan is missing or faulty, or no longer the one that the run began with.
    """
    name = f"{section.name}/{section.version}"
    if section.backbone is None:
        return search_spaces.get(name)
    plan = read_plan(Path(section.backbone))
    if section.backbone_digest is not None and plan.digest != section.backbone_digest:
        raise InputError(
            f"{section.backbone}: the plan is now {plan.digest}, the run began with {section.backbone_digest}",
            hint="put the plan of that time back, or start a new run",
        )
    return search_spaces.get(name, plan)


def with_backbone_digest(config: RunConfig) -> RunConfig:
    """Note in the configuration which plan its path means now, so that a changed file is another run."""
    section = config.space
    if section.backbone is None or section.backbone_digest is not None:
        return config
    digest = read_plan(Path(section.backbone)).digest
    return config.model_copy(update={"space": section.model_copy(update={"backbone_digest": digest})})
