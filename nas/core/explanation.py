"""What drove a search: slots, kinds, blocks and limits by what they are worth, and how far from optimal it can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure of the learned quality: its mean over posterior draws, and the interval that holds the stated part."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotDrive:
    """What one slot decides.

    Attributes:
        slot: Name of the slot.
        latency_ms: Most minus least that its options cost, the other slots as in the chosen network.
        peak_memory_mb, parameters: The same of memory and parameters.
        quality: Best minus worst of its options, the other slots at random.
        latency_share: First-order Sobol' index: variance of the slot's conditional mean over the whole variance, of
            designs with options drawn evenly and on their own from those that fit the budget.
        memory_share, parameters_share, quality_share: The same of memory, parameters and quality.
    """

    slot: str
    latency_ms: float
    peak_memory_mb: float
    parameters: float
    quality: Estimate
    latency_share: float
    memory_share: float
    parameters_share: float
    quality_share: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class KindDrive:
    """What a kind of layer adds to a slot's plainest option, on average over slots and over its options that fit.

    Attributes:
        kind: Name of the kind.
        options: Number of options averaged over.
        latency_ms, peak_memory_mb, parameters: Added cost, the other slots as in the chosen network.
        quality: Added quality, the other slots at random.
    """

    kind: str
    options: int
    latency_ms: float
    peak_memory_mb: float
    parameters: float
    quality: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Another option for a slot of a network that keeps the budget, and what it changes.

    ``probability`` is that of its being better in quality, by the model.
    """

    option: str
    latency_ms: float
    peak_memory_mb: float
    quality: Estimate
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockValue:
    """What one slot of one network is worth against the slot's plainest option: what taking it out would save and lose.

    ``better`` is the option of highest mean quality that costs no more latency and memory, if one is expected to gain.
    """

    digest: str
    slot: str
    option: str
    plainest: str
    latency_ms: float
    peak_memory_mb: float
    parameters: float
    quality: Estimate
    better: Replacement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionChange:
    """A slot whose option differs between two networks."""

    slot: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStep:
    """What another limit buys: the best quality inside it against the best inside the present budget.

    Attributes:
        limit: Which limit is moved, all others staying.
        change_ratio: By what part of it; below 0 it is tightened.
        allowed: The moved limit.
        quality: Difference of best qualities: each draw's own two best networks.
        changes: From the model's best network inside the budget to its best inside the moved limit.
        possible: Whether anything keeps the moved limit; where not, there is no quality.
    """

    limit: Literal["latency_ms", "peak_memory_mb"]
    change_ratio: float
    allowed: float
    difference: float
    quality: Estimate | None
    changes: tuple[OptionChange, ...]
    possible: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimalityBound:
    """How much of the best reachable hypervolume the judged candidates hold, by the quality model.

    Attributes:
        median: Median share over posterior draws.
        lower: What the share is at least with probability ``coverage``.
        draws: Number of posterior draws, each solved for its own front.
        inflation: Factor on the draws' distance from the posterior mean, so that stated bounds hold.
        assumption: What has to be true for the bound to hold.
    """

    median: float
    lower: float
    coverage: float
    draws: int
    inflation: float
    assumption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """``search/explain.json``: all of the above for one search.

    ``judged`` counts the evaluations that the quality model was fitted to; ``coverage`` is that of every ``Estimate``.
    """

    chosen: str
    judged: int
    draws: int
    coverage: float
    quality_estimator: str
    slots: tuple[SlotDrive, ...]
    kinds: tuple[KindDrive, ...]
    blocks: tuple[BlockValue, ...]
    budgets: tuple[BudgetStep, ...]
    optimality: OptimalityBound | None
