"""Static audit of one program: where each operation can run, what it wastes, what it may cost.

Limits, rates and rules are those of ``latency_models``; facts of the program come from ``nas.export.mil``. Nothing is
run: eligibility is what is known of the units, and times are the device's uncalibrated prior.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from latency_models.devices import WeightFormat
from latency_models.lowering import OperationFeatures
from latency_models.placement import refusal
from latency_models.predictors.roofline import placed_units
from latency_models.program_rules import ProgramRule, rules_for
from latency_models.step_times import rates_of, step_seconds, steps_of
from nas.export.mil.facts import OperationFact, operation_facts
from nas.export.mil.memory import activation_peak, weight_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.devices import DeviceSpec, UnitSpec
    from nas.core.scenario import ComputeUnits
    from nas.export.mil.program import Program

# Rows of tensors begin at multiples of this on the Neural Engine (ane-guide; Apple's ml-ane-transformers).
ROW_BYTES = 64
_KINDS = {
    "linear": "linear",
    "product": "product",
    "attention": "attention",
    "pointwise": "add",
    "reduction": "reduction",
    "layout": "layout",
    "other": "other",
}
_GATHERS = ("gather", "gather_along_axis", "gather_nd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a unit does not run an operation."""

    unit: str
    rule: str
    reason: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedOperation:
    """One operation of a program on a device.

    Attributes:
        fact: The operation.
        eligible: Units that run it, most preferred first.
        refused: Why the others do not.
        unit: The unit it is placed on.
        time_ms: Time there by the prior, without switching.
        padding_bytes: What its results waste in rows of 64 bytes.
        layout: What it does to the layout: ``copy`` for a transpose, ``rows`` for a view with other rows, or nothing.
    """

    fact: OperationFact
    eligible: tuple[str, ...]
    refused: tuple[Refused, ...]
    unit: str
    time_ms: float
    padding_bytes: int
    layout: str


def audit_program(program: Program, device: DeviceSpec, compute_units: ComputeUnits) -> dict[str, Any]:
    """Return the audit of a program as plain data: summary, notes and every operation.

    Args:
        program: What is audited.
        device: Where it is to run.
        compute_units: Core ML setting; every unit of the device is judged, these are placed on.
    """
    units = _as_written(placed_units(device, compute_units, "float16"))
    every = _as_written(placed_units(device, "all", "float16"))
    facts = operation_facts(program)
    audited = [_audited(fact, units, every, device.chip) for fact in facts]
    segments = _segments(audited)
    switching_ms = _switching_ms(segments, units, device)
    busy_ms = sum(item.time_ms for item in audited)
    return {
        "origin": "predicted",
        "specification": program.specification,
        "summary": _summary(audited, segments, switching_ms, units[0]),
        "memory": _memory(program, every),
        "refusals": _grouped_refusals(audited),
        "segments": [{"unit": unit, "operations": len(items)} for unit, items in segments],
        "notes": _notes(audited, every, device.chip),
        "operations": [_data(item, busy_ms) for item in audited],
    }


def _as_written(units: Sequence[UnitSpec]) -> tuple[UnitSpec, ...]:
    """Return units that run a program as it is written, nothing left to lower."""
    return tuple(replace(unit, lowering=f"program_{unit.compute_unit}") for unit in units)


def _audited(
    fact: OperationFact, units: tuple[UnitSpec, ...], every: tuple[UnitSpec, ...], chip: str
) -> AuditedOperation:
    features = _features(fact)
    refused = {unit.compute_unit: _refused(fact, features, unit, chip) for unit in every}
    chosen = next((unit for unit in units if refused[unit.compute_unit] is None), units[-1])
    weights = WeightFormat(bits=min(max(fact.weight_bits, 0.5), 32.0), form=fact.weight_form)
    seconds = 0.0
    if fact.family != "view":
        seconds = float(step_seconds(steps_of([features], chosen, weights), rates_of(chosen, "float16")).sum())
    stored = () if fact.family == "view" else fact.outputs
    return AuditedOperation(
        fact=fact,
        eligible=tuple(name for name, reason in refused.items() if reason is None),
        refused=tuple(reason for reason in refused.values() if reason is not None),
        unit=chosen.compute_unit,
        time_ms=1e3 * seconds,
        padding_bytes=sum(tensor.padded_bytes(ROW_BYTES) - tensor.num_bytes for tensor in stored),
        layout=_layout(fact),
    )


def _features(fact: OperationFact) -> OperationFeatures:
    """Return an operation as the cost model takes it; attention as (batch, tokens, width) of all heads."""
    inputs, output = tuple(tensor.shape for tensor in fact.inputs), fact.outputs[0].shape if fact.outputs else ()
    kind = _KINDS.get(fact.family, "view")
    if fact.family == "convolution":
        kind = "conv3d" if len(output) == 5 else "conv2d"
    if fact.family == "pointwise" and not inputs:
        kind = "other"
    if fact.type in _GATHERS:
        kind = "embedding"
    if fact.type == "layer_norm":
        kind = "layer_norm"
    if fact.family == "attention":
        inputs, output = tuple(_joined(shape) for shape in inputs[:3]), _joined(output)
        inputs = (*inputs, *inputs[-1:] * (3 - len(inputs)))  # one tensor may be keys and values at once
    return OperationFeatures(
        kind=kind,
        flops=fact.flops,
        weight_bytes=2 * fact.weight_elements,
        moved_bytes=sum(tensor.num_bytes for tensor in (*fact.inputs, *fact.outputs)),
        inputs=inputs or (output,),
        output=output,
        element_bytes=fact.outputs[0].element_bytes if fact.outputs else 2,
        options=fact.options,
    )


def _joined(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (batch, heads, tokens, width) as (batch, tokens, heads * width)."""
    if len(shape) < 4:
        return (shape[0] if len(shape) == 3 else 1, shape[-2], shape[-1])
    return (shape[0], shape[-2], shape[1] * shape[-1])


def _refused(fact: OperationFact, features: OperationFeatures, unit: UnitSpec, chip: str) -> Refused | None:
    name = unit.compute_unit
    rule = next((rule for rule in rules_for(name, chip) if rule.effect == "refused" and _applies(rule, fact)), None)
    if rule is not None:
        return Refused(unit=name, rule=rule.id, reason=rule.text, source=f"{rule.source} (read {rule.date})")
    # The whole shapes are judged, not those of attention by batch and tokens.
    shapes = tuple(tensor.shape for tensor in fact.inputs) or features.inputs
    output = fact.outputs[0].shape if fact.outputs else ()
    judged = features if fact.family == "attention" else replace(features, inputs=shapes, output=output)
    found = refusal(judged, unit) if judged.output else None
    if found is None:
        return None
    kind = "kinds" if found.reason.endswith("does not run there") else "limits"
    return Refused(unit=name, rule=f"{name}-{kind}", reason=found.reason, source=found.source)


def _applies(rule: ProgramRule, fact: OperationFact) -> bool:
    tensors = (*fact.inputs, *fact.outputs)
    return rule.applies(
        fact.type,
        inputs=tuple(tensor.shape for tensor in fact.inputs),
        outputs=tuple(tensor.shape for tensor in fact.outputs),
        dtypes=(*(tensor.dtype for tensor in tensors), *fact.weight_dtypes),
    )


def _layout(fact: OperationFact) -> str:
    if fact.family == "layout":
        return "copy"
    if fact.family == "view" and fact.inputs and fact.inputs[0].shape[-1:] != fact.outputs[0].shape[-1:]:
        return "rows"
    return ""


def _segments(audited: Sequence[AuditedOperation]) -> list[tuple[str, list[AuditedOperation]]]:
    """Return the runs of operations on one unit; a view goes with what is before it, the first ones with the next."""
    runs: list[tuple[str, list[AuditedOperation]]] = []
    waiting: list[AuditedOperation] = []
    for item in audited:
        if item.fact.family == "view":
            (runs[-1][1] if runs else waiting).append(item)
        elif runs and runs[-1][0] == item.unit:
            runs[-1][1].append(item)
        else:
            runs.append((item.unit, [*waiting, item]))
            waiting = []
    return runs or [(item.unit, [item]) for item in waiting[:1]]


def _switching_ms(
    segments: Sequence[tuple[str, list[AuditedOperation]]], units: tuple[UnitSpec, ...], device: DeviceSpec
) -> float:
    by_name = {unit.compute_unit: unit for unit in units}
    begun = [by_name[unit] for unit, _ in segments[1:]]  # type: ignore[index]  # placed on one of them
    started = sum(unit.segment_overhead_ms.value for unit in begun)
    return units[0].call_overhead_ms.value + started + len(begun) * device.crossing_ms.value


def _summary(
    audited: Sequence[AuditedOperation],
    segments: Sequence[tuple[str, list[AuditedOperation]]],
    switching_ms: float,
    home: UnitSpec,
) -> dict[str, Any]:
    name = home.compute_unit
    real = [item for item in audited if item.fact.family != "view"]
    stored = sum(tensor.num_bytes for item in real for tensor in item.fact.outputs)
    padding = sum(item.padding_bytes for item in real)
    busy_ms = sum(item.time_ms for item in audited)
    copies = [item for item in audited if item.layout == "copy"]
    nowhere = [item for item in audited if not item.eligible]
    return {
        "operations": len(audited),
        "home_unit": name,
        "on_home_unit": sum(name in item.eligible for item in audited),
        "eligible": dict(Counter(unit for item in audited for unit in item.eligible)),
        "nowhere": len(nowhere),
        "segments": len(segments),
        "crossings": len(segments) - 1,
        "time_ms": busy_ms + switching_ms,
        "switching_ms": switching_ms,
        "home_time_ratio": sum(item.time_ms for item in audited if item.unit == name) / busy_ms if busy_ms else 0.0,
        "layout_copies": len(copies),
        "layout_copy_bytes": sum(tensor.num_bytes for item in copies for tensor in item.fact.outputs),
        "layout_copy_ms": sum(item.time_ms for item in copies),
        "row_changes": sum(item.layout == "rows" for item in audited),
        "padding_bytes": padding,
        "stored_bytes": stored,
        "padding_ratio": padding / stored if stored else 0.0,
        "beyond_limits": sum(any(reason.rule == f"{name}-limits" for reason in item.refused) for item in audited),
    }


def _memory(program: Program, units: tuple[UnitSpec, ...]) -> dict[str, Any]:
    peak, padded = activation_peak(program), activation_peak(program, row_bytes=ROW_BYTES)
    weights = weight_bytes(program)
    return {
        "activation_peak_bytes": peak.num_bytes,
        "activation_peak_at": peak.location,
        "largest_alive": [{"name": name, "bytes": size} for name, size in peak.tensors[:5]],
        "padded_peak_bytes": padded.num_bytes,
        "weight_bytes": weights.stored,
        "decompressed_bytes": weights.decompressed,
        "forms": [
            {"form": item.form, "stored_bytes": item.stored_bytes, "dense_bytes": item.dense_bytes}
            for item in weights.forms
        ],
        "units": [
            {
                "unit": unit.compute_unit,
                "resident_weight_bytes": (resident := weights.resident(unit.streamed_forms)),
                "least_bytes": resident
                + (padded.num_bytes if unit.compute_unit == "neural_engine" else peak.num_bytes),
            }
            for unit in units
        ],
    }


def _grouped_refusals(audited: Sequence[AuditedOperation]) -> list[dict[str, Any]]:
    """Return what is refused, by unit, rule, type and reason, the most frequent first."""
    groups: dict[tuple[str, str, str, str], list[AuditedOperation]] = {}
    sources: dict[tuple[str, str, str, str], str] = {}
    for item in audited:
        for reason in item.refused:
            key = (reason.unit, reason.rule, item.fact.type, reason.reason)
            groups.setdefault(key, []).append(item)
            sources[key] = reason.source
    ordered = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [
        {
            "unit": unit,
            "rule": rule,
            "type": kind,
            "reason": reason,
            "count": len(items),
            "first": items[0].fact.location,
            "source": sources[unit, rule, kind, reason],
        }
        for (unit, rule, kind, reason), items in ordered
    ]


def _notes(audited: Sequence[AuditedOperation], units: tuple[UnitSpec, ...], chip: str) -> list[dict[str, Any]]:
    """Return the risks of every unit that some operation it runs is about."""
    found = []
    for unit in units:
        for rule in rules_for(unit.compute_unit, chip):
            about = [item for item in audited if unit.compute_unit in item.eligible and _applies(rule, item.fact)]
            if rule.effect == "risk" and about:
                found.append(
                    {
                        "unit": unit.compute_unit,
                        "rule": rule.id,
                        "text": rule.text,
                        "count": len(about),
                        "first": about[0].fact.location,
                        "source": f"{rule.source} (read {rule.date})",
                    }
                )
    return found


def _data(item: AuditedOperation, busy_ms: float) -> dict[str, Any]:
    fact = item.fact
    return {
        "index": fact.index,
        "type": fact.type,
        "name": fact.name,
        "shapes": [list(tensor.shape) for tensor in fact.outputs],
        "dtype": fact.outputs[0].dtype if fact.outputs else "",
        "eligible": list(item.eligible),
        "unit": item.unit,
        "refused": [{"unit": reason.unit, "rule": reason.rule, "reason": reason.reason} for reason in item.refused],
        "flops": fact.flops,
        "weight_bits": fact.weight_bits if fact.weight_elements else None,
        "weight_elements": fact.weight_elements,
        "layout": item.layout,
        "padding_bytes": item.padding_bytes,
        "time_ms": item.time_ms,
        "time_share_ratio": item.time_ms / busy_ms if busy_ms else 0.0,
    }
