"""Limits that no network could keep or that nothing can check: found in a run's YAML before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import latency_models
from latency_models.predictors.roofline import placed_units
from nas.core.errors import ConfigError
from nas.pipeline.costs import prior_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.config.budget import DeviceLimits
    from nas.config.run import DeviceSection, RunConfig

Fault = tuple[str, str]  # path of the key, message


def budget_faults(config: RunConfig) -> Iterator[Fault]:
    """Yield the faults of the limits on every device of a run."""
    if config.device.name in (*latency_models.device_names(), "host-cpu", "host-cuda"):
        yield from _limits(config, config.device, config.budget, "budget")


def _limits(config: RunConfig, device: DeviceSection, limits: DeviceLimits, path: str) -> Iterator[Fault]:
    if limits.probability is not None and not limits.num_uncertain:
        yield f"{path}.probability", "needs a limit that may be missed: latency_ms or peak_memory_mb"
    if limits.runs_on is None:
        return
    scenario = config.scenario
    try:
        units = placed_units(prior_of(device), scenario.compute_units, scenario.precision)
    except ConfigError:
        return  # what is wrong with the device's lowerings or units is said of them
    allowed = tuple(unit.compute_unit for unit in units)
    for unit in limits.runs_on:
        if unit not in allowed:
            yield (
                f"{path}.runs_on",
                f"{unit!r} is none of the units that scenario.compute_units {scenario.compute_units!r} and precision "
                f"{scenario.precision!r} leave on {device.name!r}: {', '.join(allowed)}",
            )
