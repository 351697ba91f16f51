"""What a run's YAML must keep beyond its schema: names, sizes, counts and paths, checked before anything is written.

The schema of ``nas.config.run`` knows neither search spaces nor devices; this module does, and loads no torch.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import latency_models
import search_spaces
from latency_models.conformal import needed
from latency_models.devices import WeightForm
from latency_models.lowering import PACKAGE_LOWERINGS
from nas.config.validation import faults
from nas.core.errors import ConfigError, NasError, Problem
from nas.pipeline.budget_checks import budget_faults
from nas.pipeline.compress import compression_faults
from nas.pipeline.executor_checks import executor_faults
from nas.pipeline.pipeline_folder import folder_faults
from nas.pipeline.quality_checks import quality_faults, trained_estimators
from nas.pipeline.scenario_checks import scenario_faults
from nas.pipeline.spaces import space_of
from nas.pipeline.train_checks import train_faults
from nas.training.clips import CLIP_FRAMES, CLIP_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.config.document import Document
    from nas.config.run import DeviceSection, RunConfig, ScenarioSection
    from search_spaces import TemporalSpace

Fault = tuple[str, str]  # path of the key, message
HOSTS = ("host-cpu", "host-cuda")


def check_run(config: RunConfig, document: Document | None = None) -> None:
    """Check what the schema cannot.

    Args:
        config: The validated configuration.
        document: Where it was read, for the lines of the faults.

    Raises:
        ConfigError: With every fault at once.
    """
    found = [*_scenario(config), *_device(config), *_phases(config), *_profile(config), *_export(config)]
    found += train_faults(config)
    found += budget_faults(config)
    found += executor_faults(config)
    found += scenario_faults(config)
    found += quality_faults(config)
    found += compression_faults(config)
    if found:
        source = document.source if document else f"run {config.run.name!r}"
        raise faults(source, [_problem(path, message, document) for path, message in found])


def _problem(path: str, message: str, document: Document | None) -> Problem:
    parts = tuple(int(part) if part.isdigit() else part for part in path.split("."))
    place = document.place(parts) if document else None
    return Problem(
        message=message,
        path=path,
        file=document.source if document else None,
        line=place[0] if place else None,
        column=place[1] if place else None,
    )


def _scenario(config: RunConfig) -> Iterator[Fault]:
    scenario = config.scenario
    if scenario.frames < 2:
        yield "scenario.frames", f"must be at least 2, for one frame skips the temporal layers, got {scenario.frames}"
    if config.space.name not in search_spaces.names():
        yield "space.name", _unknown("search space", config.space.name, search_spaces.names())
        return
    space = search_spaces.get(config.space.name)
    if config.space.version != space.version:
        yield (
            "space.version",
            f"this release knows version {space.version} of {space.name!r}, got {config.space.version}",
        )
    elif config.space.backbone is not None:
        try:
            space = space_of(config.space)
        except NasError as error:
            yield "space.backbone", error.message
            return
    what = _toy_training(config) if space.name == "tiny" else None
    given = (scenario.frames, scenario.height, scenario.width)
    if what and given != (CLIP_FRAMES, CLIP_SIZE, CLIP_SIZE):
        yield (
            "scenario",
            f"{what} uses the project's own clips of {CLIP_FRAMES} frames of {CLIP_SIZE} x {CLIP_SIZE} px, "
            f"got {given[0]} frames of {given[1]} x {given[2]} px (height x width)",
        )
    yield from _sizes(space, scenario)


def _sizes(space: TemporalSpace, scenario: ScenarioSection) -> Iterator[Fault]:
    """Each number beside values of the others that fit, so that every wrong one is named."""
    fitting = 1024
    for name in ("height", "width", "frames"):
        probe = {"height": fitting, "width": fitting, "frames": 2} | {name: getattr(scenario, name)}
        try:
            space.backbone.latent_size(scenario.model_copy(update=probe).build())
        except ConfigError as error:
            yield f"scenario.{name}", error.message.removeprefix(f"scenario.{name}: ")


def _toy_training(config: RunConfig) -> str | None:
    trained = trained_estimators(config)
    if config.search is not None and trained:
        return trained[0]
    return "training" if config.train is not None and config.train.data.type == "procedural" else None


def _device(config: RunConfig) -> Iterator[Fault]:
    sections = [("device", config.device)]
    sections += [(f"devices.{index}", device) for index, device in enumerate(config.devices or ())]
    for path, device in sections:
        for key, message in device_faults(device):
            yield f"{path}.{key}", message


def device_faults(device: DeviceSection) -> Iterator[Fault]:
    """Yield what is wrong with one device section, by key."""
    known = (*HOSTS, *(name for name in latency_models.device_names() if not name.startswith("host")))
    if device.name not in known:
        yield "name", _unknown("device", device.name, known)
    elif device.name in HOSTS:
        for name in ("weights", "lowerings"):
            if getattr(device, name) is not None:
                yield name, "is for packages on a phone; this host runs the networks in torch as they are"
    else:
        yield from _weights(device)
        yield from _lowerings(device)


def _weights(device: DeviceSection) -> Iterator[Fault]:
    forms: tuple[str, ...] = get_args(WeightForm)
    weights = device.weights
    if weights is None:
        return
    if weights.form not in forms:
        yield "weights.form", _unknown("form of weights", weights.form, forms)
    elif weights.form == "plain" and weights.bits != 16:
        stored = ", ".join(form for form in forms if form != "plain")
        yield "weights", f"{weights.bits}-bit weights need a form, one of {stored}, got 'plain'"
    elif weights.form != "plain" and weights.bits == 16:
        yield "weights", f"{weights.form!r} weights have bits 8, 6 or 4, got 16"


def _lowerings(device: DeviceSection) -> Iterator[Fault]:
    units = tuple(unit.compute_unit for unit in latency_models.device(device.name).units)
    for unit, name in (device.lowerings or {}).items():
        if unit not in units:
            yield f"lowerings.{unit}", _unknown(f"compute unit of {device.name!r}", unit, units)
        elif name not in PACKAGE_LOWERINGS:
            yield f"lowerings.{unit}", _unknown("lowering", name, PACKAGE_LOWERINGS)


def _phases(config: RunConfig) -> Iterator[Fault]:
    if config.phases is None:
        return
    for name in ("text_encoder", "decoder", "overhead"):
        kind = getattr(config.phases, name).type
        if kind == "profiled" and (config.space.name != "tiny" or config.device.name not in HOSTS):
            yield f"phases.{name}", "'profiled' is for the space 'tiny' on this host: there are no other modules to run"
        elif kind == "profiled" and (config.profile is None or config.calibrate is None):
            yield f"phases.{name}", "'profiled' needs the sections profile and calibrate"
        if kind == "workload" and config.space.name == "tiny":
            yield f"phases.{name}", "'workload' describes Stable Diffusion's networks, the space 'tiny' has others"


def _profile(config: RunConfig) -> Iterator[Fault]:
    backend, name = config.profile.backend if config.profile else None, config.device.name
    if backend is not None:
        mac = name.startswith("mac_")
        if name in HOSTS or mac != (backend.type == "coreml_host"):
            wanted = "a Mac (mac_m1, ...)" if backend.type == "coreml_host" else "a phone or tablet"
            yield "profile.backend", f"{backend.type!r} measures {wanted}, the run's device is {name!r}"
        if config.scenario.precision != "float16":
            yield "profile.backend", f"packages are float16, scenario.precision is {config.scenario.precision!r}"
    if config.profile is None or config.calibrate is None:
        return
    least, given = needed(config.budget.coverage), config.profile.networks
    if given < least:
        yield (
            "profile.networks",
            f"must be at least {least} for intervals of budget.coverage {config.budget.coverage}, got {given}",
        )


def _export(config: RunConfig) -> Iterator[Fault]:
    weights = config.export.image_weights if config.export else None
    if weights is not None and not Path(weights).exists():
        yield "export.image_weights", f"does not exist, got {weights!r}"
    pipeline = config.export.pipeline if config.export else None
    if pipeline is not None and config.space.name in search_spaces.names():
        for fault in folder_faults(Path(pipeline), search_spaces.get(config.space.name).backbone):
            yield "export.pipeline", fault


def _unknown(what: str, given: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(given, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {given!r}; known are {', '.join(known)}{hint}"
