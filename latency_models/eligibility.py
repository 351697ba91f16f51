"""Whether every block of a network runs on the compute units that a budget demands, by rule and by record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.devices import UnitSpec
from latency_models.failures import Infeasible
from latency_models.features import BlockFeatures, block_features
from latency_models.placement import place
from nas.core.cost import ComputeUnit, Infeasibility

if TYPE_CHECKING:
    from nas.core.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligibility:
    """The units of one device that every operation of a network has to run on, and what failed on them.

    The limits of the device's files decide even for blocks that were timed: a time does not say that nothing of the
    block was handed to another unit.

    Attributes:
        device: Name of the device, for messages.
        units: The demanded units, most preferred first; at least one.
        failures: Blocks that did not compile, load or run.
    """

    device: str
    units: tuple[UnitSpec, ...]
    failures: tuple[Infeasible, ...] = ()

    def __post_init__(self) -> None:
        if not self.units:
            raise ValueError(f"{self.device}: a network has to run on at least one unit, got none")

    def faults(self, workload: Workload) -> tuple[Infeasibility, ...]:
        """Return why blocks of ``workload`` do not run on the demanded units; empty when all do."""
        failed = {(item.subject, item.compute_unit): item for item in self.failures if item.level == "block"}
        blocks = block_features(workload, self.units[0].lowered)
        return tuple(fault for block in blocks for fault in self._faults(block, failed))

    def _faults(
        self, block: BlockFeatures, failed: dict[tuple[str, ComputeUnit], Infeasible]
    ) -> tuple[Infeasibility, ...]:
        signature = block.spec.signature
        broken = [failed.get((signature, unit.compute_unit)) for unit in self.units]
        on_record = [item.on(block.block, self.device) for item in broken if item is not None]
        left = tuple(unit for unit, item in zip(self.units, broken, strict=True) if item is None)
        if not left:
            return tuple(on_record)
        refused = [
            Infeasibility(
                block=block.block,
                compute_unit=item.compute_unit,
                reason=f"must run there by budget.runs_on, but {item.reason}",
                source=item.source,
            )
            for item in place(block.operations, left).refused
        ]
        return tuple(dict.fromkeys([*refused, *(on_record if refused else ())]))
