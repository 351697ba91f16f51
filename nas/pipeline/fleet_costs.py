"""What further devices add to the tables that engines solve: latencies, limits, and options that do not run there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.search.exact.requirements import MemoryRequirement, Requirement
from nas.search.exact.tables import BoolArray, SlotSum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from latency_models.fleet import Fleet, FleetDevice
    from latency_models.table_arrays import SlotCosts
    from nas.core.cost import Budget, DeviceBudget


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetCosts:
    """Fields of ``AdditiveCosts`` as further devices change them."""

    latency_ms: SlotSum
    runs: tuple[BoolArray, ...]
    requirements: tuple[Requirement, ...] = ()
    memory_requirements: tuple[MemoryRequirement, ...] = ()
    other_latencies_ms: tuple[SlotSum, ...] = ()

    @classmethod
    def of(cls, fleet: Fleet | None, own_ms: SlotSum, runs: tuple[BoolArray, ...], budget: Budget | None) -> FleetCosts:
        """Return what a fleet makes of a device's own latency, of what runs, and of its budget's other limits."""
        if fleet is None:
            return cls(latency_ms=own_ms, runs=runs)
        found = [(device, device.table.slot_costs()) for device in fleet.devices]
        others_ms = [SlotSum.of(costs.latency_ms, base=costs.base_latency_ms) for _, costs in found]
        for _, costs in found:
            runs = tuple(ours & theirs for ours, theirs in zip(runs, costs.runs, strict=True))
        limits = {item.device: item for item in budget.devices} if budget is not None else {}
        limited = [(device, costs, limits[device.name]) for device, costs in found if device.name in limits]
        weighted = fleet.combination == "weighted"
        return cls(
            latency_ms=_mean(fleet, [own_ms, *others_ms]) if weighted else own_ms,
            runs=runs,
            requirements=tuple(item for each in limited for item in _requirements(*each)),
            memory_requirements=tuple(item for each in limited for item in _memory(*each)),
            other_latencies_ms=() if weighted else tuple(others_ms),
        )


def _mean(fleet: Fleet, latencies_ms: list[SlotSum]) -> SlotSum:
    shares = fleet.shares.tolist()
    scaled = [latency.scaled(share) for share, latency in zip(shares, latencies_ms, strict=True)]
    rows = zip(*(latency.slots for latency in scaled), strict=True)
    slots = tuple(sum(rest, start=first) for first, *rest in rows)
    return SlotSum(slots=slots, base=sum(latency.base for latency in scaled))


def _requirements(device: FleetDevice, costs: SlotCosts, limits: DeviceBudget) -> Iterator[Requirement]:
    if limits.latency_ms is not None:
        table = SlotSum.of(costs.latency_high_ms, base=costs.base_latency_high_ms)
        yield Requirement(name=f"latency_ms on {device.name}", table=table, limit=limits.latency_ms)
    if limits.package_mb is not None:
        table = SlotSum.of(costs.package_mb, base=costs.base_package_mb)
        yield Requirement(name=f"package_mb on {device.name}", table=table, limit=limits.package_mb)


def _memory(device: FleetDevice, costs: SlotCosts, limits: DeviceBudget) -> Iterator[MemoryRequirement]:
    if limits.peak_memory_mb is not None:
        yield MemoryRequirement(
            name=f"peak_memory_mb on {device.name}",
            activation_mb=costs.activation_mb,
            limit=limits.peak_memory_mb,
            base_activation_mb=costs.base_activation_mb,
            activation_high_ratio=costs.activation_high_ratio,
            held_high_mb=costs.held_high_mb,
            floor_high_mb=costs.floor_high_mb,
            weights_mb=SlotSum.of(costs.weights_mb, base=costs.base_weights_mb),
        )
