"""A run's YAML as pydantic models; a verb needs only its own sections."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from nas.config.budget import BudgetSection, DeviceLimits
from nas.config.compression import CompressionSection
from nas.config.document import Document, apply_overrides, read_document
from nas.config.phases import PhasesSection
from nas.config.quality import Quality
from nas.config.search import SearchSection, SupernetEstimator
from nas.config.section import Count, Positive, Section
from nas.config.train import TrainSection, share_loop
from nas.config.validation import validate
from nas.core.cost import ComputeUnit
from nas.core.scenario import ComputeUnits, Precision, Scenario
from nas.core.schema import to_data

if TYPE_CHECKING:
    from pathlib import Path


class RunSection(Section):
    """Name, seed and place of the run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    directory: str = "runs"


class SpaceSection(Section):
    """Which search space, and its version.

    ``backbone`` is a pruning plan, as ``nas prune`` writes, for the image network of ``snapgen_v``; the space then has
    an identifier of its own. ``backbone_digest`` is the plan's; it is filled in when the run begins.
    """

    name: str
    version: Count = 1
    backbone: str | None = None
    backbone_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None


class ScenarioSection(Section):
    """Conditions for which every cost is stated; see ``nas.core.scenario``."""

    frames: Count
    height: Count
    width: Count
    denoising_steps: Count = 4
    guidance: bool = False
    precision: Precision = "float16"
    compute_units: ComputeUnits = "cpu_and_ne"

    def build(self) -> Scenario:
        """Return the domain value."""
        return Scenario(**self.model_dump())


class WeightsSection(Section):
    """How the package stores weights: ``bits`` of each, and the form, one of ``latency_models.devices.WeightForm``.

    A unit that reads the form as it is takes less time and memory for it; any other expands it to 16 bits on loading.
    """

    bits: Literal[16, 8, 6, 4] = 16
    form: str = "plain"


class DeviceSection(Section):
    """The device that costs are stated for: ``host-cpu``, ``host-cuda`` or a name of ``nas list devices``.

    ``weights`` and ``lowerings`` say how the networks are converted for a phone: the form of the weights, and for each
    compute unit how attention is run, a name of ``nas list lowerings``.
    """

    name: str
    threads: Count = 1
    weights: WeightsSection | None = None
    lowerings: dict[ComputeUnit, str] | None = None


class FurtherDevice(DeviceSection):
    """A device that the same networks have to run on as well, with limits of its own.

    ``predictor`` is a calibrated predictor of another run: its directory, or its ``predictor.json``; without one the
    device's uncalibrated prior counts. ``weight`` is against 1 of the run's own device where ``search.devices`` is
    ``weighted``. ``phases`` are those of this device; the run's own count where they are not stated for its device.
    """

    budget: DeviceLimits = DeviceLimits()
    predictor: str | None = None
    weight: Positive = 1.0
    phases: PhasesSection | None = None


class CoreMLHostBackend(Section):
    """Measure packages on this Mac through coremltools; the run's device is the Mac."""

    type: Literal["coreml_host"]


class CoreMLDeviceBackend(Section):
    """Measure packages on an attached phone through coremltools and Xcode; the run's device says which model it is.

    ``udid`` names it where several are connected; ``development_team`` signs the app that coremltools builds for it.
    """

    type: Literal["coreml_device"]
    udid: str = "auto"
    development_team: str = ""


class ProfileSection(Section):
    """How the device is measured: every distinct block of the space, and ``networks`` random whole networks.

    ``passes`` is how often the whole list is measured, each time in another order; see
    ``latency_models.jobs.MeasurementPlan`` for the rest. ``backend`` measures a Mac or an attached phone from here; a
    host is measured through torch without one, and a phone's figures are imported.
    """

    backend: Annotated[CoreMLHostBackend | CoreMLDeviceBackend, Field(discriminator="type")] | None = None

    networks: Annotated[int, Field(ge=0)] = 24
    passes: Count = 3
    warmup: Annotated[int, Field(ge=0)] = 2
    seconds: Positive = 0.04
    network_seconds: Positive = 0.3


class CalibrateSection(Section):
    """How the predictor is fitted and checked.

    ``os_build`` and ``compute_unit`` name what is priced where the records are of several; the most recent OS version
    on the scenario's preferred unit when left out.
    """

    os_build: str | None = None
    compute_unit: ComputeUnit | None = None
    folds: Annotated[int, Field(ge=2)] = 8


class ExportSection(Section):
    """The Core ML package.

    ``lowering`` is the compute unit that the network is rewritten for: ``neural_engine`` (convolutions of two axes and
    attention head by head), ``gpu`` (linear layers and one attention operation), or ``auto``, which follows
    ``scenario.compute_units``: the Neural Engine for ``cpu_and_ne``, else the GPU. ``chunks`` is how many packages the
    denoiser becomes, called in a row: 1, 2, or ``auto``, which is 2 where one would be larger than ``chunk_mb`` million
    bytes (an iPhone's Neural Engine wants less than 1 GB of weights in one program).
    ``image_weights`` is a local SD v1.5 UNet (a diffusers folder or one safetensors file) for the backbone of a network
    that this run did not train; without it such a network keeps its fresh weights. ``parity`` computes the saved
    package and compares its outputs with the network's: two passes of each on this machine, or one of each (``quick``:
    the package in float32, the network as trained). ``pipeline`` is a local diffusers folder whose text encoder,
    tokenizer and VAE go into the bundle beside the denoiser; a network that was trained with encoders of its own takes
    those. ``decoder_frames`` is how many frames one call of the decoder makes. ``coreai`` also writes the denoiser as
    an ``.aimodel`` and lets Apple's own interpreter compute it. ``compression`` is what becomes of the weights.
    """

    minimum_os: Literal["ios18"] = "ios18"
    lowering: Literal["auto", "neural_engine", "gpu"] = "auto"
    chunks: Literal["auto", 1, 2] = "auto"
    chunk_mb: Annotated[float, Field(gt=0)] = 1000.0
    image_weights: str | None = None
    parity: bool | Literal["quick"] = True
    pipeline: str | None = None
    decoder_frames: Count = 1
    coreai: bool = False
    compression: CompressionSection = CompressionSection()


class ClosedLoopSection(Section):
    """How many members of the front are measured again on the host, the chosen one always among them."""

    networks: Count = 8


class ReportSection(Section):
    """The page's title."""

    title: str | None = None


class RunConfig(Section):
    """A whole run; stages without a section are left out."""

    run: RunSection
    space: SpaceSection
    scenario: ScenarioSection
    device: DeviceSection
    devices: tuple[FurtherDevice, ...] | None = None
    budget: BudgetSection = BudgetSection()
    phases: PhasesSection | None = None
    profile: ProfileSection | None = None
    calibrate: CalibrateSection | None = None
    search: SearchSection | None = None
    quality: Annotated[Quality, Field(discriminator="type")] = SupernetEstimator()
    train: TrainSection | None = None
    export: ExportSection | None = None
    closed_loop: ClosedLoopSection | None = None
    report: ReportSection | None = None


def load_run(path: Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read and validate a run's YAML.

    Faults that only the search space or the device shows are those of ``nas.pipeline.checks.check_run``.

    Raises:
        InputError: The file is missing or no text.
        ConfigError: With every fault, each with its line.
    """
    return load_run_document(path, overrides)[0]


def load_run_document(path: Path, overrides: tuple[str, ...] = ()) -> tuple[RunConfig, Document]:
    """Return what ``load_run`` does, and the document with the place of every key."""
    document = read_document(path)
    apply_overrides(document, overrides)
    if isinstance(document.data.get("train"), dict):
        document.data["train"] = share_loop(document.data["train"])
    for name, model in (("quality", SupernetEstimator), ("train", TrainSection)):
        if isinstance(document.data.get(name), dict):
            document.data[name] = over_defaults(model, document.data[name])
    _levels_over_defaults(document.data.get("quality"))
    return validate(document, RunConfig), document


def _levels_over_defaults(quality: Any) -> None:
    levels = quality.get("levels") if isinstance(quality, dict) else None
    if not isinstance(levels, list):
        return
    for index, level in enumerate(levels):
        if isinstance(level, dict) and level.get("type") == "supernet":
            levels[index] = over_defaults(SupernetEstimator, level)


def over_defaults(model: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
    """Lay given sub-sections over a stage's own defaults, so that setting its steps keeps its learning rate."""
    merged = dict(data)
    for name, info in model.model_fields.items():
        if is_dataclass(info.default) and isinstance(data.get(name), dict):
            merged[name] = _merge(to_data(info.default), data[name])
    return merged


def _merge(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    return default | {
        key: _merge(default[key], value) if isinstance(value, dict) and isinstance(default.get(key), dict) else value
        for key, value in given.items()
    }
