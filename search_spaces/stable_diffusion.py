"""Workloads of the networks around and before ours: Stable Diffusion UNets, VAE decoders and CLIP text encoders.

They price the other phases of a generation and hold published latencies against predictions. Parameter counts
are those of the published checkpoints and of diffusers' modules (tests/models/test_stable_diffusion.py). A batch counts
as frames do elsewhere: it is folded into the batch of every operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.workload import BlockSpec, Operation, TensorSpec, Workload
from search_spaces.layers import attend, block_inputs, transformer, write_block
from search_spaces.operations import Tape

if TYPE_CHECKING:
    from collections.abc import Mapping

Writer = Callable[[Tape, BlockSpec, "Mapping[str, str]"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetLevel:
    """One resolution of a UNet.

    Attributes:
        channels: Width of the level.
        down_blocks: ResNet blocks on the way down.
        up_blocks: ResNet blocks on the way up; a skip goes to each, so there is one more than on the way down.
        down_attentions: Spatial transformers on the way down, behind the ResNet blocks in turn, the rest at the end.
        up_attentions: The same on the way up.
        depth: Transformer layers in each spatial transformer.
        heads: Attention heads.
    """

    channels: int
    down_blocks: int = 2
    up_blocks: int = 3
    down_attentions: int = 0
    up_attentions: int = 0
    depth: int = 1
    heads: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetShape:
    """A diffusers ``UNet2DConditionModel``: levels from the highest resolution down, and the middle.

    ``added_width`` is the width of SDXL's pooled text and size embedding; 0 without one.
    """

    name: str
    levels: tuple[UNetLevel, ...]
    text_width: int
    text_tokens: int = 77
    mid_blocks: int = 2
    mid_attentions: int = 1
    latent_channels: int = 4
    added_width: int = 0
    groups: int = 32


def _attending(channels: int, heads: int, depth: int = 1) -> UNetLevel:
    return UNetLevel(channels=channels, down_attentions=2, up_attentions=3, heads=heads, depth=depth)


# Configurations of the published checkpoints' unet/config.json (runwayml/stable-diffusion-v1-5,
# stabilityai/stable-diffusion-2-1-base, stabilityai/stable-diffusion-xl-base-1.0).
SD15_UNET = UNetShape(
    name="sd15_unet",
    levels=(_attending(320, 8), _attending(640, 8), _attending(1280, 8), UNetLevel(channels=1280)),
    text_width=768,
)
SD21_UNET = UNetShape(
    name="sd21_unet",
    levels=(_attending(320, 5), _attending(640, 10), _attending(1280, 20), UNetLevel(channels=1280, heads=20)),
    text_width=1024,
)
SDXL_UNET = UNetShape(
    name="sdxl_unet",
    levels=(UNetLevel(channels=320, heads=5), _attending(640, 10, 2), _attending(1280, 20, 10)),
    text_width=2048,
    added_width=2816,
)
# Counts by stage: SnapFusion, arXiv:2306.00980. It counts all blocks at 1/64 as one stage, 4 ResNet blocks; that they
# are one down, one in the middle and two up is ours, the only split that leaves every skip its block. These counts
# give 759 M parameters where the paper says 848 M, so something of the deep stages is not in the published table.
SNAPFUSION_UNET = UNetShape(
    name="snapfusion_unet",
    levels=(
        UNetLevel(channels=320),
        _attending(640, 8),
        UNetLevel(channels=1280, down_blocks=1, up_blocks=2, down_attentions=2, up_attentions=6),
        UNetLevel(channels=1280, down_blocks=1, up_blocks=2),
    ),
    text_width=768,
    mid_blocks=1,
)


def unet_workload(shape: UNetShape, *, batch: int, height: int, width: int, element_bytes: int = 2) -> Workload:
    """One call of an image UNet.

    Text is one set of keys for the whole batch, where guidance has two; their projections are under 1 % of the call.

    Args:
        shape: The network.
        batch: Latents in one call, 2 for a guided step.
        height: Rows of the latents.
        width: Columns of the latents.
        element_bytes: Bytes of one weight or activation element.
    """
    text = (1, shape.text_tokens, shape.text_width)
    writer = _Writer(element_bytes, {"sample": (batch, shape.latent_channels, height, width), "text": text})
    writer.source("timestep", (1,))
    base = shape.levels[0].channels
    time_width = 4 * base
    writer.place("time_embedding", BlockSpec.of("time_embedding", channels=base, time_width=time_width), "timestep")
    if shape.added_width:
        writer.source("added", (1, shape.added_width))
        spec = BlockSpec.of("added_embedding", in_width=shape.added_width, time_width=time_width)
        writer.place("added_embedding", spec, "added", _added_embedding)
    wiring = _UNetWiring(shape, writer, batch=batch, height=height, width=width, time_width=time_width)
    wiring.write()
    return writer.workload("denoiser")


class _UNetWiring:
    """Places the blocks of a UNet and hands skips across."""

    def __init__(
        self, shape: UNetShape, writer: _Writer, *, batch: int, height: int, width: int, time_width: int
    ) -> None:
        self.shape, self.writer = shape, writer
        self.size = {"frames": batch, "height": height, "width": width}
        self.time_width = time_width
        self.channels = shape.levels[0].channels
        self.video = "sample"
        self.skips: list[tuple[str, int]] = []

    def write(self) -> None:
        shape = self.shape
        spec = BlockSpec.of("conv_in", in_channels=shape.latent_channels, out_channels=self.channels, **self.size)
        self.video = self.writer.place("conv_in", spec, "sample")
        self.skips.append((self.video, self.channels))
        last = len(shape.levels) - 1
        for number, level in enumerate(shape.levels):
            self._stage(f"down{number}", level, level.down_blocks, level.down_attentions)
            if number < last:
                self._resample(f"down{number}.downsample", "downsample")
                self.skips.append((self.video, self.channels))
        deepest = shape.levels[-1]
        self._stage("mid", deepest, shape.mid_blocks, shape.mid_attentions, keep=False)
        for number in reversed(range(len(shape.levels))):
            level = shape.levels[number]
            self._stage(f"up{last - number}", level, level.up_blocks, level.up_attentions, keep=False, take=True)
            if number:
                self._resample(f"up{last - number}.upsample", "upsample")
        spec = BlockSpec.of(
            "conv_out",
            in_channels=self.channels,
            out_channels=shape.latent_channels,
            groups=shape.groups,
            **self.size,
        )
        self.writer.place("conv_out", spec, self.video)

    def _stage(
        self, name: str, level: UNetLevel, blocks: int, attentions: int, *, keep: bool = True, take: bool = False
    ) -> None:
        # Every block but the last has at most one transformer behind it; the last has all that are left.
        for index in range(blocks):
            self._resnet(f"{name}.{index}", level.channels, take=take)
            here = 1 if index < attentions else 0
            if index == blocks - 1:
                here = max(0, attentions - index)
            for number in range(here):
                self._attention(f"{name}.{index}.attention{number or ''}", level)
            if keep:
                self.skips.append((self.video, self.channels))

    def _resnet(self, name: str, out_channels: int, *, take: bool) -> None:
        skip, skip_channels = self.skips.pop() if take else ("", 0)
        spec = BlockSpec.of(
            "resnet",
            in_channels=self.channels,
            skip_channels=skip_channels,
            out_channels=out_channels,
            time_width=self.time_width,
            groups=self.shape.groups,
            **self.size,
        )
        self.video = self.writer.place(name, spec, self.video, skip=skip)
        self.channels = out_channels

    def _attention(self, name: str, level: UNetLevel) -> None:
        spec = BlockSpec.of(
            "spatial_transformer",
            channels=self.channels,
            depth=level.depth,
            heads=level.heads,
            groups=self.shape.groups,
            text_tokens=self.shape.text_tokens,
            text_width=self.shape.text_width,
            **self.size,
        )
        self.video = self.writer.place(name, spec, self.video, _spatial_transformer)

    def _resample(self, name: str, kind: str) -> None:
        self.video = self.writer.place(name, BlockSpec.of(kind, channels=self.channels, **self.size), self.video)
        for axis in ("height", "width"):
            self.size[axis] = 2 * self.size[axis] if kind == "upsample" else -(-self.size[axis] // 2)


def vae_decoder_workload(
    frames: int,
    height: int,
    width: int,
    *,
    channels: tuple[int, ...] = (128, 256, 512, 512),
    latent_channels: int = 4,
    groups: int = 32,
    attention: bool = True,
    element_bytes: int = 2,
) -> Workload:
    """Stable Diffusion's image decoder, frame by frame as a batch: latents to ``frames`` pictures.

    Args:
        frames: Pictures decoded in one call.
        height: Rows of the pictures, in pixels.
        width: Columns of the pictures, in pixels.
        channels: From the highest resolution to the lowest; SnapFusion's compressed decoder has half of each.
        latent_channels: Channels of the latents.
        groups: Groups of the norms.
        attention: Whether the middle has its one-headed self-attention.
        element_bytes: Bytes of one weight or activation element.

    Raises:
        ValueError: The size does not divide into latents.
    """
    scale = 2 ** (len(channels) - 1)
    if height % scale or width % scale:
        raise ValueError(f"pictures of {height} x {width} px do not divide into latents by {scale}")
    size = {"frames": frames, "height": height // scale, "width": width // scale}
    writer = _Writer(element_bytes, {"sample": (frames, latent_channels, size["height"], size["width"])})
    deepest = channels[-1]
    spec = BlockSpec.of("conv_in", in_channels=latent_channels, out_channels=deepest, **size)
    video, present = writer.place("conv_in", spec, "sample"), deepest
    video = writer.place("mid.0", _vae_resnet_spec(present, deepest, groups, size), video, _vae_resnet)
    if attention:
        spec = BlockSpec.of("vae_attention", channels=deepest, groups=groups, **size)
        video = writer.place("mid.attention", spec, video, _vae_attention)
    video = writer.place("mid.1", _vae_resnet_spec(present, deepest, groups, size), video, _vae_resnet)
    for stage, out in enumerate(reversed(channels)):
        for index in range(3):
            spec = _vae_resnet_spec(present, out, groups, size)
            video, present = writer.place(f"up{stage}.{index}", spec, video, _vae_resnet), out
        if stage < len(channels) - 1:
            video = writer.place(f"up{stage}.upsample", BlockSpec.of("upsample", channels=present, **size), video)
            size |= {"height": 2 * size["height"], "width": 2 * size["width"]}
    spec = BlockSpec.of("conv_out", in_channels=present, out_channels=3, groups=groups, **size)
    writer.place("conv_out", spec, video)
    return writer.workload("decoder")


def text_encoder_workload(
    *,
    tokens: int = 77,
    width: int = 768,
    layers: int = 12,
    heads: int = 12,
    vocabulary: int = 49408,
    batch: int = 1,
    element_bytes: int = 2,
) -> Workload:
    """A CLIP text encoder; the defaults are ViT-L/14's, 123.1 M parameters, which SD v1.5 and SnapFusion use."""
    writer = _Writer(element_bytes, {})
    writer.source("sample", (batch, tokens))
    spec = BlockSpec.of("text_embedding", batch=batch, tokens=tokens, width=width, vocabulary=vocabulary)
    flow = writer.place("embedding", spec, "sample", _text_embedding)
    for index in range(layers):
        spec = BlockSpec.of("text_layer", batch=batch, tokens=tokens, width=width, heads=heads)
        flow = writer.place(f"layer{index}", spec, flow, _text_layer)
    spec = BlockSpec.of("text_norm", batch=batch, tokens=tokens, width=width)
    writer.place("norm", spec, flow, _final_norm)
    return writer.workload("text_encoder")


class _Writer:
    """Collects blocks with their operations and tensors."""

    def __init__(self, element_bytes: int, sources: dict[str, tuple[int, ...]]) -> None:
        self.element_bytes = element_bytes
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.tensors: list[TensorSpec] = []
        self.operations: list[Operation] = []
        self.blocks: list[tuple[str, BlockSpec]] = []
        for name, shape in sources.items():
            self.source(name, shape, element_bytes)

    def source(self, name: str, shape: tuple[int, ...], element_bytes: int = 4) -> None:
        """Add a tensor that comes from outside."""
        self.shapes[name] = shape
        self.tensors.append(TensorSpec(name=name, shape=shape, element_bytes=element_bytes))

    def place(self, name: str, spec: BlockSpec, video: str, write: Writer | None = None, *, skip: str = "") -> str:
        """Append a block that reads ``video``, by the catalogue without ``write``; returns its output tensor."""
        ports = {"video": video, "timestep": video, "skip": skip, "time": "time_embedding.output", "text": "text"}
        if write is None:
            wanted = {port: ports[port] for port in block_inputs(spec)}
            operations, tensors = write_block(name, spec, wanted, self.element_bytes)
        else:
            tape = Tape(block=name, element_bytes=self.element_bytes, shapes=dict(self.shapes))
            write(tape, spec, ports)
            operations, tensors = tuple(tape.operations), tuple(tape.tensors)
        self.blocks.append((name, spec))
        self.operations += operations
        self.tensors += tensors
        self.shapes |= {tensor.name: tensor.shape for tensor in tensors}
        return tensors[-1].name

    def workload(self, phase: str) -> Workload:
        """Return everything as one workload of ``phase``, called once."""
        return Workload(
            operations=tuple(self.operations),
            tensors=tuple(self.tensors),
            blocks=tuple(self.blocks),
            repeats=((phase, 1),),
        )


def _spatial_transformer(tape: Tape, spec: BlockSpec, ports: Mapping[str, str]) -> None:
    video = ports["video"]
    frames, channels, height, width = tape.shapes[video]
    hidden = tape.conv("proj_in", tape.norm("norm", video, channels), channels, kernel=(1, 1))
    tokens = tape.layout("to_tokens", hidden, (frames, height * width, channels))
    for layer in range(spec["depth"]):
        tokens = transformer(tape, tokens, heads=spec["heads"], text=ports["text"], prefix=f"layer{layer}_")
    hidden = tape.layout("to_video", tokens, (frames, channels, height, width))
    tape.sum_of("output", tape.conv("proj_out", hidden, channels, kernel=(1, 1)), video)


def _added_embedding(tape: Tape, spec: BlockSpec, ports: Mapping[str, str]) -> None:
    hidden = tape.activation("silu", tape.linear("linear_1", ports["video"], spec["time_width"]))
    added = tape.linear("linear_2", hidden, spec["time_width"])
    tape.sum_of("output", added, ports["time"])


def _vae_resnet_spec(in_channels: int, out_channels: int, groups: int, size: dict[str, int]) -> BlockSpec:
    return BlockSpec.of("vae_resnet", in_channels=in_channels, out_channels=out_channels, groups=groups, **size)


def _vae_resnet(tape: Tape, spec: BlockSpec, ports: Mapping[str, str]) -> None:
    source = ports["video"]
    hidden = tape.activation("silu1", tape.norm("norm1", source, spec["in_channels"]))
    hidden = tape.conv("conv1", hidden, spec["out_channels"])
    hidden = tape.activation("silu2", tape.norm("norm2", hidden, spec["out_channels"]))
    hidden = tape.conv("conv2", hidden, spec["out_channels"])
    if spec["in_channels"] != spec["out_channels"]:
        source = tape.conv("conv_shortcut", source, spec["out_channels"], kernel=(1, 1))
    tape.sum_of("output", hidden, source)


def _vae_attention(tape: Tape, _: BlockSpec, ports: Mapping[str, str]) -> None:
    video = ports["video"]
    frames, channels, height, width = tape.shapes[video]
    normed = tape.norm("norm", video, channels)
    tokens = tape.layout("to_tokens", normed, (frames, height * width, channels))
    mixed = attend(tape, "attn", tokens, tokens, heads=1, bias=True)
    hidden = tape.layout("to_video", mixed, (frames, channels, height, width))
    tape.sum_of("output", hidden, video)


def _text_embedding(tape: Tape, spec: BlockSpec, ports: Mapping[str, str]) -> None:
    shape = (spec["batch"], spec["tokens"], spec["width"])
    rows = tape.add("tokens", "embedding", (ports["video"],), shape, parameters=spec["vocabulary"] * spec["width"])
    tape.add("output", "add", (rows,), shape, parameters=spec["tokens"] * spec["width"])


def _text_layer(tape: Tape, spec: BlockSpec, ports: Mapping[str, str]) -> None:
    tokens, width = ports["video"], spec["width"]
    normed = tape.norm("norm1", tokens, width, kind="layer_norm")
    tokens = tape.sum_of("add1", attend(tape, "attn", normed, normed, heads=spec["heads"], bias=True), tokens)
    normed = tape.norm("norm2", tokens, width, kind="layer_norm")
    hidden = tape.activation("gelu", tape.linear("fc1", normed, 4 * width))
    tape.sum_of("output", tape.linear("fc2", hidden, width), tokens)


def _final_norm(tape: Tape, spec: BlockSpec, ports: Mapping[str, str]) -> None:
    tape.norm("output", ports["video"], spec["width"], kind="layer_norm")
