"""Runs whose scenario is searched too: the run as it is in each scenario, and where its files are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from latency_models.profiles import shape_label
from nas.config.run import WeightsSection
from nas.core.scenario import scenario_point

if TYPE_CHECKING:
    from pathlib import Path

    from nas.config.run import DeviceSection
    from nas.core.architecture import Architecture
    from nas.core.scenario import ScenarioPoint
    from nas.pipeline.context import Context

D = TypeVar("D", bound="DeviceSection")


def context_at(context: Context, point: ScenarioPoint) -> Context:
    """Return the run as it is with what ``point`` chose in place of its own; its files are the run's."""
    config = context.config
    device = device_at(config.device, point)
    others = None if config.devices is None else tuple(device_at(section, point) for section in config.devices)
    return replace(
        context,
        scenario=point.applied(context.scenario),
        config=config.model_copy(update={"device": device, "devices": others}),
    )


def device_at(section: D, point: ScenarioPoint) -> D:
    """Return the device with the weight bits that ``point`` chose; 16 bits are plain."""
    if point.weight_bits is None:
        return section
    form = section.weights.form if section.weights else "plain"
    weights = None if point.weight_bits == 16 else WeightsSection(bits=point.weight_bits, form=form)  # type: ignore[arg-type]  # a value of the same literal
    return section.model_copy(update={"weights": weights})


def shape_contexts(context: Context) -> tuple[Context, ...]:
    """Return the run at every frames and size that is a choice, its own first: what differs is measured anew."""
    if context.joint is None:
        return (context,)
    found = {shape_label(context.scenario): context}
    for point in context.joint.points:
        other = replace(point, denoising_steps=None, weight_bits=None)
        found.setdefault(shape_label(other.applied(context.scenario)), context_at(context, other))
    return tuple(found.values())


def stage_folder(context: Context, stage: str) -> Path:
    """Return where a stage keeps what holds for one frames and size: the run's own in its folder, others inside."""
    shape, own = shape_label(context.scenario), shape_label(context.config.scenario.build())
    return context.path(stage) if shape == own else context.path(stage, shape.split(" ")[0])


def split(context: Context, architecture: Architecture) -> tuple[Architecture, ScenarioPoint]:
    """Return the architecture of the run's own space, and what was chosen of the scenario."""
    if context.joint is None:
        return architecture, scenario_point(architecture)
    return context.joint.split(architecture)
