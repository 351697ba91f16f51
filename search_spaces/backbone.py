"""The image network that temporal layers go into, as plain data: stages, channels, kept blocks and their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from nas.core.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualBlock:
    """One ResNet block, the spatial transformer behind it, and where the weights of both come from.

    Attributes:
        in_channels: Channels that arrive from the block before.
        skip_channels: Channels of the skip tensor concatenated to them; 0 without a skip.
        skip: Name of the block whose output is the skip tensor; empty without a skip.
        out_channels: Channels that leave.
        attention: Whether a spatial transformer with text cross-attention follows.
        source: Module name in the unpruned network: ``up_blocks.1.resnets.2``.
        attention_source: The same for the transformer; empty without one.
    """

    in_channels: int
    skip_channels: int = 0
    skip: str = ""
    out_channels: int
    attention: bool = False
    source: str = ""
    attention_source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks at one resolution, then a change of resolution or none."""

    name: str
    blocks: tuple[ResidualBlock, ...]
    resample: Literal["none", "down", "up"] = "none"
    resample_source: str = ""

    @property
    def out_channels(self) -> int:
        """Channels of the last block."""
        return self.blocks[-1].out_channels


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """An image UNet in execution order: ``down0 … downN, mid, up0 … upN``; ``up0`` is the lowest resolution.

    Attributes:
        latent_channels: Channels of the latents that go in and come out.
        latent_downsampling: Pixels per latent cell, in height and in width.
        text_width: Width of one text token.
        text_tokens: Text tokens that a call gets.
        max_frames: Longest clip, in latent frames, that temporal attention has positions for.
        norm_groups: Groups of every group norm.
        attention_heads: Heads of the spatial transformers.
        time_width: Width of the time embedding.
        width_multiple: Inner widths of temporal layers are rounded to a multiple of it.
    """

    name: str
    latent_channels: int
    latent_downsampling: int
    text_width: int
    text_tokens: int
    max_frames: int
    norm_groups: int
    attention_heads: int
    time_width: int
    width_multiple: int
    stages: tuple[Stage, ...]

    @property
    def base_channels(self) -> int:
        """Channels of the first convolution."""
        return self.stages[0].blocks[0].in_channels

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the temporal slots, one behind each block: ``down0.0``."""
        return tuple(f"{stage.name}.{index}" for stage in self.stages for index in range(len(stage.blocks)))

    def slot_channels(self, slot: str) -> int:
        """Channels at a slot."""
        stage, index = slot.rsplit(".", 1)
        return next(item for item in self.stages if item.name == stage).blocks[int(index)].out_channels

    def inner_width(self, channels: int, ratio: float) -> int:
        """Inner width of a temporal layer: ``channels * ratio``, rounded to ``width_multiple`` and at least that."""
        multiple = self.width_multiple
        return max(multiple, round(channels * ratio / multiple) * multiple)

    def latent_size(self, scenario: Scenario) -> tuple[int, int]:
        """Height and width of the latents of a scenario.

        Raises:
            ConfigError: The video's size does not divide into latents at the lowest resolution, or there are more
                frames than ``max_frames``.
        """
        multiple = self.latent_downsampling * 2 ** sum(stage.resample == "down" for stage in self.stages)
        for axis in ("height", "width"):
            pixels = getattr(scenario, axis)
            if pixels % multiple:
                raise ConfigError(f"scenario.{axis}: {self.name} needs a multiple of {multiple} px, got {pixels} px")
        if scenario.frames > self.max_frames:
            raise ConfigError(
                f"scenario.frames: {self.name} takes at most {self.max_frames} latent frames, got {scenario.frames}"
            )
        return scenario.height // self.latent_downsampling, scenario.width // self.latent_downsampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What is kept of one resolution level of a UNet, by the block indices of the unpruned network."""

    channels: int
    down_blocks: tuple[int, ...] = (0,)
    down_attentions: tuple[int, ...] = ()
    up_blocks: tuple[int, ...] = (0, 2)
    up_attentions: tuple[int, ...] = ()


def pruned_unet_stages(
    levels: tuple[Level, ...],
    *,
    mid_blocks: tuple[int, ...] = (0,),
    mid_attentions: tuple[int, ...] = (),
    source_levels: int = 4,
    source_blocks: int = 2,
) -> tuple[Stage, ...]:
    """Lay out the stages of a pruned UNet so that every kept weight keeps its shape and gets its source's name.

    In the unpruned network up block ``i`` takes the output of down block ``source_blocks - 1 - i`` of its level as
    skip, and the last one takes the level's input. Where that block is pruned, what it would have got is taken: the
    last kept block before it, or the level's input. So the network computes what the unpruned one does with the
    pruned blocks left out.

    Args:
        levels: From the highest resolution to the lowest kept one; deeper levels are dropped whole.
        mid_blocks: Kept ResNet blocks of the middle.
        mid_attentions: Kept transformers of the middle, each behind the ResNet block of its index.
        source_levels: Levels of the unpruned network, 4 in SD v1.5.
        source_blocks: Down blocks per level of the unpruned network, 2 in SD v1.5; up stages have one more.

    Raises:
        ValueError: A stage keeps no block, or not block 0 where that one changes the width.
    """
    for number, level in enumerate(levels):
        before = levels[max(number - 1, 0)].channels
        after = levels[min(number + 1, len(levels) - 1)].channels
        for name, blocks, arriving in (("down", level.down_blocks, before), ("up", level.up_blocks, after)):
            if not blocks:
                raise ValueError(f"level {number} must keep a block of its {name} stage")
            if 0 not in blocks and arriving != level.channels:
                raise ValueError(
                    f"level {number} must keep block 0 of its {name} stage, which takes {arriving} channels to "
                    f"{level.channels}, got blocks {list(blocks)}"
                )
    if not mid_blocks:
        raise ValueError("the middle must keep a block")
    down = tuple(_down_stage(levels, number) for number in range(len(levels)))
    middle = Stage(
        name="mid",
        blocks=tuple(
            ResidualBlock(
                in_channels=levels[-1].channels,
                out_channels=levels[-1].channels,
                attention=index in mid_attentions,
                source=f"mid_block.resnets.{index}",
                attention_source=f"mid_block.attentions.{index}" if index in mid_attentions else "",
            )
            for index in mid_blocks
        ),
    )
    up = tuple(
        _up_stage(levels, number, source_levels=source_levels, source_blocks=source_blocks)
        for number in reversed(range(len(levels)))
    )
    return (*down, middle, *up)


def _down_stage(levels: tuple[Level, ...], number: int) -> Stage:
    level = levels[number]
    before = levels[max(number - 1, 0)].channels
    last = number == len(levels) - 1
    return Stage(
        name=f"down{number}",
        blocks=tuple(
            ResidualBlock(
                in_channels=before if position == 0 else level.channels,
                out_channels=level.channels,
                attention=index in level.down_attentions,
                source=f"down_blocks.{number}.resnets.{index}",
                attention_source=f"down_blocks.{number}.attentions.{index}" if index in level.down_attentions else "",
            )
            for position, index in enumerate(level.down_blocks)
        ),
        resample="none" if last else "down",
        resample_source="" if last else f"down_blocks.{number}.downsamplers.0",
    )


def _up_stage(levels: tuple[Level, ...], number: int, *, source_levels: int, source_blocks: int) -> Stage:
    level = levels[number]
    deeper = levels[min(number + 1, len(levels) - 1)].channels
    source = f"up_blocks.{source_levels - 1 - number}"
    blocks = []
    for position, index in enumerate(level.up_blocks):
        wanted = source_blocks - 1 - index
        earlier = [kept for kept in level.down_blocks if kept <= wanted]
        if earlier:
            skip, skip_channels = f"down{number}.{level.down_blocks.index(max(earlier))}", level.channels
        else:
            skip = f"down{number - 1}.downsample" if number else "conv_in"
            skip_channels = levels[max(number - 1, 0)].channels
        blocks.append(
            ResidualBlock(
                in_channels=deeper if position == 0 else level.channels,
                skip_channels=skip_channels,
                skip=skip,
                out_channels=level.channels,
                attention=index in level.up_attentions,
                source=f"{source}.resnets.{index}",
                attention_source=f"{source}.attentions.{index}" if index in level.up_attentions else "",
            )
        )
    return Stage(
        name=f"up{len(levels) - 1 - number}",
        blocks=tuple(blocks),
        resample="up" if number else "none",
        resample_source=f"{source}.upsamplers.0" if number else "",
    )
