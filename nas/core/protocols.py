"""The protocols that packages meet each other through; a class satisfies one by having the methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from nas.core.architecture import Architecture, ChoiceSpec, ChoiceValue
    from nas.core.cost import CostEstimate
    from nas.core.evaluation import Evaluation, Proposal, Quality
    from nas.core.resources import Resources
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

    In a synchronous search every candidate of a batch is told together, so a batch is a function of (options, seed,
    batch number, evaluations told) and resuming is telling the journal. In an asynchronous search candidates are told
    one by one while others are pending: proposed and not told. An engine never proposes a pending candidate again.
    """

    def ask(self, count: int) -> list[Proposal]:
        """Propose up to ``count`` candidates; an empty list while nothing is pending means the engine is finished."""
        ...

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn from one batch, in ask order, or from one candidate."""
        ...


class Executor(Protocol):
    """Runs a function on items, here or elsewhere; used by one search at a time."""

    def prepare(self, requests: Sequence[Resources]) -> None:
        """Get ready for tasks that reserve ``requests``; raise ``UnavailableError`` for one that can never run."""
        ...

    def submit(self, key: Hashable, function: Callable[[T], R], item: T, resources: Resources | None = None) -> None:
        """Take an item to run; ``key`` comes back with its result. ``None`` means the executor's own resources."""
        ...

    def wait(self) -> list[tuple[Hashable, Any]]:
        """Return what has finished since the last call, at least one; an exception of the function is raised.

        In place of a result stands a ``WorkerFailure`` when the item's worker died on every try.
        """
        ...

    def room(self, resources: Resources | None = None) -> int:
        """Return how many more items would start at once; below 0 how many wait."""
        ...

    def close(self) -> None:
        """Forget what was submitted and give back what was started."""
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
