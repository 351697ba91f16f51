"""Architecture and scenario → ``Workload``: the blocks of the whole denoiser, wired through named tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from nas.core.workload import BlockSpec, Operation, TensorSpec, Workload
from search_spaces.layers import block_inputs, temporal_depth, temporal_spec, write_block

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.core.architecture import Architecture, ChoiceValue
    from nas.core.scenario import Scenario
    from search_spaces.backbone import BackboneSpec, ResidualBlock


def slot_setting(architecture: Mapping[str, ChoiceValue], slot: str) -> dict[str, ChoiceValue]:
    """Values of one slot by short name: ``{"kind": "conv1d", "width_ratio": 0.5, "kernel": 3}``."""
    prefix = f"{slot}."
    return {name[len(prefix) :]: value for name, value in architecture.items() if name.startswith(prefix)}


def build_workload(backbone: BackboneSpec, architecture: Architecture, scenario: Scenario) -> Workload:
    """Blocks, operations and tensors of one denoiser call for one clip.

    Tensors ``sample``, ``timestep`` and ``text`` come from outside; the last operation's output is the answer. A skip
    tensor is an input of the block that takes it, so it is alive until then.

    Raises:
        ConfigError: The scenario's size or frames do not fit the backbone.
    """
    blocks = _wire(backbone, architecture, scenario)
    size = backbone.latent_size(scenario)
    element_bytes = scenario.element_bytes
    tensors = [
        TensorSpec(
            name="sample", shape=(scenario.frames, backbone.latent_channels, *size), element_bytes=element_bytes
        ),
        TensorSpec(name="timestep", shape=(1,), element_bytes=4),
        TensorSpec(name="text", shape=(1, backbone.text_tokens, backbone.text_width), element_bytes=element_bytes),
    ]
    operations: list[Operation] = []
    for name, spec, ports in blocks:
        written, made = _written(name, spec, ports, element_bytes)
        operations += written
        tensors += made
    return Workload(
        operations=tuple(operations),
        tensors=tuple(tensors),
        blocks=tuple((name, spec) for name, spec, _ in blocks),
        repeats=(("denoiser", scenario.denoiser_calls),),
    )


@lru_cache(maxsize=8192)
def _written(
    name: str, spec: BlockSpec, ports: tuple[tuple[str, str], ...], element_bytes: int
) -> tuple[tuple[Operation, ...], tuple[TensorSpec, ...]]:
    return write_block(name, spec, dict(ports), element_bytes)


Wired = tuple[str, BlockSpec, tuple[tuple[str, str], ...]]


class _Wiring:
    """The tensor that flows on, its size, and what blocks left behind for skips."""

    def __init__(self, backbone: BackboneSpec, scenario: Scenario) -> None:
        self.backbone = backbone
        self.frames = scenario.frames
        self.height, self.width = backbone.latent_size(scenario)
        self.video = "sample"
        self.kept: dict[str, str] = {}
        self.blocks: list[Wired] = []

    def place(self, name: str, kind: str, skip: str = "", **options: int) -> None:
        """Append a block at the present size; its output flows on."""
        self.add(
            name,
            BlockSpec.of(kind, frames=self.frames, height=self.height, width=self.width, **options),
            skip,
        )

    def add(self, name: str, spec: BlockSpec, skip: str = "") -> None:
        """Append a block of a given spec; its output flows on."""
        sources = {"video": self.video, "skip": skip, "time": "time_embedding.output", "text": "text"}
        self.blocks.append((name, spec, tuple((port, sources[port]) for port in block_inputs(spec))))
        self.video = f"{name}.output"


def _wire(backbone: BackboneSpec, architecture: Architecture, scenario: Scenario) -> list[Wired]:
    wiring = _Wiring(backbone, scenario)
    base, groups, time_width = backbone.base_channels, backbone.norm_groups, backbone.time_width
    embedding = BlockSpec.of("time_embedding", channels=base, time_width=time_width)
    wiring.blocks.append(("time_embedding", embedding, (("timestep", "timestep"),)))
    wiring.place("conv_in", "conv_in", in_channels=backbone.latent_channels, out_channels=base)
    wiring.kept["conv_in"] = wiring.video
    for stage in backbone.stages:
        for index, block in enumerate(stage.blocks):
            _wire_block(wiring, f"{stage.name}.{index}", block, architecture)
        if stage.resample != "none":
            kind = f"{stage.resample}sample"
            wiring.place(f"{stage.name}.{kind}", kind, channels=stage.out_channels)
            down = stage.resample == "down"
            wiring.height = wiring.height // 2 if down else wiring.height * 2
            wiring.width = wiring.width // 2 if down else wiring.width * 2
            wiring.kept[f"{stage.name}.{kind}"] = wiring.video
    out = backbone.stages[-1].out_channels
    wiring.place("conv_out", "conv_out", in_channels=out, out_channels=backbone.latent_channels, groups=groups)
    return wiring.blocks


def _wire_block(wiring: _Wiring, name: str, block: ResidualBlock, architecture: Architecture) -> None:
    backbone = wiring.backbone
    wiring.place(
        name,
        "resnet",
        wiring.kept[block.skip] if block.skip else "",
        in_channels=block.in_channels,
        skip_channels=block.skip_channels,
        out_channels=block.out_channels,
        time_width=backbone.time_width,
        groups=backbone.norm_groups,
    )
    if block.attention:
        wiring.place(
            f"{name}.attention",
            "spatial_attention",
            channels=block.out_channels,
            heads=backbone.attention_heads,
            groups=backbone.norm_groups,
            text_tokens=backbone.text_tokens,
            text_width=backbone.text_width,
        )
    setting = slot_setting(architecture, name)
    spec = temporal_spec(
        backbone,
        setting,
        channels=block.out_channels,
        frames=wiring.frames,
        height=wiring.height,
        width=wiring.width,
    )
    if spec is not None:
        depth = temporal_depth(setting)
        for index in range(depth):
            wiring.add(f"{name}.temporal.{index}" if depth > 1 else f"{name}.temporal", spec)
    wiring.kept[name] = wiring.video
