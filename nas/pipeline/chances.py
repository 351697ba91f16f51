"""The probability that members of a front keep their limits, and the choice among those that are sure enough."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.joint_table import JointCostTable
from latency_models.meeting import Meeting, Moved
from nas.core.architecture import Architecture
from nas.core.pareto import ParetoFront
from nas.core.units import probability
from nas.runs.front import DeviceChances, MemberChance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.cost_table import CostTable
    from nas.core.cost import Budget, DeviceBudget
    from nas.core.evaluation import Evaluation
    from nas.runs.front import SelectionEffect

_RULES = ("knee", "fastest", "best")
_log = logging.getLogger(__name__)


def front_chances(
    table: CostTable | JointCostTable,
    members: Sequence[Evaluation],
    budget: Budget,
    *,
    device: str,
    effect: SelectionEffect | None = None,
) -> tuple[DeviceChances, ...]:
    """Return the probabilities that each device with limits on latency or memory keeps them.

    Args:
        table: Prices networks on the run's device and on the further ones.
        members: Members of the front.
        budget: What the devices must keep.
        device: Name of the run's own device.
        effect: What the selection did to its intervals; those of further devices were not replayed.
    """
    tables = table.tables if isinstance(table, JointCostTable) else (table,)
    places = [_place(table, member.architecture) for member in members]
    found = [_chances(tables, places, budget, device=device, effect=effect)]
    for limits in budget.devices:
        own = [_further(part, limits.device) for part in tables]
        found.append(_chances(own, places, limits, device=limits.device, effect=None))
    return tuple(item for item in found if item is not None)


def _chances(
    tables: Sequence[CostTable],
    places: Sequence[_Place],
    limits: Budget | DeviceBudget,
    *,
    device: str,
    effect: SelectionEffect | None,
) -> DeviceChances | None:
    if limits.latency_ms is None and limits.peak_memory_mb is None:
        return None
    meetings = [Meeting(part, latency_ms=limits.latency_ms, memory_mb=limits.peak_memory_mb) for part in tables]
    after = None
    if effect is not None:
        after = Moved(shift_ratio=effect.high_shift_ratio, widening_ratio=effect.widening_ratio)
    members = tuple(
        MemberChance(
            digest=place.digest,
            probability=meetings[place.table].probability(place.network),
            after_selection=None if after is None else meetings[place.table].probability(place.network, after),
        )
        for place in places
    )
    return DeviceChances(device=device, asked=limits.probability, basis=meetings[0].basis(), members=members)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A member: its digest, which table prices it, and the architecture as that table knows it."""

    digest: str
    table: int
    network: Architecture


def _place(table: CostTable | JointCostTable, architecture: Architecture) -> _Place:
    if not isinstance(table, JointCostTable):
        return _Place(digest=architecture.digest, table=0, network=architecture)
    *options, scenario = table.space.to_options(architecture)
    network = table.tables[scenario].space.from_options(options)
    return _Place(digest=architecture.digest, table=scenario, network=network)


def _further(table: CostTable, device: str) -> CostTable:
    assert table.fleet is not None  # the budget names further devices only beside a fleet of them
    return next(item.table for item in table.fleet.devices if item.name == device)


def choose(front: ParetoFront, rule: str, chances: Sequence[DeviceChances]) -> Evaluation:
    """Return the member that ``rule`` names among those that keep the asked probability after the selection.

    A digest is taken as it is. Where no member keeps it, the rule chooses among all and the log says so.
    """
    asked = [item for item in chances if item.asked is not None]
    if rule not in _RULES or not asked:
        return front.select(rule)
    sure = tuple(member for member in front.members if all(_keeps(item, member) for item in asked))
    if sure:
        return ParetoFront(sure).select(rule)
    _log.warning("no member of the front keeps the asked probability when it allows for the selection")
    return front.select(rule)


def chance_words(chances: Sequence[DeviceChances], digest: str) -> str:
    """Return the probabilities of one member in words, empty without any."""
    found = [(item, item.of(digest)) for item in chances]
    return "; ".join(
        f"keeps the limits of {item.device} with probability {probability(member.known)} ({item.basis})"
        for item, member in found
        if member is not None
    )


def _keeps(chances: DeviceChances, member: Evaluation) -> bool:
    found = chances.of(member.architecture.digest)
    return found is not None and chances.asked is not None and found.known >= chances.asked
