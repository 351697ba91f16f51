"""Compute plans as records: where each operation runs and its share of the cost, without any time of the network.

What three formats have in common; the network, and the device where the file does not say, come from the options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.importers.naming import device_name, ran_on, subject, third_party
from nas.core.profile import PlannedOperation, ProfileRecord, RunConditions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from latency_models.importers.contract import ImportOptions

_ROUNDING = 0.02  # shares are rounded to four digits or so, and some planners leave operations without cost


def plan_record(
    path: Path, plan: Sequence[PlannedOperation], options: ImportOptions, *, tool: str, note: str = ""
) -> ProfileRecord:
    """Return a record of one plan.

    Raises:
        ValueError: The plan is empty, its shares add up to more than the whole, or no device is given.
    """
    if not plan:
        raise ValueError("has no operation")
    total = sum(operation.cost_share or 0.0 for operation in plan)
    if total > 1.0 + _ROUNDING:
        raise ValueError(f"cost shares add up to {total:.3g}, more than the whole: another unit than the format's")
    if options.device is None:
        raise ValueError("a compute plan does not say for which device it is: give --device")
    unit = ran_on(plan, options.compute_units)
    return ProfileRecord(
        **subject(options.subject or path.name.split(".")[0]),
        scenario=options.scenario,
        device=third_party(device_name(options.device), unit=unit, software="Core ML"),
        samples_ms=(),
        warmup=0,
        peak_memory_mb=None,
        memory_method=None,
        plan=tuple(plan),
        conditions=RunConditions(requested_units=options.compute_units),
        tool=tool,
        taken_at="",
        origin="predicted",
        source=f"{tool} {path.name}",
        note=note,
    )
