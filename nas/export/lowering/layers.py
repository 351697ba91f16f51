"""Layers in the forms that the Neural Engine runs; every one shares the weights of the layer it was made from.

Rules: Apple's ``ml-ane-transformers`` and ``ml-stable-diffusion`` (channels on the second axis, the long axis last,
1x1 convolutions for linear layers, attention head by head in einsums, queries in pieces of 512); three-dimensional
convolutions never run there (coremltools issue 1368).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from diffusers.models.attention import FeedForward
    from diffusers.models.attention_processor import Attention

# Pieces of Apple's SPLIT_EINSUM_V2; used where the scores of one head would take more than 16 MiB in float16.
QUERY_CHUNK = 512
MAX_SCORES = 2**23


def as_convolution(layer: nn.Linear | nn.Conv2d | nn.Conv3d, rows: slice = slice(None)) -> nn.Conv2d:
    """Return the 1x1 convolution that computes a linear layer, or a convolution of one point, on the second axis.

    Args:
        layer: Its weights are viewed, not copied.
        rows: Outputs to keep.
    """
    weight = layer.weight.detach().flatten(1)[rows]
    bias = layer.bias.detach()[rows] if layer.bias is not None else None
    return convolution_of(weight[:, :, None, None], bias)


def scaled_queries(attention: Attention) -> nn.Conv2d:
    """Return the projection of queries with the attention's scale in its weights, one multiplication less.

    coremltools would fold the scale in anyway; doing so here keeps the weights of the package those of the module.
    """
    projection = as_convolution(cast("nn.Linear", attention.to_q))
    for parameter in projection.parameters():
        parameter.data = parameter.data * attention.scale  # a copy: the network keeps its own
    return projection


def convolution_of(weight: Tensor, bias: Tensor | None, *, padding: int = 0) -> nn.Conv2d:
    """Return a two-dimensional convolution around given weights (O, I, h, w), without copying them."""
    outputs, inputs, *kernel = weight.shape
    height, width = kernel
    with torch.device("meta"):
        layer = nn.Conv2d(inputs, outputs, (height, width), padding=padding, bias=bias is not None)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


class GroupNorm(nn.Module):
    """Group norm on four axes with all pixels last: an instance norm of (T, G, C/G, H*W), then scale and shift."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight = nn.Parameter(norm.weight.detach()[:, None, None], requires_grad=False)
        self.bias = nn.Parameter(norm.bias.detach()[:, None, None], requires_grad=False)

    def forward(self, video: Tensor) -> Tensor:
        """Norm frames (T, C, H, W)."""
        frames, channels, height, width = video.shape
        grouped = video.reshape(frames, self.groups, channels // self.groups, height * width)
        normed = functional.instance_norm(grouped, eps=self.eps)
        return normed.reshape(video.shape) * self.weight + self.bias


class ChannelNorm(nn.Module):
    """Layer norm over the second axis of (B, C, 1, S).

    Written out because torch's norms only the last axes; coremltools recognises these steps and makes one
    ``layer_norm`` over axis 1 of them.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        norm = cast("nn.LayerNorm", layer)  # diffusers' block may have others, ours has these
        self.eps = norm.eps
        self.weight = nn.Parameter(norm.weight.detach()[:, None, None], requires_grad=False)
        self.bias = nn.Parameter(norm.bias.detach()[:, None, None], requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Norm the channels of every token."""
        centred = tokens - tokens.mean(dim=1, keepdim=True)
        variance = (centred * centred).mean(dim=1, keepdim=True)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class SplitAttention(nn.Module):
    """Attention head by head on (B, C, 1, S): keys on the channel axis of the scores, queries on the last."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.to_q = scaled_queries(attention)
        self.to_k = as_convolution(cast("nn.Linear", attention.to_k))
        self.to_v = as_convolution(cast("nn.Linear", attention.to_v))
        self.to_out = as_convolution(cast("nn.Linear", cast("nn.ModuleList", attention.to_out)[0]))

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend ``tokens`` (B, C, 1, S) to themselves, or to one ``context`` (1, D, 1, N) shared by all rows."""
        source = tokens if context is None else context
        query = self.to_q(tokens)
        key = self.to_k(source).transpose(1, 3)  # (B, N, 1, C)
        value = self.to_v(source)
        if len(source) != len(tokens):
            key, value = (item.expand(len(tokens), -1, -1, -1) for item in (key, value))
        width = query.shape[1] // self.heads
        heads = zip(query.split(width, 1), key.split(width, 3), value.split(width, 1), strict=True)
        return cast("Tensor", self.to_out(torch.cat([_attend(*head) for head in heads], dim=1)))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One head: query (B, d, 1, S), key (B, N, 1, d), value (B, d, 1, N); returns (B, d, 1, S)."""
    scores = query.shape[0] * key.shape[1] * query.shape[3]
    pieces = query.split(QUERY_CHUNK, dim=3) if scores > MAX_SCORES else (query,)
    mixed = []
    for piece in pieces:
        weights = torch.einsum("bchq,bkhc->bkhq", piece, key).softmax(dim=1)
        mixed.append(torch.einsum("bkhq,bchk->bchq", weights, value))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=3)


class FrameAttention(nn.Module):
    """Self-attention across frames at every pixel, pixels on the last axis throughout.

    A clip has few frames and many pixels: matrix products of frames by frames would put a short axis last, which the
    Neural Engine pads to 32. So every frame of keys is multiplied with all frames of queries and summed over a head's
    channels, and the same for the values.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.to_q = scaled_queries(attention)
        self.to_k = as_convolution(cast("nn.Linear", attention.to_k))
        self.to_v = as_convolution(cast("nn.Linear", attention.to_v))
        self.to_out = as_convolution(cast("nn.Linear", cast("nn.ModuleList", attention.to_out)[0]))

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend the frames of ``tokens`` (T, C, 1, P) to each other."""
        frames, channels, _, pixels = tokens.shape
        query, key, value = (
            layer(tokens).reshape(frames, self.heads, channels // self.heads, pixels)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        scores = [(query * one).sum(dim=2, keepdim=True) for one in key.split(1)]  # (T, heads, 1, P) each
        weights = torch.cat(scores, dim=2).softmax(dim=2).split(1, dim=2)
        first, *others = zip(weights, value.split(1), strict=True)
        mixed = first[0] * first[1]
        for weight, one in others:  # added at once, or all products would be alive together
            mixed = mixed + weight * one
        return cast("Tensor", self.to_out(mixed.reshape(tokens.shape)))


class GatedFeedForward(nn.Module):
    """Diffusers' GEGLU feed-forward with value and gate as two projections: no tensor of both is ever made."""

    def __init__(self, feed_forward: FeedForward) -> None:
        super().__init__()
        projection = cast("nn.Linear", feed_forward.net[0].proj)
        half = projection.out_features // 2
        self.value = as_convolution(projection, slice(half))
        self.gate = as_convolution(projection, slice(half, None))
        self.out = as_convolution(cast("nn.Linear", feed_forward.net[2]))

    def forward(self, tokens: Tensor) -> Tensor:
        """From (B, C, 1, S) to the same shape."""
        return cast("Tensor", self.out(self.value(tokens) * functional.gelu(self.gate(tokens))))


class FrameConvolution(nn.Module):
    """A convolution over frames, height and width as one over height and width for every distance in frames.

    Frames are the batch; a frame gets the sum over its neighbours, and frames beyond the ends are left out, as zeros
    are.

    Args:
        conv: Odd kernel, zero padding that keeps the size, stride one.
        frames: Frames of the clip; distances that no two frames have are dropped.
    """

    def __init__(self, conv: nn.Conv3d, frames: int) -> None:
        super().__init__()
        weight, middle = conv.weight.detach(), conv.kernel_size[0] // 2
        self.distances = [item for item in range(-middle, middle + 1) if item and abs(item) < frames]
        padding = cast("int", conv.padding[2])
        bias = conv.bias.detach() if conv.bias is not None else None
        self.same = convolution_of(weight[:, :, middle], bias, padding=padding)
        self.others = nn.ModuleList(
            convolution_of(weight[:, :, middle + item], None, padding=padding) for item in self.distances
        )

    def forward(self, video: Tensor) -> Tensor:
        """From (T, C, H, W) to (T, O, H, W)."""
        mixed = self.same(video)
        for distance, conv in zip(self.distances, self.others, strict=True):
            if distance < 0:  # a frame sees an earlier one
                mixed = torch.cat([mixed[:-distance], mixed[-distance:] + conv(video[:distance])])
            else:
                mixed = torch.cat([mixed[:-distance] + conv(video[distance:]), mixed[-distance:]])
        return cast("Tensor", mixed)
