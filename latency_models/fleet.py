"""Further devices that the same networks have to run on: their costs beside the run's own, and one latency over all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from latency_models.cost_table import CostTable
from nas.core.cost import CostEstimate, DeviceCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.architecture import Architecture

FloatArray = NDArray[np.float64]
Combination = Literal["worst", "weighted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDevice:
    """One further device: its name, the table of its own predictor, and its weight, where the run's device has 1."""

    name: str
    table: CostTable
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Further devices, and how one latency is made of all: the largest, or the mean with the devices' weights."""

    devices: tuple[FleetDevice, ...]
    combination: Combination = "worst"

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a fleet needs at least one device and every name once, got {', '.join(names) or 'none'}")

    @property
    def shares(self) -> FloatArray:
        """Share of each device in a weighted latency, the run's own first; they add up to 1."""
        weights = np.array([1.0, *(device.weight for device in self.devices)])
        shares: FloatArray = weights / weights.sum()
        return shares

    def combined_ms(self, own_ms: FloatArray, others_ms: Sequence[FloatArray]) -> FloatArray:
        """Return one latency (N,) of those on the run's own device and on each other."""
        every = np.stack([own_ms, *others_ms])
        weights = self.shares[:, None]
        combined: FloatArray = every.max(axis=0) if self.combination == "worst" else (weights * every).sum(axis=0)
        return combined

    def add(self, cost: CostEstimate, architecture: Architecture) -> CostEstimate:
        """Return ``cost`` with those of the other devices, each with its own interval and origin."""
        others = tuple(_device_cost(device.name, device.table.estimate(architecture)) for device in self.devices)
        combined_ms = self.combined_ms(np.array([cost.latency_ms]), [np.array([other.latency_ms]) for other in others])
        return replace(cost, devices=others, combined_ms=float(combined_ms[0]))


def _device_cost(name: str, cost: CostEstimate) -> DeviceCost:
    return DeviceCost(
        device=name,
        latency_ms=cost.latency_ms,
        latency_interval_ms=cost.latency_interval_ms,
        peak_memory_mb=cost.peak_memory_mb,
        memory_interval_mb=cost.memory_interval_mb,
        predictor=cost.predictor,
        origin=cost.origin,
        package_mb=cost.package_mb,
        upper=cost.upper,
        in_domain=cost.in_domain,
        domain_note=cost.domain_note,
        infeasible=cost.infeasible,
    )
