"""The probability that members of a front keep their limits, and the choice among those that are sure enough."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from latency_models.joint_table import JointCostTable
from latency_models.meeting import Meeting, Moved
from nas.core.pareto import ParetoFront
from nas.runs.front import DeviceChances, MemberChance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.cost_table import CostTable
    from nas.core.architecture import Architecture
    from nas.core.cost import Budget, DeviceBudget
    from nas.core.evaluation import Evaluation
    from nas.runs.front import SelectionEffect

_RULES = ("knee", "fastest", "best")
_log = logging.getLogger(__name__)


def device_chances(
    table: CostTable | JointCostTable,
    architectures: Sequence[Architecture],
    limits: Budget | DeviceBudget,
    *,
    device: str,
    effect: SelectionEffect | None = None,
) -> tuple[DeviceChances, ...]:
    """Return the probabilities that a device keeps its limits, as a tuple of one; of none without such limits.

    Args:
        table: Prices networks on the device.
        architectures: Members of the front.
        limits: What the device must keep.
        device: Its name.
        effect: What the selection did to the intervals of this device.
    """
    if limits.latency_ms is None and limits.peak_memory_mb is None:
        return ()
    tables = table.tables if isinstance(table, JointCostTable) else (table,)
    meetings = [Meeting(part, latency_ms=limits.latency_ms, memory_mb=limits.peak_memory_mb) for part in tables]
    after = None
    if effect is not None:
        after = Moved(shift_ratio=effect.high_shift_ratio, widening_ratio=effect.widening_ratio)
    members = []
    for architecture in architectures:
        part, network = _own(table, architecture)
        chance = MemberChance(
            digest=architecture.digest,
            probability=meetings[part].probability(network),
            after_selection=None if after is None else meetings[part].probability(network, after),
        )
        members.append(chance)
    return (DeviceChances(device=device, asked=limits.probability, basis=meetings[0].basis(), members=tuple(members)),)


def _own(table: CostTable | JointCostTable, architecture: Architecture) -> tuple[int, Architecture]:
    """Return which table prices a candidate, and the architecture as that table knows it."""
    if not isinstance(table, JointCostTable):
        return 0, architecture
    *options, scenario = table.space.to_options(architecture)
    return scenario, table.tables[scenario].space.from_options(options)


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
        f"keeps the limits of {item.device} with probability {member.known:.3f} ({item.basis})"
        for item, member in found
        if member is not None
    )


def _keeps(chances: DeviceChances, member: Evaluation) -> bool:
    found = chances.of(member.architecture.digest)
    return found is not None and chances.asked is not None and found.known >= chances.asked
