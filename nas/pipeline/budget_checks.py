"""Limits that no network could keep or that nothing can check: found in a run's YAML before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import latency_models
from latency_models.predictors.roofline import placed_units
from nas.core.errors import ConfigError, NasError
from nas.pipeline.costs import prior_of
from nas.pipeline.further_devices import known_predictor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.config.budget import DeviceLimits
    from nas.config.run import DeviceSection, FurtherDevice, RunConfig

Fault = tuple[str, str]  # path of the key, message


def budget_faults(config: RunConfig) -> Iterator[Fault]:
    """Yield the faults of the limits on every device of a run."""
    known = (*latency_models.device_names(), "host-cpu", "host-cuda")
    if config.device.name in known:
        yield from _limits(config, config.device, config.budget, "budget")
    if config.devices == ():
        yield "devices", "needs at least 1 device beside the run's own; leave the section out for none"
    names = [config.device.name]
    for index, device in enumerate(config.devices or ()):
        path = f"devices.{index}"
        if device.name in names:
            yield f"{path}.name", f"every device is named once, {device.name!r} is there already"
        names.append(device.name)
        if device.name in known:
            yield from _limits(config, device, device.budget, f"{path}.budget")
            yield from _phases(config, device, path)
            yield from _predictor(config, device, path)


def _phases(config: RunConfig, device: FurtherDevice, path: str) -> Iterator[Fault]:
    for name in ("text_encoder", "decoder", "overhead"):
        if device.phases is not None and getattr(device.phases, name).type == "profiled":
            yield f"{path}.phases.{name}", "'profiled' is for the run's own device: state it, or describe its workload"
        elif device.phases is None and config.phases is not None:
            kind = getattr(config.phases, name).type
            if kind in ("stated", "profiled"):
                yield (
                    f"{path}.phases",
                    f"is missing: phases.{name} is {kind} for {config.device.name!r} and says nothing of this device",
                )
                return


def _predictor(config: RunConfig, device: FurtherDevice, path: str) -> Iterator[Fault]:
    if device.predictor is None:
        return
    try:
        predictor = known_predictor(device)
        assert predictor is not None
        predictor.check_scenario(config.scenario.build())
    except NasError as error:
        yield f"{path}.predictor", error.message
        return
    if predictor.device.removeprefix("simulated-") != device.name:
        yield f"{path}.predictor", f"is of device {predictor.device!r}, needs {device.name!r}"


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
    if set(limits.runs_on) <= set(allowed) and allowed[0] not in limits.runs_on:
        yield (
            f"{path}.runs_on",
            f"leaves out {allowed[0]!r}, where scenario.compute_units {scenario.compute_units!r} puts what runs there, "
            "so costs would be of another unit than is asked for; choose other compute units",
        )
