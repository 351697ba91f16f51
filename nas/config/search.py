"""The ``search`` and ``quality`` sections of a run's YAML."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nas.config.joint import ScenarioSearch
from nas.config.section import Count, Positive, Section, Share
from nas.quality.options import MOTION_TIMES, ShortTrainingOptions, SupernetOptions

_SHORT = ShortTrainingOptions()


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
    """Learned quality, solved exactly on the cost table; what is expected to add most hypervolume is judged.

    ``start`` candidates are judged before the model is used; left out, a quarter of ``search.evaluations``, 8 to 24.
    """

    type: Literal["model_based"] = "model_based"
    start: Count | None = None
    pairs: bool = True
    residual: bool = True
    draws: Count = 3
    picks: Count = 64
    temperature: Annotated[float, Field(ge=0.0)] = 1.0
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
    """Ray workers, on this machine or on the cluster at ``address``; see ``nas.search.executors.ray_cluster``.

    Each task reserves ``cpus_per_task``, ``gpus_per_task`` and ``memory_mb``, and is tried ``retries`` times more when
    its worker dies. ``workers`` processors of this machine are used. ``grows``: the cluster adds nodes on demand.
    """

    type: Literal["ray"]
    workers: Count = 2
    address: str | None = None
    cpus_per_task: Annotated[float, Field(ge=0.0)] = 1.0
    gpus_per_task: Annotated[float, Field(ge=0.0)] = 0.0
    memory_mb: Positive | None = None
    retries: Annotated[int, Field(ge=0)] = 3
    grows: bool = False


class SearchSection(Section):
    """How the space is searched; ``evaluations`` counts candidates whose quality is paid for.

    In mode ``synchronous`` whole batches are told to the engine, and results do not depend on the number of workers;
    in mode ``asynchronous`` a free worker gets the next candidate at once. ``mirror`` copies every evaluation into a
    study of Optuna for ``optuna-dashboard``: true for ``optuna.journal`` in the run directory, or another path from
    there; the journal stays the truth. With further ``devices`` the latency that is minimised is the largest of all
    (``worst``) or their mean with the devices' weights (``weighted``).
    ``warm_start`` lists what is known before: directories of earlier runs, and files of sensitivities
    (``nas.search.sensitivities``).
    """

    engine: Annotated[Engine, Field(discriminator="type")] = ModelBasedEngine()
    evaluations: Count = 256
    batch: Count = 16
    mode: Literal["synchronous", "asynchronous"] = "synchronous"
    executor: Annotated[SerialExecutor | RayExecutor, Field(discriminator="type")] = SerialExecutor()
    mirror: bool | Annotated[str, Field(min_length=1)] = True
    select: Annotated[str, Field(pattern=r"^(knee|fastest|best|[0-9a-f]{16})$")] = "knee"
    scenario: ScenarioSearch | None = None
    devices: Literal["worst", "weighted"] = "worst"
    warm_start: tuple[str, ...] = ()


class SupernetEstimator(Section):
    """Weight-sharing network trained once in the search stage; toy space only.

    A candidate is judged by its loss at ``times`` (0: clean, 1: noise) on ``held_out_clips``. What ranked toy networks
    best at 5 % of the cost of full training (Kendall's tau 0.73 on networks it was not tuned on,
    benchmarks/results/quality_rank.md): ``times`` 0.3, 0.45, 0.6, 0.75; ``options`` with ``sharing: attention``,
    ``drop_ratio: 0.1``, ``backbone_steps: 800``, ``noise.image_ratio: 0`` and a ``loop`` of 960 steps of 16 clips. The
    defaults are those of the demo, which starts from nothing and whose ranking was not measured.
    """

    type: Literal["supernet"] = "supernet"
    options: SupernetOptions = SupernetOptions()
    clips: Count = 4096
    held_out_clips: Annotated[int, Field(ge=18)] = 36
    times: Annotated[tuple[Share, ...], Field(min_length=1)] = MOTION_TIMES


class ProxyEstimator(Section):
    """A training-free proxy by name, which ranks candidates and measures nothing; see ``nas.quality.proxies``.

    ``grad_norm`` and ``feature_alignment`` need the toy space's clips and a trained backbone (``backbone_steps`` on
    ``clips`` clips), the latter a teacher as well: the largest network, trained on for ``teacher_steps``.
    """

    type: Literal["proxy"]
    name: Literal["grad_norm", "synflow", "feature_alignment", "parameters", "flops"]
    backbone_steps: Count = _SHORT.backbone_steps
    teacher_steps: Count = 300
    clips: Count = _SHORT.clips
    held_out_clips: Annotated[int, Field(ge=18)] = _SHORT.held_out_clips


class SensitivityEstimator(Section):
    """Sums of what changing single slots, or ``pairs`` of them, does to a supernet's held-out loss; toy space only.

    Changes are measured from the empty network (``reference: empty``) or from the largest.
    """

    type: Literal["removal_sensitivity"]
    reference: Literal["empty", "largest"] = "empty"
    pairs: bool = False
    options: SupernetOptions = SupernetOptions()
    clips: Count = 4096
    held_out_clips: Annotated[int, Field(ge=18)] = 36


class CapacityEstimator(Section):
    """Training-free proxy from the description alone; it ranks candidates and measures nothing."""

    type: Literal["temporal_capacity"]
