"""The protocols that packages meet each other through; a class satisfies one by having the methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from nas.core.architecture import Architecture, ChoiceSpec, ChoiceValue
    from nas.core.cost import CostEstimate
    from nas.core.evaluation import Evaluation, Proposal, Quality, WorkerFailure
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload

T = TypeVar("T")
R = TypeVar("R")


class SearchSpace(Protocol):
    """A set of architectures over a fixed backbone with temporal slots.

    A slot groups the choices of one temporal layer; ``options`` enumerates its distinct canonical settings, so an
    architecture is one option per slot and ``count`` is the product of the numbers of options.
    """

    name: str
    version: int

    @property
    def identifier(self) -> str:
        """Name and version: ``tiny/1``."""
        ...

    def choices(self) -> tuple[ChoiceSpec, ...]:
        """Every choice, in the order of the index vector."""
        ...

    def slots(self) -> tuple[str, ...]:
        """Names of the temporal slots in execution order."""
        ...

    def options(self, slot: str) -> tuple[Mapping[str, ChoiceValue], ...]:
        """Distinct canonical settings of one slot; keys are full choice names. The first is kind ``none``."""
        ...

    def count(self) -> int:
        """Exact number of distinct architectures."""
        ...

    def encode(self, architecture: Architecture) -> tuple[int, ...]:
        """Index vector over ``choices()``; inactive choices are 0."""
        ...

    def decode(self, indices: Sequence[int]) -> Architecture:
        """Architecture of an index vector, inactive positions dropped."""
        ...

    def from_options(self, options: Sequence[int]) -> Architecture:
        """Architecture with option ``options[i]`` in slot ``slots()[i]``."""
        ...

    def to_options(self, architecture: Architecture) -> tuple[int, ...]:
        """Option index per slot; the inverse of ``from_options``."""
        ...

    def validate(self, architecture: Architecture) -> None:
        """Raise ``ArchitectureError`` naming every fault, or return."""
        ...

    def workload(self, architecture: Architecture, scenario: Scenario) -> Workload:
        """What the architecture computes in one denoiser call."""
        ...


class CostModel(Protocol):
    """Prices candidates; the search sees nothing else of a predictor."""

    def estimate(self, architecture: Architecture) -> CostEstimate:
        """Cost of one candidate, with intervals."""
        ...


class QualityEstimator(Protocol):
    """Judges one candidate."""

    name: str
    fidelity: str

    def estimate(self, architecture: Architecture) -> Quality:
        """Quality of one candidate; deterministic in the architecture."""
        ...


class SearchEngine(Protocol):
    """Proposes candidates and learns from their evaluations.

    A batch is a function of (options, seed, batch number, evaluations told): resuming is telling the journal.
    """

    def ask(self, count: int) -> list[Proposal]:
        """Propose up to ``count`` candidates; an empty list means the engine is finished."""
        ...

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn from one batch, in ask order."""
        ...


class Executor(Protocol):
    """Runs a function over items, here or elsewhere."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R | WorkerFailure]:
        """Yield results in item order; an exception of ``function`` is raised, a worker's death is yielded."""
        ...


class Progress(Protocol):
    """Where a long stage says how far it is."""

    def update(self, done: int, total: int, message: str = "") -> None:
        """Report ``done`` of ``total`` steps."""
        ...


class SilentProgress:
    """A progress that says nothing."""

    def update(self, done: int, total: int, message: str = "") -> None:
        """Ignore the report."""


JsonDict = dict[str, Any]
