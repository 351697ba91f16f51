"""What a run asks of costs besides its predictor: the package's form, demanded units, and how sure limits must be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latency_models.devices import WeightFormat
from latency_models.eligibility import Eligibility
from latency_models.package_size import package_mb
from latency_models.residency import PLAIN

if TYPE_CHECKING:
    from latency_models.pricing import CostPredictor, WorkloadPrice
    from nas.core.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """Demands of one run on one device.

    Attributes:
        weights: How the exported package stores weights.
        eligibility: Units that every block has to run on; None where any allowed one will do.
        level: Probability that each upper end must hold with; None where limits are held against the intervals.
    """

    weights: WeightFormat = PLAIN
    eligibility: Eligibility | None = None
    level: float | None = None

    def __post_init__(self) -> None:
        if self.level is not None and not 0.5 <= self.level < 1.0:
            raise ValueError(f"the level of one-sided ends must lie in [0.5, 1), got {self.level}")

    def add(self, predictor: CostPredictor, workload: Workload) -> WorkloadPrice:
        """Return the price of a workload with its package size and the blocks that are not eligible."""
        price = predictor.price(workload)
        faults = () if self.eligibility is None else self.eligibility.faults(workload)
        known = {(fault.block, fault.compute_unit) for fault in price.infeasible}
        added = tuple(fault for fault in faults if (fault.block, fault.compute_unit) not in known)
        size_mb = package_mb(workload, self.weights)
        return replace(price, infeasible=price.infeasible + added, package_mb=size_mb)


NO_DEMANDS = Demands()
