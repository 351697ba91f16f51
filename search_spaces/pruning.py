"""What can be pruned of an image UNet of SD v1.5's layout, and what is left: units, layouts, their cost by block.

A *unit* is what pruning removes at once: a spatial transformer; a ResNet block with the transformer behind it; or the
deepest level whole, with its change of resolution. All of them have a residual path or sit on one, so that every other
weight keeps its shape. Not removable: a block that changes the width (its shortcut is a convolution), the last block
of a stage, ``conv_in``, ``conv_out`` and the time embedding. A transformer cannot outlive its ResNet block here, which
SnapFusion's could (its Down-3 keeps 1 ResNet and 2 attention blocks).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from nas.core.architecture import Architecture
from nas.core.scenario import Scenario
from search_spaces.backbone import BackboneSpec, Level, pruned_unet_stages
from search_spaces.workload import build_workload

if TYPE_CHECKING:
    from nas.core.workload import Workload

REST = "rest"  # what no block accounts for: first and last convolution, time embedding, changes of resolution
# Number of kept levels → block by its name in the source network, or ``REST`` → cost.
CostTable = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceUNet:
    """An image UNet before pruning, in diffusers' layout: equal blocks at every level, transformers at some levels.

    Attributes:
        channels: Width of every level, from the highest resolution down.
        attention_levels: Levels with a transformer behind each ResNet block; the middle always has one.
        blocks: ResNet blocks of a down stage; an up stage has one more, the middle two.
    """

    name: str
    channels: tuple[int, ...]
    attention_levels: tuple[int, ...]
    latent_channels: int
    latent_downsampling: int
    text_width: int
    text_tokens: int
    norm_groups: int
    attention_heads: int
    time_width: int
    width_multiple: int
    max_frames: int = 64
    blocks: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is kept, by the indices of the source network; levels below the last one are dropped whole."""

    levels: tuple[Level, ...]
    mid_blocks: tuple[int, ...]
    mid_attentions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What pruning removes at once.

    Attributes:
        name: Module name in the source network (``down_blocks.0.attentions.1``), or ``level.3``.
        kind: ``block`` is a ResNet block with its transformer.
        stage: Stage of the source network's ``VideoUNet``: ``down0``; empty for a level.
        index: Index in the stage; the level's number for a level.
    """

    name: str
    kind: Literal["attention", "block", "level"]
    stage: str
    index: int


@lru_cache(maxsize=64)
def full_layout(source: SourceUNet, *, depth: int | None = None) -> Layout:
    """Everything, or everything of the first ``depth`` levels."""
    every = tuple(range(source.blocks + 1))
    levels = tuple(
        Level(
            channels=channels,
            down_blocks=every[:-1],
            down_attentions=every[:-1] if number in source.attention_levels else (),
            up_blocks=every,
            up_attentions=every if number in source.attention_levels else (),
        )
        for number, channels in enumerate(source.channels[:depth])
    )
    return Layout(levels=levels, mid_blocks=(0, 1), mid_attentions=(0,))


def backbone_of(source: SourceUNet, layout: Layout, *, name: str) -> BackboneSpec:
    """The pruned network.

    Raises:
        ValueError: The layout leaves a stage empty, or removes a block that changes the width.
    """
    return BackboneSpec(
        name=name,
        latent_channels=source.latent_channels,
        latent_downsampling=source.latent_downsampling,
        text_width=source.text_width,
        text_tokens=source.text_tokens,
        max_frames=source.max_frames,
        norm_groups=source.norm_groups,
        attention_heads=source.attention_heads,
        time_width=source.time_width,
        width_multiple=source.width_multiple,
        stages=pruned_unet_stages(
            layout.levels,
            mid_blocks=layout.mid_blocks,
            mid_attentions=layout.mid_attentions,
            source_levels=len(source.channels),
            source_blocks=source.blocks,
        ),
    )


@lru_cache(maxsize=64)
def removable_units(source: SourceUNet) -> tuple[Unit, ...]:
    """Every unit on its own, in the order of execution; levels last, the deepest first."""
    spec = backbone_of(source, full_layout(source), name=source.name)
    found = []
    for stage in spec.stages:
        for index, block in enumerate(stage.blocks):
            if block.attention:
                found.append(Unit(name=block.attention_source, kind="attention", stage=stage.name, index=index))
            if block.in_channels == block.out_channels:
                found.append(Unit(name=block.source, kind="block", stage=stage.name, index=index))
    for number in reversed(range(1, len(source.channels))):
        if source.channels[number] != source.channels[number - 1]:
            break
        found.append(Unit(name=f"level.{number}", kind="level", stage="", index=number))
    return tuple(found)


def kept_depth(source: SourceUNet, removed: Collection[str]) -> int:
    """Number of levels that are left."""
    return len(source.channels) - sum(name.startswith("level.") for name in removed)


def may_remove(source: SourceUNet, removed: Collection[str]) -> tuple[Unit, ...]:
    """Units that can go next when ``removed`` are gone; every one of them leaves a network."""
    layout = layout_without(source, removed)
    depth = len(layout.levels)
    free = []
    for unit in removable_units(source):
        if unit.name in removed:
            continue
        if unit.kind == "level":
            if unit.index == depth - 1:
                free.append(unit)
            continue
        blocks, attentions = _kept(source, layout, unit.stage)
        if unit.index in (attentions if unit.kind == "attention" else blocks) and (
            unit.kind == "attention" or len(blocks) > 1
        ):
            free.append(unit)
    return tuple(free)


def layout_without(source: SourceUNet, removed: Collection[str]) -> Layout:
    """The layout when units are gone; a ResNet block takes its transformer with it, a level all its blocks.

    Raises:
        ValueError: A name is no unit of this network, levels are not the deepest ones, or a stage would be empty.
    """
    known = {unit.name: unit for unit in removable_units(source)}
    unknown = sorted(set(removed) - set(known))
    if unknown:
        raise ValueError(f"no units of {source.name} that can be removed: {', '.join(unknown)}")
    depth = kept_depth(source, removed)
    gone = {number for number in range(len(source.channels)) if f"level.{number}" in removed}
    if gone != set(range(depth, len(source.channels))):
        raise ValueError(f"levels go from the deepest upwards, got {sorted(gone)} of {len(source.channels)}")
    full = full_layout(source, depth=depth)

    def kept(stage: str, blocks: tuple[int, ...], attentions: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        left = tuple(index for index in blocks if f"{stage}.resnets.{index}" not in removed)
        if not left:
            raise ValueError(f"{stage} would keep no block")
        return left, tuple(i for i in attentions if i in left and f"{stage}.attentions.{i}" not in removed)

    levels = []
    for number, level in enumerate(full.levels):
        down = kept(f"down_blocks.{number}", level.down_blocks, level.down_attentions)
        up = kept(f"up_blocks.{len(source.channels) - 1 - number}", level.up_blocks, level.up_attentions)
        levels.append(
            Level(
                channels=level.channels,
                down_blocks=down[0],
                down_attentions=down[1],
                up_blocks=up[0],
                up_attentions=up[1],
            )
        )
    mid = kept("mid_block", full.mid_blocks, full.mid_attentions)
    return Layout(levels=tuple(levels), mid_blocks=mid[0], mid_attentions=mid[1])


def skipped_parts(source: SourceUNet, removed: Collection[str]) -> frozenset[str]:
    """Parts of the source network's ``VideoUNet`` to leave out, so that it computes what the pruned network does."""
    parts = set()
    deepest = len(source.channels) - 1
    for unit in removable_units(source):
        if unit.name not in removed:
            continue
        if unit.kind == "level":
            number = unit.index
            parts |= {f"down{number}", f"up{deepest - number}", f"down{number - 1}.downsample"}
        else:
            parts.add(f"{unit.stage}.{unit.index}" + (".attention" if unit.kind == "attention" else ""))
    return frozenset(parts)


def cost_by_block(spec: BackboneSpec, costs: Mapping[str, float]) -> dict[str, float]:
    """Costs by block of a workload (``down0.1.attention``), by names of the source network and ``REST``."""
    left = dict(costs)
    named = {}
    for stage in spec.stages:
        for index, block in enumerate(stage.blocks):
            named[block.source] = left.pop(f"{stage.name}.{index}")
            if block.attention:
                named[block.attention_source] = left.pop(f"{stage.name}.{index}.attention")
    return {**named, REST: sum(left.values())}


def layout_cost(source: SourceUNet, layout: Layout, table: CostTable) -> float:
    """Sum of a table over what a layout keeps."""
    costs = table[len(layout.levels)]
    return costs[REST] + sum(costs[name] for name in _sources(source, layout))


def possible_depths(source: SourceUNet) -> tuple[int, ...]:
    """Numbers of levels that pruning can leave, the full one first."""
    droppable = sum(unit.kind == "level" for unit in removable_units(source))
    return tuple(len(source.channels) - count for count in range(droppable + 1))


def image_workload(backbone: BackboneSpec, scenario: Scenario) -> Workload:
    """What a backbone without temporal layers computes in one call."""
    return build_workload(backbone, no_temporal_layers(backbone), scenario)


def no_temporal_layers(backbone: BackboneSpec, space: str = "image/1") -> Architecture:
    """The architecture of a backbone alone."""
    return Architecture(space, {f"{slot}.kind": "none" for slot in backbone.slots})


def parameter_table(source: SourceUNet) -> CostTable:
    """Parameters of every block, by the number of levels kept; analytic, no network is built."""
    side = source.latent_downsampling * 2 ** (len(source.channels) - 1)
    scenario = Scenario(frames=1, height=side, width=side, denoising_steps=1)
    table = {}
    for depth in possible_depths(source):
        spec = backbone_of(source, full_layout(source, depth=depth), name=source.name)
        counts: dict[str, float] = {}
        for operation in image_workload(spec, scenario).operations:
            counts[operation.block] = counts.get(operation.block, 0) + operation.parameters
        table[depth] = cost_by_block(spec, counts)
    return table


def _sources(source: SourceUNet, layout: Layout) -> Iterator[str]:
    """Names of the kept blocks and transformers in the source network."""
    parts = [("mid_block", layout.mid_blocks, layout.mid_attentions)]
    for number, level in enumerate(layout.levels):
        parts.append((f"down_blocks.{number}", level.down_blocks, level.down_attentions))
        parts.append((f"up_blocks.{len(source.channels) - 1 - number}", level.up_blocks, level.up_attentions))
    for stage, blocks, attentions in parts:
        yield from (f"{stage}.resnets.{index}" for index in blocks)
        yield from (f"{stage}.attentions.{index}" for index in attentions)


def _kept(source: SourceUNet, layout: Layout, stage: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kept blocks and transformers of a stage of the source's ``VideoUNet``; nothing of a dropped level."""
    if stage == "mid":
        return layout.mid_blocks, layout.mid_attentions
    number = int(stage.removeprefix("down").removeprefix("up"))
    level = number if stage.startswith("down") else len(source.channels) - 1 - number
    if level >= len(layout.levels):
        return (), ()
    kept = layout.levels[level]
    if stage.startswith("down"):
        return kept.down_blocks, kept.down_attentions
    return kept.up_blocks, kept.up_attentions
