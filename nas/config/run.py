"""The sections of a run's YAML as pydantic models; a verb needs only its own."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nas.config.document import Document, apply_overrides, read_document
from nas.config.validation import validate
from nas.core.cost import Budget, ComputeUnit
from nas.core.scenario import ComputeUnits, Precision, Scenario
from nas.core.schema import to_data
from nas.quality.options import SupernetOptions
from nas.training.options import (
    AdversarialOptions,
    CollectionOptions,
    DistillationOptions,
    EvaluationOptions,
    TeacherOptions,
    TrajectoryOptions,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RunSection(Section):
    """Name, seed and place of the run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    directory: str = "runs"


class SpaceSection(Section):
    """Which search space, and its version."""

    name: str
    version: Count = 1


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


class BudgetSection(Section):
    """Limits; a candidate must keep them with the upper end of its intervals.

    ``latency_share`` states the latency limit as a place between the cheapest (0) and the dearest (1) architecture of
    the space on the run's device, for examples that must make sense on any host; it excludes ``latency_ms``.
    """

    latency_ms: Positive | None = None
    latency_share: Share | None = None
    peak_memory_mb: Positive | None = None
    parameters: Count | None = None
    coverage: Share = 0.9

    @model_validator(mode="after")
    def _one_latency_limit(self) -> Self:
        if self.latency_ms is not None and self.latency_share is not None:
            raise ValueError("give latency_ms or latency_share, not both")
        return self

    def build(self, cheapest_ms: float, dearest_ms: float) -> Budget:
        """Return the domain value; the two latencies, upper ends of intervals, resolve ``latency_share``."""
        latency_ms = self.latency_ms
        if self.latency_share is not None:
            latency_ms = cheapest_ms + self.latency_share * (dearest_ms - cheapest_ms)
        return Budget(
            latency_ms=latency_ms,
            peak_memory_mb=self.peak_memory_mb,
            parameters=self.parameters,
            coverage=self.coverage,
        )


class NoPhase(Section):
    """The phase is left out of every cost."""

    type: Literal["none"] = "none"


class WorkloadPhase(Section):
    """The phase is described operation by operation and priced by the predictor of the denoiser.

    Text encoder: CLIP ViT-L/14. Decoder: Stable Diffusion's image decoder, ``frames`` latent frames in a call.
    """

    type: Literal["workload"]
    frames: Count = 1


class ProfiledPhase(Section):
    """The phase is measured in the profile stage: the toy space's own modules, on this host."""

    type: Literal["profiled"]


class StatedPhase(Section):
    """A figure from elsewhere, of one call: its ends are stated, not checked, and ``source`` says by whom.

    Memory that nobody has stated is left out, and shown as unknown.
    """

    type: Literal["stated"]
    latency_ms: Positive
    low_ms: Positive
    high_ms: Positive
    calls: Count = 1
    weights_mb: Annotated[float, Field(ge=0.0)] | None = None
    activation_mb: Annotated[float, Field(ge=0.0)] | None = None
    origin: Literal["measured", "published"]
    source: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _ends_hold_the_figure(self) -> Self:
        if not self.low_ms <= self.latency_ms <= self.high_ms:
            raise ValueError(
                f"needs low_ms <= latency_ms <= high_ms, got {self.low_ms}, {self.latency_ms}, {self.high_ms}"
            )
        if (self.weights_mb is None) != (self.activation_mb is None):
            raise ValueError("give both weights_mb and activation_mb, or neither")
        return self


Phase = Annotated[NoPhase | WorkloadPhase | ProfiledPhase | StatedPhase, Field(discriminator="type")]


class PhasesSection(Section):
    """What a generation runs besides the denoiser; latency and memory limits hold for all of it.

    ``memory``: all networks stay loaded (``together``), or each is loaded, run and unloaded (``in_turn``); what loading
    costs belongs to ``overhead``, the time between the phases.
    """

    memory: Literal["together", "in_turn"] = "together"
    text_encoder: Phase = NoPhase()
    decoder: Phase = NoPhase()
    overhead: Annotated[NoPhase | ProfiledPhase | StatedPhase, Field(discriminator="type")] = NoPhase()


class ProfileSection(Section):
    """How the device is measured: every distinct block of the space, and ``networks`` random whole networks.

    ``passes`` is how often the whole list is measured, each time in another order; see
    ``latency_models.jobs.MeasurementPlan`` for the rest.
    """

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


class RandomEngine(Section):
    """Uniform draws without repetition."""

    type: Literal["random"]


class ExhaustiveEngine(Section):
    """Every architecture in turn; refused when the space is larger than ``limit``."""

    type: Literal["exhaustive"]
    limit: Count = 100_000


class OptunaEngine(Section):
    """Any Optuna sampler by name; ``population`` is NSGA's."""

    type: Literal["optuna"] = "optuna"
    sampler: Literal["nsga2", "nsga3", "tpe", "gp", "random", "qmc"] = "nsga2"
    population: Annotated[int, Field(ge=2)] | None = None


class ModelBasedEngine(Section):
    """Quality model with neighbour interactions, whose posterior draws are solved exactly on the cost table."""

    type: Literal["model_based"]
    start: Count = 24
    pairs: bool = True
    picks_per_draw: Count = 2
    temperature: Annotated[float, Field(ge=0.0)] = 0.5
    max_labels: Count = 2000


class EvolvingEngine(Section):
    """Greedy add and remove actions by change of quality over change of latency, as SnapFusion published."""

    type: Literal["evolving"]
    probe_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    spread: Annotated[float, Field(ge=0.0)] = 0.3


class RegularisedEngine(Section):
    """Regularised evolution: tournaments among the latest candidates."""

    type: Literal["regularised"]
    population: Count = 50
    tournament: Count = 10


Engine = RandomEngine | ExhaustiveEngine | OptunaEngine | ModelBasedEngine | EvolvingEngine | RegularisedEngine


class SerialExecutor(Section):
    """One after another in this process."""

    type: Literal["serial"] = "serial"


class RayExecutor(Section):
    """Ray workers, on this machine or on the cluster at ``address``."""

    type: Literal["ray"]
    workers: Count = 2
    address: str | None = None


class SearchSection(Section):
    """How the space is searched; ``evaluations`` counts candidates whose quality is paid for."""

    engine: Annotated[Engine, Field(discriminator="type")] = OptunaEngine()
    evaluations: Count = 256
    batch: Count = 16
    executor: Annotated[SerialExecutor | RayExecutor, Field(discriminator="type")] = SerialExecutor()
    select: Annotated[str, Field(pattern=r"^(knee|fastest|best|[0-9a-f]{16})$")] = "knee"


class SupernetEstimator(Section):
    """Weight-sharing network trained once in the search stage; toy space only."""

    type: Literal["supernet"] = "supernet"
    options: SupernetOptions = SupernetOptions()
    clips: Count = 4096
    held_out_clips: Annotated[int, Field(ge=18)] = 36


class CapacityEstimator(Section):
    """Training-free proxy from the description alone; it ranks candidates and measures nothing."""

    type: Literal["temporal_capacity"]


class TrainSection(Section):
    """Stages that turn the chosen architecture into a four-step model; each sub-section is a stage's options."""

    needs_gpu: bool = False
    clips: Count = 8192
    teacher: TeacherOptions = TeacherOptions()
    distillation: DistillationOptions = DistillationOptions()
    collection: CollectionOptions = CollectionOptions()
    trajectory: TrajectoryOptions = TrajectoryOptions()
    adversarial: AdversarialOptions = AdversarialOptions()
    evaluation: EvaluationOptions = EvaluationOptions()


class ExportSection(Section):
    """The Core ML package.

    ``image_weights`` is a local SD v1.5 UNet (a diffusers folder or one safetensors file) for the backbone of a network
    that this run did not train; without it such a network keeps its fresh weights. ``parity`` computes the saved
    package and compares its outputs with the network's: two passes of each on this machine.
    """

    minimum_os: Literal["ios18"] = "ios18"
    image_weights: str | None = None
    parity: bool = True


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
    budget: BudgetSection = BudgetSection()
    phases: PhasesSection | None = None
    profile: ProfileSection | None = None
    calibrate: CalibrateSection | None = None
    search: SearchSection | None = None
    quality: Annotated[SupernetEstimator | CapacityEstimator, Field(discriminator="type")] = SupernetEstimator()
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
    for name, model in (("quality", SupernetEstimator), ("train", TrainSection)):
        if isinstance(document.data.get(name), dict):
            document.data[name] = _over_defaults(model, document.data[name])
    return validate(document, RunConfig), document


def _over_defaults(model: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
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
