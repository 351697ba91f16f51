"""Which block or network to measure next: the one that shrinks the uncertainty of the front's latencies most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from latency_models.effects import Group, NetworkShape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from latency_models.posterior import Posterior

    FloatArray = NDArray[np.float64]

# Standard error of a block's time over three passes; on this project's hosts the median is near 1 %.
_BLOCK_SD = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that could be measured.

    ``subject`` is a block's signature or a network's digest, ``shape`` the network's blocks and None for a block,
    ``cost_s`` the seconds that measuring takes.
    """

    subject: str
    level: Literal["block", "network"]
    group: Group
    shape: NetworkShape | None = None
    cost_s: float = 1.0

    def __post_init__(self) -> None:
        if (self.level == "network") != (self.shape is not None):
            raise ValueError(f"candidate {self.subject!r}: a network needs its shape, a block has none")
        if not self.cost_s > 0.0:
            raise ValueError(f"candidate {self.subject!r}: cost_s must be above 0, got {self.cost_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMeasurement:
    """One step of a plan.

    ``front_sd_ratio`` is the standard deviation of the front's latencies, root mean square over its members, that is
    expected once this and all earlier steps are measured; ``cost_s`` is of this step alone.
    """

    subject: str
    level: Literal["block", "network"]
    front_sd_ratio: float
    cost_s: float


class Design:
    """Covariances between the front and what could be measured, kept up to date as measurements are chosen.

    With F the front's and C the candidates' derivatives and S the covariance of the unknowns, it holds F S C' and
    C S C', whose updates for one more measurement are of rank one; S itself is used once.
    """

    def __init__(
        self,
        posterior: Posterior,
        candidates: Sequence[Candidate],
        front: Sequence[tuple[NetworkShape, Group]],
    ) -> None:
        front_rows = posterior.network_ms(front)[1]
        rows = _candidate_rows(posterior, candidates)
        shared = posterior.unknowns.covariance @ rows.T
        self._front = front_rows @ shared  # (front, candidates)
        self._among = rows @ shared  # (candidates, candidates)
        self._noise = np.array([_noise_sd(posterior, candidate) ** 2 for candidate in candidates])
        self._variance = float(posterior.unknowns.variance_of(front_rows).mean())

    @property
    def front_sd_ratio(self) -> float:
        """Standard deviation of the front's latencies, root mean square over its members."""
        return float(np.sqrt(max(self._variance, 0.0)))

    def gains(self) -> FloatArray:
        """Return by how much each candidate would lower the front's mean variance, (candidates,)."""
        gains: FloatArray = (self._front**2).mean(axis=0) / (np.diag(self._among) + self._noise)
        return gains

    def information(self) -> FloatArray:
        """Return each candidate's own variance over its noise, which D-optimal choice maximises, (candidates,).

        Source:
            Chaloner and Verdinelli, "Bayesian experimental design: a review" (Statistical Science 1995): a measurement
            raises the log determinant of the precision by ``log(1 + information)``.
        """
        information: FloatArray = np.diag(self._among) / self._noise
        return information

    def take(self, index: int) -> None:
        """Account for measuring candidate ``index``."""
        column = self._among[:, index].copy()
        total = column[index] + self._noise[index]
        ahead = self._front[:, index].copy()
        self._variance -= float((ahead**2).mean() / total)
        self._front -= np.outer(ahead, column) / total
        self._among -= np.outer(column, column) / total


def next_measurements(
    posterior: Posterior,
    candidates: Sequence[Candidate],
    front: Sequence[tuple[NetworkShape, Group]],
    count: int,
    *,
    per_cost: bool = False,
) -> tuple[PlannedMeasurement, ...]:
    """Choose what to measure next, one after another, each given the ones before.

    A measurement's value does not enter its reduction of the variance, so a plan needs no results. Greedy choice is
    near the best set: of variance reductions that add up less and less it reaches at least 63 % (Nemhauser et al.,
    1978; exactly submodular they are not, Krause et al., JMLR 2008).

    Args:
        posterior: What is known.
        candidates: Things that could be measured.
        front: Networks whose latencies matter, with the conditions they run under.
        count: How many to choose; fewer if there are fewer candidates.
        per_cost: Whether to count reduction per second of measuring instead of per measurement.

    Raises:
        ValueError: There is no front.
    """
    costs = np.array([candidate.cost_s for candidate in candidates])
    return choose(
        posterior, candidates, front, count, score=lambda design: design.gains() / (costs if per_cost else 1.0)
    )


def choose(
    posterior: Posterior,
    candidates: Sequence[Candidate],
    front: Sequence[tuple[NetworkShape, Group]],
    count: int,
    *,
    score: Callable[[Design], FloatArray],
) -> tuple[PlannedMeasurement, ...]:
    """Choose greedily by any score of the candidates, anew after each choice; ``next_measurements`` is one case."""
    if not front:
        raise ValueError("planning needs at least one network whose latency matters")
    design = Design(posterior, candidates, front)
    left = np.ones(len(candidates), dtype=bool)
    steps = []
    for _ in range(min(count, len(candidates))):
        index = int(np.argmax(np.where(left, score(design), -np.inf)))
        left[index] = False
        design.take(index)
        chosen = candidates[index]
        steps.append(
            PlannedMeasurement(
                subject=chosen.subject,
                level=chosen.level,
                front_sd_ratio=design.front_sd_ratio,
                cost_s=chosen.cost_s,
            )
        )
    return tuple(steps)


def front_sd_ratio(posterior: Posterior, front: Sequence[tuple[NetworkShape, Group]]) -> float:
    """Return the standard deviation of the front's latencies, root mean square over its members."""
    return float(np.sqrt(posterior.unknowns.variance_of(posterior.network_ms(front)[1]).mean()))


def _candidate_rows(posterior: Posterior, candidates: Sequence[Candidate]) -> FloatArray:
    rows = np.zeros((len(candidates), len(posterior.effects)))
    blocks = [index for index, candidate in enumerate(candidates) if candidate.shape is None]
    networks = [(index, item.shape, item.group) for index, item in enumerate(candidates) if item.shape is not None]
    if blocks:
        rows[blocks] = posterior.alone_rows([(candidates[i].subject, candidates[i].group) for i in blocks])
    if networks:
        shapes = [(shape, group) for _, shape, group in networks]
        rows[[index for index, _, _ in networks]] = posterior.network_ms(shapes)[1]
    return rows


def _noise_sd(posterior: Posterior, candidate: Candidate) -> float:
    return _BLOCK_SD if candidate.shape is None else posterior.noise_ratio
