"""Networks that published latencies on iPhones are of, as far as their structure is published; the rest is assumed.

Every function returns the workload of one call, batch 1, half precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.workload import BlockSpec, TensorSpec, Workload
from search_spaces.operations import Tape

if TYPE_CHECKING:
    from collections.abc import Callable

# SnapGen, arXiv:2412.09619: channels and transformer depths of the thinned SDXL UNet, latents of 1024 x 1024 px.
_SNAPGEN_CHANNELS, _SNAPGEN_DEPTHS, _SNAPGEN_LATENT = (256, 512, 896), (0, 2, 4), 128
_HEAD_WIDTH = 64  # SDXL's
_TEXT = (1, 77, 2048)
_TIME_WIDTH = 1280
# EfficientFormerV2, arXiv:2212.08059's code: widths and depths of the four stages, attention blocks in each of the last
# two.
_EFFICIENTFORMERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "S0": ((32, 48, 96, 176), (2, 2, 6, 4), 2),
    "S1": ((32, 48, 120, 224), (3, 3, 9, 6), 2),
    "S2": ((32, 64, 144, 288), (4, 4, 12, 8), 4),
    "L": ((40, 80, 192, 384), (5, 5, 15, 10), 6),
}


def described(name: str, source: tuple[int, ...], write: Callable[[Tape, str], object]) -> Workload:
    """Return the workload of what ``write`` puts on a tape, as one block."""
    shapes = {"sample": source, "text": _TEXT, "time": (1, _TIME_WIDTH)}
    tape = Tape(block=name, element_bytes=2, shapes=dict(shapes))
    write(tape, "sample")
    given = tuple(TensorSpec(name=key, shape=shape, element_bytes=2) for key, shape in shapes.items())
    return Workload(
        operations=tuple(tape.operations),
        tensors=(*given, *tape.tensors),
        blocks=((name, BlockSpec.of(name)),),
        repeats=(("denoiser", 1),),
    )


def depthwise(tape: Tape, label: str, source: str, *, kernel: int = 3, stride: int = 1) -> str:
    """Depth-wise convolution with bias."""
    batch, channels, *size = tape.shapes[source]
    shape = (batch, channels, *(-(-length // stride) for length in size))
    outputs = channels * shape[2] * shape[3] * batch
    options = {"in_channels": channels, "out_channels": channels, "stride": stride, "groups": channels}
    options |= {"kernel_0": kernel, "kernel_1": kernel}
    parameters = channels * (kernel**2 + 1)
    return tape.add(
        label, "conv2d", (source,), shape, flops=2 * outputs * kernel**2, parameters=parameters, options=options
    )


def attention(
    tape: Tape,
    label: str,
    tokens: str,
    context: str,
    *,
    heads: int,
    kv_heads: int | None = None,
    keys: int | None = None,
) -> str:
    """Attention with output projection; ``kv_heads`` of keys and values, ``keys`` of them after compression."""
    batch, _, width = tape.shapes[tokens]
    kv_width = width * (kv_heads or heads) // heads
    query = tape.linear(f"{label}.q", tokens, width, bias=False)
    pair = [tape.linear(f"{label}.{name}", context, kv_width, bias=False) for name in "kv"]
    if keys is not None:
        pair = [tape.add(f"{name}.pooled", "pool", (name,), (batch, keys, kv_width)) for name in pair]
    mixed = tape.attention(label, query, pair[0], pair[1], heads=heads)
    return tape.linear(f"{label}.out", mixed, width)


def snapgen_unet(*, high_attention: bool, separable: bool, multi_query: bool) -> Workload:
    """The UNet of SnapGen's ablation: self-attention above the lowest level, plain or separable convolutions, MQA.

    Assumed: one transformer behind each ResNet block, text of SDXL's width, separable convolutions as 1x1 to twice the
    channels, depth-wise 3x3, 1x1 back, feed-forward of 4 (3 comes later in the ablation than what is compared).
    """

    def convolve(tape: Tape, label: str, source: str, out: int) -> str:
        if not separable:
            return tape.conv(label, source, out)
        wide = tape.conv(f"{label}.expand", source, 2 * tape.shapes[source][1], kernel=(1, 1))
        return tape.conv(f"{label}.project", depthwise(tape, f"{label}.depth", wide), out, kernel=(1, 1))

    def resnet(tape: Tape, label: str, source: str, out: int) -> str:
        channels = tape.shapes[source][1]
        hidden = tape.activation(f"{label}.silu1", tape.norm(f"{label}.norm1", source, channels))
        hidden = convolve(tape, f"{label}.conv1", hidden, out)
        hidden = tape.sum_of(f"{label}.time", hidden, tape.linear(f"{label}.time_proj", "time", out))
        hidden = tape.activation(f"{label}.silu2", tape.norm(f"{label}.norm2", hidden, out))
        hidden = convolve(tape, f"{label}.conv2", hidden, out)
        short = source if channels == out else tape.conv(f"{label}.short", source, out, kernel=(1, 1))
        return tape.sum_of(f"{label}.sum", hidden, short)

    def transformer(tape: Tape, label: str, video: str, *, depth: int, own: bool) -> str:
        batch, channels, height, width = tape.shapes[video]
        heads = channels // _HEAD_WIDTH
        kv_heads = 1 if multi_query else heads
        hidden = tape.conv(f"{label}.in", tape.norm(f"{label}.norm", video, channels), channels, kernel=(1, 1))
        tokens = tape.layout(f"{label}.tokens", hidden, (batch, height * width, channels))
        for layer in range(depth):
            name = f"{label}.{layer}"
            if own:
                normed = tape.norm(f"{name}.norm1", tokens, channels, kind="layer_norm")
                mixed = attention(tape, f"{name}.self", normed, normed, heads=heads, kv_heads=kv_heads)
                tokens = tape.sum_of(f"{name}.add1", mixed, tokens)
            normed = tape.norm(f"{name}.norm2", tokens, channels, kind="layer_norm")
            mixed = attention(tape, f"{name}.cross", normed, "text", heads=heads, kv_heads=kv_heads)
            tokens = tape.sum_of(f"{name}.add2", mixed, tokens)
            wide = tape.linear(
                f"{name}.ff1", tape.norm(f"{name}.norm3", tokens, channels, kind="layer_norm"), 8 * channels
            )
            gated = tape.add(f"{name}.geglu", "geglu", (wide,), (batch, height * width, 4 * channels))
            tokens = tape.sum_of(f"{name}.add3", tape.linear(f"{name}.ff2", gated, channels), tokens)
        hidden = tape.layout(f"{label}.video", tokens, (batch, channels, height, width))
        return tape.sum_of(f"{label}.sum", tape.conv(f"{label}.out", hidden, channels, kernel=(1, 1)), video)

    def stage(tape: Tape, label: str, video: str, level: int, skips: list[str] | None, count: int) -> str:
        lowest = level == len(_SNAPGEN_CHANNELS) - 1
        for index in range(count):
            if skips is not None:
                skip = skips.pop()
                channels = tape.shapes[video][1] + tape.shapes[skip][1]
                shape = (1, channels, *tape.shapes[video][2:])
                video = tape.add(f"{label}.{index}.concat", "concat", (video, skip), shape)
            video = resnet(tape, f"{label}.{index}", video, _SNAPGEN_CHANNELS[level])
            if _SNAPGEN_DEPTHS[level]:
                name, depth = f"{label}.{index}.attention", _SNAPGEN_DEPTHS[level]
                video = transformer(tape, name, video, depth=depth, own=lowest or high_attention)
        return video

    def write(tape: Tape, source: str) -> str:
        video = tape.conv("conv_in", source, _SNAPGEN_CHANNELS[0])
        skips = [video]
        for level in range(3):
            for index in range(2):
                video = stage(tape, f"down{level}.{index}", video, level, None, 1)
                skips.append(video)
            if level < 2:
                video = tape.conv(f"down{level}.sample", video, _SNAPGEN_CHANNELS[level], stride=2)
                skips.append(video)
        video = stage(tape, "mid", video, 2, None, 1)
        for level in (2, 1, 0):
            video = stage(tape, f"up{level}", video, level, skips, 3)
            if level:
                batch, channels, height, width = tape.shapes[video]
                shape = (batch, channels, 2 * height, 2 * width)
                video = tape.conv(
                    f"up{level}.sample", tape.add(f"up{level}.nearest", "upsample", (video,), shape), channels
                )
        return tape.conv("conv_out", tape.norm("norm_out", video, _SNAPGEN_CHANNELS[0]), 4)

    return described("snapgen", (1, 4, _SNAPGEN_LATENT, _SNAPGEN_LATENT), write)


def snapgen_pp_dit(*, stages: bool, sparse: bool) -> Workload:
    """SnapGen++'s ablation: a DiT on 64 x 64 tokens with MQA and feed-forward of 3; half of its layers on 32 x 32.

    Published are the parameters (424 M and 406 M) and the token counts. Assumed: width 1152 as PixArt, layers to match
    the parameters (31), a quarter of them down and a quarter up when there are stages. Sparse attention compresses
    keys to a quarter and adds a neighbourhood of 9 blocks of 256 tokens.
    """
    width, layers, heads = 1152, 31, 16

    def layer(tape: Tape, name: str, tokens: str) -> str:
        length = tape.shapes[tokens][1]
        normed = tape.norm(f"{name}.norm1", tokens, width, kind="layer_norm")
        keys = length // 4 + 9 * 256 if sparse and length == 4096 else None
        tokens = tape.sum_of(
            f"{name}.add1", attention(tape, f"{name}.self", normed, normed, heads=heads, kv_heads=1, keys=keys), tokens
        )
        cross = attention(tape, f"{name}.cross", tokens, "text", heads=heads, kv_heads=1)
        tokens = tape.sum_of(f"{name}.add2", cross, tokens)
        hidden = tape.linear(f"{name}.ff1", tape.norm(f"{name}.norm2", tokens, width, kind="layer_norm"), 3 * width)
        return tape.sum_of(
            f"{name}.add3", tape.linear(f"{name}.ff2", tape.activation(f"{name}.gelu", hidden), width), tokens
        )

    def write(tape: Tape, source: str) -> str:
        tokens = tape.linear("embed", source, width)
        for index in range(layers):
            middle = stages and layers // 4 <= index < layers - layers // 4
            if middle and tape.shapes[tokens][1] == 4096:
                tokens = tape.layout(f"{index}.down", tokens, (1, 1024, width))
            if not middle and tape.shapes[tokens][1] == 1024:
                tokens = tape.add(f"{index}.up", "upsample", (tokens,), (1, 4096, width))
            tokens = layer(tape, f"layer{index}", tokens)
        return tape.linear("out", tokens, 16)

    return described("snapgen_pp", (1, 4096, 16), write)


def efficientformer_v2(attending: str, size: str = "S2") -> Workload:
    """EfficientFormerV2 at 224 x 224 px with attention at 1/16: ``full``, ``pooled`` keys or ``stride``.

    Widths, depths: arXiv:2212.08059's code. The ablation's size is not in our sources; S2 (1.6 ms) is nearest to its
    1.5 ms. Feed-forward of 4 throughout is assumed.
    """
    widths, depths, last = _EFFICIENTFORMERS[size]
    attentions = (0, 0, last, last)

    def attend(tape: Tape, name: str, video: str, level: int) -> str:
        batch, channels, height, width = tape.shapes[video]
        stride = 2 if level == 2 and attending == "stride" else 1
        pooled = depthwise(tape, f"{name}.pool", video, stride=2) if stride == 2 else video
        length = tape.shapes[pooled][2] * tape.shapes[pooled][3]
        tokens = tape.layout(f"{name}.tokens", pooled, (batch, length, channels))
        keys = length // 4 if level == 2 and attending == "pooled" else None
        mixed = attention(tape, f"{name}.attention", tokens, tokens, heads=8, keys=keys)
        shape = (batch, channels, height // stride, width // stride)
        hidden = tape.layout(f"{name}.video", mixed, shape)
        if stride == 2:
            hidden = tape.add(f"{name}.up", "upsample", (hidden,), (batch, channels, height, width))
        return tape.sum_of(f"{name}.sum", hidden, video)

    def feed(tape: Tape, name: str, video: str) -> str:
        channels = tape.shapes[video][1]
        hidden = tape.activation(f"{name}.act1", tape.conv(f"{name}.in", video, 4 * channels, kernel=(1, 1)))
        hidden = tape.activation(f"{name}.act2", depthwise(tape, f"{name}.depth", hidden))
        return tape.sum_of(f"{name}.sum", tape.conv(f"{name}.out", hidden, channels, kernel=(1, 1)), video)

    def write(tape: Tape, source: str) -> str:
        video = tape.conv("stem1", source, widths[0] // 2, stride=2)
        video = tape.conv("stem2", tape.activation("stem_act", video), widths[0], stride=2)
        for level, (channels, depth) in enumerate(zip(widths, depths, strict=True)):
            if level:
                video = tape.conv(f"down{level}", video, channels, stride=2)
            for index in range(depth):
                if index >= depth - attentions[level]:
                    video = attend(tape, f"stage{level}.{index}.mix", video, level)
                video = feed(tape, f"stage{level}.{index}", video)
        return tape.linear("head", tape.add("pool", "pool", (video,), (1, widths[-1])), 1000)

    return described("efficientformer_v2", (1, 3, 224, 224), write)
