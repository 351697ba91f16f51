"""A pruning plan: which blocks of an image UNet are kept, why, and what they cost; a YAML file that a space reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from nas.core.errors import InputError
from nas.core.files import canonical_json, sha256_text, write_text_atomically
from nas.core.schema import check_schema, from_data, to_data, with_schema
from search_spaces.pruning import (
    Layout,
    SourceUNet,
    backbone_of,
    full_layout,
    layout_cost,
    parameter_table,
)

if TYPE_CHECKING:
    from pathlib import Path

    from search_spaces.backbone import BackboneSpec

SCHEMA = ("pruning_plan", 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedUnit:
    """One unit of the source network and what the choice knew of it.

    Attributes:
        name: See ``search_spaces.pruning.Unit``.
        removed: Whether the plan leaves it out.
        loss_rise: Rise of the distillation loss when it alone is removed; None where it was not measured.
        standard_error: Of the rise, over held-out batches.
        latency_ms: What it takes in one call.
    """

    name: str
    removed: bool
    loss_rise: float | None = None
    standard_error: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyOrigin:
    """Where the latencies of a plan come from, for one call of the network at one size."""

    origin: str
    device: str
    predictor: str
    frames: int
    height: int
    width: int
    source_ms: float
    pruned_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """The whole plan; ``parameters`` counts the network without temporal layers."""

    name: str
    source: SourceUNet
    layout: Layout
    method: str
    parameters: int
    source_parameters: int
    scores: str = "none"
    latency: LatencyOrigin | None = None
    units: tuple[PlannedUnit, ...] = ()

    @property
    def digest(self) -> str:
        """Sixteen hex digits of what is built: equal for equal networks, whatever chose them."""
        return backbone_digest(self.backbone())

    def backbone(self) -> BackboneSpec:
        """The network."""
        return backbone_of(self.source, self.layout, name=self.name)


def make_plan(
    source: SourceUNet,
    layout: Layout,
    *,
    name: str,
    method: str,
    scores: str = "none",
    latency: LatencyOrigin | None = None,
    units: tuple[PlannedUnit, ...] = (),
) -> PruningPlan:
    """Count parameters and check that the layout can be built.

    Raises:
        ValueError: It cannot; see ``backbone_of``.
    """
    backbone_of(source, layout, name=name)
    table = parameter_table(source)
    return PruningPlan(
        name=name,
        source=source,
        layout=layout,
        method=method,
        parameters=round(layout_cost(source, layout, table)),
        source_parameters=round(layout_cost(source, full_layout(source), table)),
        scores=scores,
        latency=latency,
        units=units,
    )


def backbone_digest(backbone: BackboneSpec) -> str:
    """Sixteen hex digits of a backbone; its name does not count."""
    return sha256_text(canonical_json(to_data(replace(backbone, name=""))))[:16]


def plan_text(plan: PruningPlan) -> str:
    """The plan as YAML; ``parse_plan`` reads it."""
    body = with_schema(*SCHEMA, {**to_data(plan), "digest": plan.digest})
    head = (
        "# Blocks are named by their index in the source network. Written by `nas prune`; a space reads it:\n"
        "#   space: {name: snapgen_v, backbone: PATH}\n"
    )
    return head + yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)


def write_plan(path: Path, plan: PruningPlan) -> None:
    """Write the plan atomically."""
    write_text_atomically(path, plan_text(plan))


def read_plan(path: Path) -> PruningPlan:
    """Read and check a plan.

    Raises:
        InputError: The file is missing, is no plan, or what it states of itself does not hold.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path}: there is no such pruning plan", hint="`nas prune` writes one") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text") from error
    return parse_plan(text, where=str(path))


def parse_plan(text: str, *, where: str) -> PruningPlan:
    """Read a plan's YAML; see ``read_plan``."""
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: is not YAML: {error}") from error
    body = check_schema(data, *SCHEMA, where=where)
    digest = body.pop("digest", None)
    plan = from_data(PruningPlan, body, where=where)
    try:
        made = make_plan(plan.source, plan.layout, name=plan.name, method=plan.method)
    except (ValueError, KeyError, IndexError) as error:
        raise InputError(f"{where}: the layout cannot be built: {error}") from error
    stated = (plan.parameters, plan.source_parameters)
    if stated != (made.parameters, made.source_parameters):
        raise InputError(
            f"{where}: states {stated[0]} of {stated[1]} parameters, its layout has {made.parameters} of "
            f"{made.source_parameters}",
            hint="the file was changed by hand: correct both numbers",
        )
    if digest is not None and digest != plan.digest:
        raise InputError(
            f"{where}: digest is {digest!r}, its layout gives {plan.digest!r}",
            hint="the file was changed by hand: remove the line `digest`",
        )
    return plan


class _Dumper(yaml.SafeDumper):
    """Short lists and mappings on one line, as people write them."""


def _sequence(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=_is_flat(value))


def _mapping(dumper: yaml.SafeDumper, value: dict[str, Any]) -> yaml.Node:
    flat = len(value) <= 6 and all(not isinstance(item, (list, dict)) or _is_flat(item) for item in value.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=flat and "schema" not in value)


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value)


_Dumper.add_representer(list, _sequence)
_Dumper.add_representer(dict, _mapping)
