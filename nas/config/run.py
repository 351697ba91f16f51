"""The sections of a run's YAML as pydantic models; a verb needs only its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nas.config.document import Document, apply_overrides, read_document
from nas.config.validation import validate
from nas.core.cost import Budget
from nas.core.scenario import ComputeUnits, Precision, Scenario

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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


class DeviceSection(Section):
    """The device that costs are stated for: ``host-cpu``, ``host-cuda`` or a name of ``nas list devices``."""

    name: str
    threads: Count = 1


class BudgetSection(Section):
    """Limits; a candidate must keep them with the upper end of its intervals.

    ``latency_ratio`` states the latency limit as a share of the largest network's predicted latency, for examples that
    must make sense on any host; it excludes ``latency_ms``.
    """

    latency_ms: Positive | None = None
    latency_ratio: Share | None = None
    peak_memory_mb: Positive | None = None
    parameters: Count | None = None
    coverage: Share = 0.9

    @model_validator(mode="after")
    def _one_latency_limit(self) -> Self:
        if self.latency_ms is not None and self.latency_ratio is not None:
            raise ValueError("give latency_ms or latency_ratio, not both")
        return self

    def build(self, largest_latency_ms: float) -> Budget:
        """Return the domain value; ``largest_latency_ms`` resolves ``latency_ratio``."""
        latency_ms = self.latency_ms if self.latency_ratio is None else self.latency_ratio * largest_latency_ms
        return Budget(
            latency_ms=latency_ms,
            peak_memory_mb=self.peak_memory_mb,
            parameters=self.parameters,
            coverage=self.coverage,
        )


class ProfileSection(Section):
    """How the device is measured: every distinct block of the space, and ``networks`` random whole networks."""

    networks: Annotated[int, Field(ge=0)] = 24
    warmup: Count = 3
    repeats: Annotated[int, Field(ge=5)] = 20


class CalibrateSection(Section):
    """How the predictor is fitted and checked."""

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
    population: Annotated[int, Field(ge=2)] = 32


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

    engine: Annotated[RandomEngine | ExhaustiveEngine | OptunaEngine, Field(discriminator="type")] = OptunaEngine()
    evaluations: Count = 256
    batch: Count = 16
    executor: Annotated[SerialExecutor | RayExecutor, Field(discriminator="type")] = SerialExecutor()


class ExportSection(Section):
    """The Core ML package."""

    minimum_os: Literal["ios17", "ios18"] = "ios18"


class ClosedLoopSection(Section):
    """How many members of the front are measured again on the host, the chosen one always among them."""

    networks: Count = 8


class ReportSection(Section):
    """The page's title."""

    title: str | None = None
