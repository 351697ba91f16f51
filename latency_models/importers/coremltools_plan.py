"""``ComputePlan.to_dict`` of coremltools: placement and estimated cost, as MLComputePlan gives them.

Source:
    ``coremltools.models.ml_program.experimental.remote_device`` 9.0 (BSD-3-Clause), whose classes write it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latency_models.importers.compute_plans import plan_record
from latency_models.importers.contract import ImportOptions, ImportResult, Rows, read_document
from latency_models.importers.naming import compute_unit
from nas.core.profile import PlannedOperation

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.cost import ComputeUnit


def read(path: Path, options: ImportOptions) -> ImportResult:
    """Read one plan; an operation that cannot be read is named and left out.

    Raises:
        InputError: The file is missing or not JSON.
    """
    data, rows = read_document(path), Rows(str(path))
    infos = data.get("infos") if isinstance(data, dict) else None
    if isinstance(infos, dict):  # to_dict writes a mapping, the device a list
        infos = list(infos.values())
    plan: list[PlannedOperation] = []
    with rows.row(None):
        if not isinstance(infos, list):
            raise ValueError("has no list 'infos'")
        for number, info in enumerate(infos):
            with rows.row(None):
                plan.append(_operation(info, number))
        rows.keep(plan_record(path, plan, options, tool="MLComputePlan"), None)
    return rows.result()


def _operation(info: Any, number: int) -> PlannedOperation:
    if not isinstance(info, dict):
        raise TypeError(f"info {number} is no object")
    usage = info.get("deviceUsage") or {}
    name = _name(info.get("path") or {})
    if not usage.get("preferred"):
        raise ValueError(f"operation {name or number!r} has no preferred device")
    return PlannedOperation(
        name=name,
        kind="unknown",
        preferred=_unit(usage["preferred"]),
        supported=tuple(_unit(item) for item in usage.get("supported", ())),
        cost_share=info.get("estimatedCost"),
    )


def _unit(device: Any) -> ComputeUnit:
    (name,) = device if isinstance(device, dict) and len(device) == 1 else [repr(device)]
    return compute_unit(name)


def _name(path: dict[str, Any]) -> str:
    for component in reversed(path.get("components", ())):
        for kind, key in (("programOperation", "outputName"), ("neuralNetworkLayer", "name")):
            if kind in component:
                return str(component[kind]["data"][key])
    return ""
