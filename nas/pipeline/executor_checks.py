"""Faults of ``search.executor`` that its schema cannot see, found before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.config.run import RunConfig
    from nas.config.search import RayExecutor


def executor_faults(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Return the path and message of every fault."""
    section = config.search.executor if config.search is not None else None
    if section is None or section.type != "ray":
        return
    if section.grows and section.address is None:
        yield "search.executor.grows", "is for a cluster that adds nodes on demand: give its address too"
    try:
        request = task_resources(section)
    except ValueError as error:
        yield "search.executor", str(error)
        return
    asked = {"search.executor.cpus_per_task": request}
    asked |= {f"quality.levels.{level}.resources.cpus": own for level, own in level_resources(config).items()}
    for path, own in asked.items():
        if section.address is None and own.cpus > section.workers:
            yield (
                path,
                f"must be at most search.executor.workers, {section.workers} processors here, got {own.cpus:g}",
            )


def level_resources(config: RunConfig) -> dict[int, Resources]:
    """Return what the levels of quality reserve that say so themselves, by their number."""
    levels = config.quality.levels if config.quality.type == "levels" else ()
    return {number: level.resources.build() for number, level in enumerate(levels) if level.resources is not None}


def task_resources(section: RayExecutor) -> Resources:
    """Return what a task reserves unless its level of quality says otherwise.

    Raises:
        ValueError: No task can reserve that.
    """
    return Resources(cpus=section.cpus_per_task, gpus=section.gpus_per_task, memory_mb=section.memory_mb)
