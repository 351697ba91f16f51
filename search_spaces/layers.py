"""Catalogue of blocks: what each kind of ``BlockSpec`` computes, as operations, FLOPs, parameters and tensors.

Batch size is 1 throughout: a phone makes one clip at a time. Frames are folded into the batch of spatial operations.
Every count is held against the torch module that ``nas.models.build.build_block`` makes of the same spec
(tests/models/test_analytic.py); the formulas themselves are in ``search_spaces.operations``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nas.core.workload import BlockSpec, Operation, TensorSpec
from search_spaces.operations import Tape

if TYPE_CHECKING:
    from search_spaces.backbone import BackboneSpec

CONVOLUTIONS = ("conv1d", "conv3d")
ATTENTIONS = ("self_attention_1d", "self_attention_3d", "cross_attention_1d", "cross_attention_3d")
TEMPORAL_KINDS = ("none", *CONVOLUTIONS, *ATTENTIONS)

CONV3D_KERNEL = 3  # frames; wider ones are left to conv1d, because 5 x 3 x 3 weighs as much as two layers

Ports = Mapping[str, str]


def temporal_spec(
    backbone: BackboneSpec,
    setting: Mapping[str, str | int | float],
    *,
    channels: int,
    frames: int,
    height: int,
    width: int,
) -> BlockSpec | None:
    """Spec of the temporal layer that one slot's setting stands for, or ``None`` for kind ``none``.

    Args:
        backbone: Gives text width, norm groups, rounding of widths and the number of frame positions.
        setting: Values by short name: ``kind``, ``width_ratio``, ``kernel`` or ``heads``.
        channels: Channels at the slot.
        frames: Latent frames.
        height: Rows of the feature map at the slot.
        width: Columns of the feature map at the slot.

    Raises:
        ValueError: The kind is unknown.
    """
    kind = str(setting["kind"])
    if kind not in TEMPORAL_KINDS:
        raise ValueError(f"unknown temporal kind {kind!r}; known are {', '.join(TEMPORAL_KINDS)}")
    if kind == "none":
        return None
    options = {
        "channels": channels,
        "inner": backbone.inner_width(channels, float(setting["width_ratio"])),
        "groups": backbone.norm_groups,
        "frames": frames,
        "height": height,
        "width": width,
    }
    if kind in CONVOLUTIONS:
        options["kernel"] = int(setting["kernel"]) if kind == "conv1d" else CONV3D_KERNEL
    else:
        options |= {"heads": int(setting["heads"]), "max_frames": backbone.max_frames}
    if kind.startswith("cross"):
        options |= {"text_tokens": backbone.text_tokens, "text_width": backbone.text_width}
    return BlockSpec.of(kind, **options)


def temporal_depth(setting: Mapping[str, str | int | float]) -> int:
    """Number of equal layers in a row that one slot's setting stands for; 0 for kind ``none``."""
    return 0 if setting["kind"] == "none" else int(setting.get("depth", 1))


def block_inputs(spec: BlockSpec) -> dict[str, tuple[int, ...]]:
    """Shapes of a block's inputs by port: ``video``, and where used ``skip``, ``time``, ``text`` and ``timestep``."""
    if spec.kind == "time_embedding":
        return {"timestep": (1,)}
    frames, size = spec["frames"], (spec["height"], spec["width"])
    options = dict(spec.options)
    ports: dict[str, tuple[int, ...]] = {
        "video": (frames, options.get("in_channels", options.get("channels", 0)), *size),
    }
    if options.get("skip_channels"):
        ports["skip"] = (frames, options["skip_channels"], *size)
    if spec.kind == "resnet":
        ports["time"] = (1, options["time_width"])
    if "text_width" in options:
        ports["text"] = (1, options["text_tokens"], options["text_width"])
    return ports


def write_block(
    name: str, spec: BlockSpec, ports: Ports, element_bytes: int
) -> tuple[tuple[Operation, ...], tuple[TensorSpec, ...]]:
    """Operations and output tensors of one block; the last operation makes the block's output.

    Args:
        name: Name of the block, prefix of all names inside.
        spec: Kind and shapes.
        ports: Name of the tensor at each input port (see ``block_inputs``).
        element_bytes: Bytes of one weight or activation element.

    Raises:
        ValueError: The kind is unknown.
    """
    if spec.kind not in _WRITERS:
        raise ValueError(f"unknown block kind {spec.kind!r}; known are {', '.join(BLOCK_KINDS)}")
    shapes = {ports[port]: shape for port, shape in block_inputs(spec).items()}
    tape = Tape(block=name, element_bytes=element_bytes, shapes=shapes)
    _WRITERS[spec.kind](tape, spec, ports)
    return tuple(tape.operations), tuple(tape.tensors)


def _conv_in(tape: Tape, spec: BlockSpec, ports: Ports) -> None:
    tape.conv("output", ports["video"], spec["out_channels"])


def _conv_out(tape: Tape, spec: BlockSpec, ports: Ports) -> None:
    normed = tape.norm("norm", ports["video"], spec["in_channels"])
    tape.conv("output", tape.activation("silu", normed), spec["out_channels"])


def _time_embedding(tape: Tape, spec: BlockSpec, ports: Ports) -> None:
    waves = tape.add("sinusoid", "sinusoid", (ports["timestep"],), (1, spec["channels"]))
    hidden = tape.activation("silu", tape.linear("linear_1", waves, spec["time_width"]))
    tape.linear("output", hidden, spec["time_width"])


def _resnet(tape: Tape, spec: BlockSpec, ports: Ports) -> None:
    source, channels = ports["video"], spec["in_channels"]
    frames, _, height, width = tape.shapes[source]
    if "skip" in ports:
        channels += spec["skip_channels"]
        source = tape.add("concat", "concat", (source, ports["skip"]), (frames, channels, height, width))
    hidden = tape.activation("silu1", tape.norm("norm1", source, channels))
    hidden = tape.conv("conv1", hidden, spec["out_channels"])
    time = tape.linear("time_emb_proj", tape.activation("time_silu", ports["time"]), spec["out_channels"])
    hidden = tape.sum_of("time_add", hidden, time)
    hidden = tape.activation("silu2", tape.norm("norm2", hidden, spec["out_channels"]))
    hidden = tape.conv("conv2", hidden, spec["out_channels"])
    if channels != spec["out_channels"]:
        source = tape.conv("conv_shortcut", source, spec["out_channels"], kernel=(1, 1))
    tape.sum_of("output", hidden, source)


def _downsample(tape: Tape, spec: BlockSpec, ports: Ports) -> None:
    tape.conv("output", ports["video"], spec["channels"], stride=2)


def _upsample(tape: Tape, spec: BlockSpec, ports: Ports) -> None:
    frames, channels, height, width = spec["frames"], spec["channels"], spec["height"], spec["width"]
    larger = tape.add("nearest", "upsample", (ports["video"],), (frames, channels, 2 * height, 2 * width))
    tape.conv("output", larger, channels)


def _spatial_attention(tape: Tape, spec: BlockSpec, ports: Ports) -> None:
    video = ports["video"]
    frames, channels, height, width = tape.shapes[video]
    hidden = tape.conv("proj_in", tape.norm("norm", video, channels), channels, kernel=(1, 1))
    tokens = tape.layout("to_tokens", hidden, (frames, height * width, channels))
    tokens = transformer(tape, tokens, heads=spec["heads"], text=ports["text"])
    hidden = tape.layout("to_video", tokens, (frames, channels, height, width))
    tape.sum_of("output", tape.conv("proj_out", hidden, channels, kernel=(1, 1)), video)


def _temporal_conv(tape: Tape, spec: BlockSpec, ports: Ports) -> None:
    video = ports["video"]
    frames, channels, height, width = tape.shapes[video]
    flat = spec.kind == "conv1d"
    size = (height * width,) if flat else (height, width)
    hidden = tape.activation("silu1", tape.norm("norm", video, channels))
    hidden = tape.layout("to_channels_first", hidden, (1, channels, frames, *size))
    hidden = tape.conv("conv", hidden, spec["inner"], kernel=(spec["kernel"], 1) if flat else (spec["kernel"], 3, 3))
    hidden = tape.activation("silu2", hidden)
    hidden = tape.conv("proj_out", hidden, channels, kernel=(1,) * (1 + len(size)))
    hidden = tape.layout("to_frames_first", hidden, (frames, channels, height, width))
    tape.sum_of("output", hidden, video)


def _temporal_attention(tape: Tape, spec: BlockSpec, ports: Ports) -> None:
    video = ports["video"]
    frames, channels, height, width = tape.shapes[video]
    pixels = height * width
    shape = (pixels, frames, channels) if spec.kind.endswith("1d") else (1, frames * pixels, channels)
    tokens = tape.layout("to_tokens", tape.norm("norm", video, channels), shape)
    tokens = tape.add("position", "add", (inner := tape.linear("proj_in", tokens, spec["inner"]),), tape.shapes[inner])
    tokens = transformer(tape, tokens, heads=spec["heads"], text=ports.get("text"))
    hidden = tape.linear("proj_out", tokens, channels)
    tape.sum_of("output", tape.layout("to_video", hidden, (frames, channels, height, width)), video)


def transformer(tape: Tape, tokens: str, *, heads: int, text: str | None, prefix: str = "") -> str:
    """Diffusers' ``BasicTransformerBlock``: self-attention, text cross-attention if ``text``, GEGLU feed-forward."""
    batch, length, width = tape.shapes[tokens]
    normed = tape.norm(f"{prefix}norm1", tokens, width, kind="layer_norm")
    tokens = tape.sum_of(f"{prefix}add1", attend(tape, f"{prefix}attn1", normed, normed, heads=heads), tokens)
    if text is not None:
        normed = tape.norm(f"{prefix}norm2", tokens, width, kind="layer_norm")
        # Text is the same for every batch row: all rows' queries attend to one set of keys (nas.models.temporal).
        tokens = tape.sum_of(f"{prefix}add2", attend(tape, f"{prefix}attn2", normed, text, heads=heads), tokens)
    normed = tape.norm(f"{prefix}norm3", tokens, width, kind="layer_norm")
    gated = tape.linear(f"{prefix}ff_in", normed, 8 * width)
    hidden = tape.add(f"{prefix}geglu", "geglu", (gated,), (batch, length, 4 * width))
    return tape.sum_of(f"{prefix}add3", tape.linear(f"{prefix}ff_out", hidden, width), tokens)


def attend(tape: Tape, label: str, tokens: str, context: str, *, heads: int, bias: bool = False) -> str:
    """Multi-head attention of ``tokens`` over ``context``; ``bias`` is that of query, key and value."""
    batch, length, width = tape.shapes[tokens]
    query = tape.linear(f"{label}_q", tokens, width, bias=bias)
    key = tape.linear(f"{label}_k", context, width, bias=bias)
    value = tape.linear(f"{label}_v", context, width, bias=bias)
    if context != tokens:
        tape.shapes[query] = (1, batch * length, width)  # a view: queries of all rows side by side
    mixed = tape.attention(label, query, key, value, heads=heads)
    out = tape.linear(f"{label}_out", mixed, width)
    tape.shapes[out] = (batch, length, width)
    return out


_WRITERS: dict[str, Callable[[Tape, BlockSpec, Ports], None]] = {
    "conv_in": _conv_in,
    "time_embedding": _time_embedding,
    "resnet": _resnet,
    "spatial_attention": _spatial_attention,
    "downsample": _downsample,
    "upsample": _upsample,
    "conv_out": _conv_out,
    **dict.fromkeys(CONVOLUTIONS, _temporal_conv),
    **dict.fromkeys(ATTENTIONS, _temporal_attention),
}
BLOCK_KINDS = tuple(_WRITERS)
