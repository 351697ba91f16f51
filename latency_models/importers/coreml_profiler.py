"""Per-operation JSON of CoreMLProfiler (fguzman82): the table of operations, or the whole structure it is made from.

``op_time`` is the median call's time in ms multiplied by the operation's planned share, not a time measured per
operation; so the sum of all is the median call, and no operation gets a record of its own.
"""

from __future__ import annotations

from math import isclose
from typing import TYPE_CHECKING, Any

from latency_models.importers.compute_plans import plan_record
from latency_models.importers.contract import ImportOptions, ImportResult, Rows, read_document
from latency_models.importers.naming import compute_unit
from nas.core.profile import PlannedOperation
from nas.core.units import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TOLERANCE = 0.02


def read(path: Path, options: ImportOptions) -> ImportResult:
    """Read one profile: the plan, and the median call where the operations have times.

    Raises:
        InputError: The file is missing or not JSON.
    """
    data, rows = read_document(path), Rows(str(path))
    plan: list[PlannedOperation] = []
    with rows.row(None):
        for number, entry in enumerate(_operations(data), start=1):
            with rows.row(None):
                plan.append(_operation(entry, number, options.unit or "ms"))
        record = plan_record(path, plan, options, tool="CoreMLProfiler")
        total_ms = _call_ms(plan)
        if total_ms is not None:
            from dataclasses import replace

            record = replace(
                record,
                samples_ms=(total_ms,),
                statistic="median",
                num_runs=10,  # the tool makes ten predictions
                origin="measured",
                note="sum of the tool's operation times, which are its median call split by planned cost",
            )
        rows.keep(record, None)
    return rows.result()


def _operations(data: Any) -> list[Any]:
    """Return the rows of the table, or the operations of every function and nested block of the structure."""
    if isinstance(data, list):
        return data
    if not isinstance(data, dict):
        raise ValueError("is neither a list of operations nor a structure of functions")
    blocks = [value["block"] for value in data.values() if isinstance(value, dict) and "block" in value]
    found: list[Any] = []
    while blocks:
        for operation in blocks.pop().get("operations", ()):
            found.append(operation)
            blocks.extend(operation.get("blocks", ()))
    if not found:
        raise ValueError("has no function with a block of operations")
    return found


def _operation(entry: Any, number: int, unit: str) -> PlannedOperation:
    if not isinstance(entry, dict):
        raise TypeError(f"operation {number} is no object")
    missing = [name for name in ("operatorName", "cost", "preferred_device") if name not in entry]
    if missing:
        raise ValueError(f"operation {number} has no {missing[0]!r}")
    time = entry.get("op_time")
    outputs = entry.get("outputs") or [{}]
    return PlannedOperation(
        name=str(entry.get("operator_id") or outputs[0].get("name") or entry.get("op_number", number)),
        kind=str(entry["operatorName"]),
        preferred=compute_unit(entry["preferred_device"]),
        supported=tuple(compute_unit(name) for name in (entry.get("supported_devices") or "").split(",") if name),
        cost_share=float(entry["cost"]),
        time_ms=None if time is None else milliseconds(float(time), unit),
        reason=str(entry.get("ane_msg") or ""),
    )


def _call_ms(plan: Sequence[PlannedOperation]) -> float | None:
    """Return the median call, which every operation's time over its share must give."""
    calls = [op.time_ms / op.cost_share for op in plan if op.time_ms is not None and op.cost_share]
    if not calls:
        return None
    if not isclose(min(calls), max(calls), rel_tol=_TOLERANCE):
        raise ValueError(
            f"operation times over their costs give calls of {min(calls):.4g} to {max(calls):.4g} ms: mixed units"
        )
    return sum(calls) / len(calls)
