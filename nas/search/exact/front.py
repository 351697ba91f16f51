"""A front and the certificate of how complete it is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact.tables import CostArrays, FloatArray, IntArray

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How complete a front is.

    Every architecture that keeps all limits with the losses of their figures to spare (``memory_loss_mb``,
    ``latency_high_loss_ms``, ``parameters_loss``, and by name ``requirement_losses``) is matched by a member with at
    most ``latency_loss_ms`` more latency, ``memory_loss_mb`` more memory, ``quality_loss`` less quality and, where they
    are an objective, ``parameters_loss`` more parameters. All are 0 when ``exact``.

    Attributes:
        labels: Most labels kept at once, a measure of the work.
        levels: Activation levels solved.

    Source of the claim under a memory floor: architectures are compared in memory without the floor, and raising two
    figures to a common floor neither changes their order nor widens their distance.
    """

    quality_loss: float = 0.0
    latency_loss_ms: float = 0.0
    memory_loss_mb: float = 0.0
    latency_high_loss_ms: float = 0.0
    parameters_loss: float = 0.0
    requirement_losses: tuple[tuple[str, float], ...] = ()
    labels: int = 0
    levels: int = 0

    @property
    def exact(self) -> bool:
        """Whether nothing is missing."""
        return not any((*self.objective_losses, self.latency_high_loss_ms, *dict(self.requirement_losses).values()))

    @property
    def objective_losses(self) -> tuple[float, float, float, float]:
        """Losses of latency, memory, quality and parameters."""
        return self.latency_loss_ms, self.memory_loss_mb, self.quality_loss, self.parameters_loss


def merged(certificates: Sequence[Certificate]) -> Certificate:
    """Return the certificate of a union of fronts: the largest losses and labels, all levels."""
    columns = {field.name: [getattr(item, field.name) for item in certificates] for field in fields(Certificate)}
    named: dict[str, float] = {}
    for name, loss in (pair for item in certificates for pair in item.requirement_losses):
        named[name] = max(named.get(name, 0.0), loss)
    del columns["requirement_losses"]
    largest = {name: sum(values) if name == "levels" else max(values) for name, values in columns.items()}
    return Certificate(**largest, requirement_losses=tuple(sorted(named.items())))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactFront:
    """The front, by rising latency; one architecture for every distinct point.

    Attributes:
        options: Option indices (N, L).
        costs: Costs of the members.
        quality: Qualities (N,).
        parameters_objective: Whether fewer parameters are an objective as well.
    """

    options: IntArray
    costs: CostArrays
    quality: FloatArray
    certificate: Certificate
    parameters_objective: bool = False

    def __len__(self) -> int:
        return len(self.options)

    def points(self) -> FloatArray:
        """Return (N, 3): latency ms, peak memory MB, negated quality, as ``nas.core.pareto`` orders objectives.

        With parameters as an objective they are the fourth column.
        """
        columns = [self.costs.latency_ms, self.costs.peak_memory_mb, -self.quality]
        if self.parameters_objective:
            columns.append(self.costs.parameters)
        return np.stack(columns, axis=1)

    def loss_ratio(self) -> float:
        """Return the certificate's bound in relative terms: the largest loss as a share of the front's own range.

        Of objectives alone: what architectures need to spare under limits is in the certificate.
        0 when the front is exact, infinity when an objective with a loss is the same for all members.
        """
        points = self.points()
        losses = np.array(self.certificate.objective_losses[: points.shape[1]])
        if not losses.any():
            return 0.0
        if not len(points):
            return float("inf")
        ranges = np.ptp(points, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.max(np.where(losses > 0, losses / ranges, 0.0)))
