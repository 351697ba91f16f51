"""What the report says of limits: the budget, how surely it is kept, and further devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.core.units import budget_words, latency, latency_with_interval, memory, memory_with_interval, probability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.core.cost import DeviceCost
    from nas.core.evaluation import Evaluation
    from nas.runs.front import DeviceChances, FrontFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One labelled figure with how it was obtained; ``tone`` marks good and bad news."""

    label: str
    value: str
    detail: str = ""
    origin: str = ""
    tone: str = ""


def limit_facts(front: FrontFile, chosen: Evaluation) -> list[Fact]:
    """Return the package's size, how surely each device keeps its limits, and the costs on further devices."""
    cost, facts = chosen.cost, []
    if cost.package_mb is not None:
        detail = "exported package, from parameters and the form of its weights"
        facts.append(Fact(label="Package", value=memory(cost.package_mb), detail=detail, origin="predicted"))
    if cost.combined_ms is not None:
        detail = f"what the search minimised over {1 + len(cost.devices)} devices"
        facts.append(Fact(label="Latency over devices", value=latency(cost.combined_ms), detail=detail))
    facts += [_device_fact(item) for item in cost.devices]
    return facts + list(_chance_facts(front, chosen.architecture.digest))


CHANCE_COLUMNS = ("device", "digest", "probability", "after_selection", "asked", "basis")
DEVICE_COLUMNS = (
    "digest", "device", "latency_ms", "latency_low_ms", "latency_high_ms", "peak_memory_mb", "memory_low_mb",
    "memory_high_mb", "package_mb", "in_domain", "predictor", "origin",
)  # fmt: skip


def chance_rows(front: FrontFile | None) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table with the probability of every member on every device with limits."""
    for item in front.chances if front else ():
        for member in item.members:
            yield item.device, member.digest, member.probability, member.after_selection, item.asked, item.basis


def device_rows(front: FrontFile | None) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table with the cost of every member on every further device."""
    for member in front.members if front else ():
        for cost in member.cost.devices:
            time, space = cost.latency_interval_ms, cost.memory_interval_mb
            yield (
                member.architecture.digest, cost.device, cost.latency_ms, time.low, time.high, cost.peak_memory_mb,
                space.low, space.high, cost.package_mb, cost.in_domain, cost.predictor, cost.origin,
            )  # fmt: skip


def _device_fact(cost: DeviceCost) -> Fact:
    note = "" if cost.in_domain else f"; outside its calibration: {cost.domain_note or 'extrapolated'}"
    return Fact(
        label=f"On {cost.device}",
        value=latency_with_interval(cost.latency_ms, cost.latency_interval_ms, ""),
        detail=f"peak memory {memory_with_interval(cost.peak_memory_mb, cost.memory_interval_mb, '')}; "
        f"{cost.predictor}{note}",
        origin=cost.origin,
        tone="bad" if cost.infeasible else "",
    )


def _chance_facts(front: FrontFile, digest: str) -> Iterator[Fact]:
    budgets = {item.device: item for item in front.budget.devices}
    for item in front.chances:
        found = item.of(digest)
        if found is None:
            continue
        limits = budget_words(budgets.get(item.device, front.budget))
        before = f"; {probability(found.probability)} before allowing for the selection"
        allowing = "" if found.after_selection is None else before
        yield Fact(
            label=f"Probability that {item.device} keeps the limits",
            value=probability(found.known),
            detail=f"{limits}; {item.basis}{allowing}",
            origin="predicted",
            tone=_tone(item, found.known),
        )


def _tone(chances: DeviceChances, known: float) -> str:
    if chances.asked is None:
        return ""
    return "good" if known >= chances.asked else "bad"
