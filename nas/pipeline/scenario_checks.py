"""What ``search.scenario`` must keep beyond its schema, and what a user should know before searching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import latency_models
import search_spaces
from nas.core.errors import ConfigError, NasError
from nas.models.stored_forms import STORED_FORMS
from nas.pipeline.spaces import space_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.config.joint import ScenarioSearch
    from nas.config.run import RunConfig

Fault = tuple[str, str]  # path of the key, message
_PATH = "search.scenario"
# What estimators judge themselves, by their type in the YAML.
_JUDGED = {"supernet": ("denoising_steps", "weight_bits")}


def scenario_faults(config: RunConfig) -> Iterator[Fault]:
    """Yield what is wrong with the scenarios that a run searches; nothing where it searches none."""
    section = config.search.scenario if config.search else None
    if section is None or config.space.name not in search_spaces.names():
        return
    for name in section.names():
        values, own = getattr(section, name), _own(config, name)
        if own not in values:
            yield f"{_PATH}.{name}", f"must hold the run's own value {_text(own)}, got {', '.join(map(_text, values))}"
    yield from _shapes(config, section)
    yield from _bits(config, section)
    yield from _worth(config, section)


def scenario_warnings(config: RunConfig) -> list[str]:
    """Return what holds but may not be what the user thinks, one line each."""
    section = config.search.scenario if config.search else None
    if config.search is None or section is None:
        return []
    found = [
        f"{_PATH}.{name}: quality {config.quality.type!r} cannot judge it and every value counts as worth the same, so "
        f"whatever costs least wins; say in {_PATH}.worth.{name} what each value is worth to you"
        for name in section.names()
        if name not in _judged(config)[-1] and getattr(section.worth, name) is None
    ]
    if config.export is not None and section.weight_bits and config.export.compression.type != "auto":
        found.append(
            f"{_PATH}.weight_bits: the export stage compresses as export.compression says, whatever the search "
            "chooses; say type: auto there for a package of the bits that its predicted cost is of"
        )
    decoder = config.phases.decoder.type if config.phases else "none"
    if decoder == "stated" and (section.frames or section.size):
        found.append(
            f"phases.decoder: stated for {config.scenario.frames} frames of {config.scenario.height} x "
            f"{config.scenario.width} px; at others it is taken in proportion to pixels and frames"
        )
    shapes = len(section.frames or (0,)) * len(section.size or (0,))
    if config.profile is not None and shapes > 1:
        found.append(
            f"profile: every block and network is measured at {shapes} frames and sizes, in as many times as long"
        )
    return found


def _judged(config: RunConfig) -> list[tuple[str, ...]]:
    """Return what each level of quality judges itself, the decisive one last."""
    levels = config.quality.levels if config.quality.type == "levels" else (config.quality,)
    return [_JUDGED.get(level.type, ()) for level in levels]


def _own(config: RunConfig, name: str) -> Any:
    if name == "size":
        return config.scenario.height, config.scenario.width
    if name == "weight_bits":
        return config.device.weights.bits if config.device.weights else 16
    return getattr(config.scenario, name)


def _shapes(config: RunConfig, section: ScenarioSearch) -> Iterator[Fault]:
    try:
        backbone = space_of(config.space).backbone
    except NasError:  # named by nas.pipeline.checks
        return
    for frames in section.frames or ():
        if frames < 2:
            yield f"{_PATH}.frames", f"must be at least 2, for one frame skips the temporal layers, got {frames}"
    asked = [("frames", {"frames": frames}) for frames in section.frames or () if frames >= 2]
    asked += [("size", {"height": height, "width": width}) for height, width in section.size or ()]
    for name, update in asked:
        try:
            backbone.latent_size(config.scenario.model_copy(update=update).build())
        except ConfigError as error:
            yield f"{_PATH}.{name}", error.message.removeprefix("scenario.")
    oblong = [size for size in section.size or () if size[0] != size[1]]
    if config.train is not None and config.space.name == "tiny" and oblong:
        yield f"{_PATH}.size", f"training makes square clips, got {_text(oblong[0])}"
    if config.device.name in latency_models.device_names() and config.calibrate is not None and asked:
        yield (
            _PATH,
            f"device {config.device.name!r} is calibrated for the run's own frames and size; leave out calibrate to "
            "search others with its prior, or search one run for each",
        )


def _bits(config: RunConfig, section: ScenarioSearch) -> Iterator[Fault]:
    path, small = f"{_PATH}.weight_bits", [bits for bits in section.weight_bits or () if bits < 16]
    if not small:
        return
    form = config.device.weights.form if config.device.weights else "plain"
    if config.device.name not in latency_models.device_names() or config.device.name.startswith("host"):
        yield path, "is for packages on a phone; this host runs the networks in torch as they are"
    elif form == "plain":
        yield (
            path,
            f"{small[0]}-bit weights need a form: give device.weights bits and form, as in {{bits: 8, form: linear}}",
        )
    elif any(_judged(config)) and form not in STORED_FORMS:
        yield path, f"quality 'supernet' judges weights of form {' and '.join(STORED_FORMS)}, got {form!r}"
    if config.devices:
        yield path, "cannot be searched for several devices, each of which states its own weights"
    if config.calibrate is not None:
        yield (
            path,
            "a calibration holds for the bits that were measured; leave out calibrate to search bits by the prior",
        )


def _worth(config: RunConfig, section: ScenarioSearch) -> Iterator[Fault]:
    judged = _judged(config)
    for name in section.names():
        if all(name in own for own in judged) and getattr(section.worth, name) is not None:
            yield (
                f"{_PATH}.worth.{name}",
                f"quality {config.quality.type!r} judges it itself, a stated worth would count it twice; leave it out",
            )


def _text(value: Any) -> str:
    return f"{value[0]} x {value[1]} px" if isinstance(value, tuple) else str(value)
