"""What a profile says does not run: blocks and whole networks that did not compile, load or run on a compute unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.cost import ComputeUnit, Infeasibility
from nas.core.profile import FailureStage, Level, ProfileSet

if TYPE_CHECKING:
    from collections.abc import Iterable

# What an infeasibility names where no single block is to blame.
WHOLE = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """A block or network that did not compile, load or run on a compute unit, in the device's own words.

    ``subject`` is the block's signature or the network's digest.
    """

    subject: str
    level: Level
    compute_unit: ComputeUnit
    stage: FailureStage
    reason: str

    def on(self, block: str, device: str) -> Infeasibility:
        """Return it as what keeps a network from running on ``device``, because of ``block``."""
        return Infeasibility(
            block=block,
            compute_unit=self.compute_unit,
            reason=f"{self.stage}: {self.reason}",
            source=f"profile of {device}",
        )


def failures_on_record(profiles: ProfileSet) -> tuple[Infeasible, ...]:
    """Return the failures that no bound on time describes, unless the subject has run on that unit since."""
    ran: dict[tuple[str, ComputeUnit], str] = {}
    for record in profiles.records:
        if record.samples_ms:
            key = (record.subject, record.device.compute_unit)
            ran[key] = max(ran.get(key, ""), record.taken_at)
    found: dict[tuple[str, ComputeUnit], Infeasible] = {}
    for record in profiles.failures():
        failure, key = record.failure, (record.subject, record.device.compute_unit)
        if failure is None or failure.limit_ms is not None or ran.get(key, "") > record.taken_at:
            continue
        found[key] = Infeasible(
            subject=record.subject, level=record.level, compute_unit=key[1], stage=failure.stage, reason=failure.message
        )
    return tuple(found[key] for key in sorted(found))


def failed_networks(
    failures: Iterable[Infeasible], compute_unit: ComputeUnit, device: str
) -> dict[str, tuple[Infeasibility, ...]]:
    """Return why whole networks do not run whose home is ``compute_unit``, by digest."""
    return {
        item.subject: (item.on(WHOLE, device),)
        for item in failures
        if item.level == "network" and item.compute_unit == compute_unit
    }
