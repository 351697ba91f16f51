"""What to measure on a phone, as a file: the job list that the runner and whoever builds its packages read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latency_models import call_label, choose_networks, distinct_blocks
from nas.core.files import write_json
from nas.core.rng import RandomStreams
from nas.core.schema import to_data, with_schema
from nas.pipeline.context import present

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.config.run import RunConfig
    from nas.core.architecture import Architecture
    from nas.core.scenario import Scenario
    from search_spaces.temporal import TemporalSpace


def all_jobs(config: RunConfig, space: TemporalSpace, scenario: Scenario) -> list[dict[str, Any]]:
    """Return every distinct block of the space and the run's networks as jobs.

    Raises:
        ConfigError: The YAML has no section ``profile``.
    """
    networks = choose_networks(space, present(config.profile, "profile").networks, RandomStreams(config.run.seed))
    blocks = [block_entry(number, signature) for number, signature in enumerate(distinct_blocks(space, scenario))]
    return [*blocks, *(network_entry(network) for network in networks)]


def block_entry(number: int, signature: str) -> dict[str, Any]:
    """Return the job of one block, the ``number``-th of its list."""
    return {"job": f"block-{number:04d}", "kind": "block", "block_path": signature}


def network_entry(network: Architecture) -> dict[str, Any]:
    """Return the job of one whole network."""
    return {"job": f"network-{network.digest}", "kind": "unet", "arch_id": network.text}


def write_jobs(
    path: Path, config: RunConfig, space: TemporalSpace, scenario: Scenario, jobs: Sequence[dict[str, Any]]
) -> None:
    """Write jobs with what they share.

    A job's ``arch_id`` or ``block_path`` is what the runner writes into its record, and is enough to build the package.

    Raises:
        UnavailableError: The file cannot be written.
    """
    body = {
        "space": space.identifier,
        "device": config.device.name,
        "scenario": call_label(scenario),
        "conditions": to_data(scenario),
        "jobs": list(jobs),
    }
    write_json(path, with_schema("measurement_jobs", 1, body))
