"""The Neural Engine's form of every block: four axes, pixels last, nothing but operations that run there.

Tokens are (B, C, 1, S) with the long axis last. Rules and their sources are in ``layers``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.nn.functional import silu

from nas.export.lowering.layers import (
    ChannelNorm,
    FrameAttention,
    FrameConvolution,
    GatedFeedForward,
    GroupNorm,
    SplitAttention,
    as_convolution,
)
from nas.export.lowering.network import sharing_copy
from nas.models.temporal import TemporalAttention, TemporalConv, TemporalStack

if TYPE_CHECKING:
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.attention_processor import Attention
    from diffusers.models.embeddings import TimestepEmbedding
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    from nas.export.lowering.network import Rewriting


class NeuralEngineRewriting:
    """Builds the blocks below from the network's; see ``Rewriting``."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.fused: dict[str, type[nn.Module]] = {"layer_norm": ChannelNorm}

    def text(self, tokens: Tensor) -> Tensor:
        """Text (1, N, D) as (1, D, 1, N)."""
        return tokens.transpose(1, 2).unsqueeze(2)

    def time(self, embedding: nn.Module) -> nn.Module:
        """``Time``."""
        return Time(cast("TimestepEmbedding", embedding))

    def norm(self, norm: nn.GroupNorm) -> nn.Module:
        """``GroupNorm``."""
        return GroupNorm(norm)

    def resnet(self, block: nn.Module) -> nn.Module:
        """``Resnet``."""
        return Resnet(cast("ResnetBlock2D", block))

    def transformer(self, transformer: nn.Module) -> nn.Module:
        """``SpatialTransformer``."""
        return SpatialTransformer(cast("Transformer2DModel", transformer))

    def temporal(self, layer: nn.Module) -> nn.Module:
        """The temporal block of the layer's kind.

        Raises:
            TypeError: The layer is of no known kind.
        """
        match layer:
            case TemporalStack():
                return Stack(self.temporal(part) for part in layer)
            case TemporalConv(joint=True):
                return JointConvolution(layer, self.frames)
            case TemporalConv():
                return PixelConvolution(layer)
            case TemporalAttention(joint=True):
                return JointAttention(layer, self.frames)
            case TemporalAttention():
                return PixelAttention(layer, self.frames)
        raise TypeError(f"no form of {type(layer).__name__} for the Neural Engine")


class Time(nn.Module):
    """The two layers behind the sinusoid, and the SiLU that every ResNet block begins with, once for all."""

    def __init__(self, embedding: TimestepEmbedding) -> None:
        super().__init__()
        self.linear_1 = as_convolution(embedding.linear_1)
        self.linear_2 = as_convolution(embedding.linear_2)

    def forward(self, sinusoid: Tensor) -> Tensor:
        """From (1, C) to (1, width, 1, 1)."""
        return silu(self.linear_2(silu(self.linear_1(sinusoid.reshape(*sinusoid.shape, 1, 1)))))


class Resnet(nn.Module):
    """Diffusers' ResNet block with SD v1.5's settings; the time arrives behind its SiLU."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(block.norm1), GroupNorm(block.norm2)
        self.conv1, self.conv2 = sharing_copy(block.conv1), sharing_copy(block.conv2)
        self.time_emb_proj = as_convolution(cast("nn.Linear", block.time_emb_proj))
        self.conv_shortcut = sharing_copy(block.conv_shortcut) if block.conv_shortcut is not None else nn.Identity()

    def forward(self, video: Tensor, time: Tensor) -> Tensor:
        """From frames (T, C, H, W) and the time (1, width, 1, 1) to frames."""
        hidden = self.conv1(silu(self.norm1(video))) + self.time_emb_proj(time)
        return cast("Tensor", self.conv_shortcut(video) + self.conv2(silu(self.norm2(hidden))))


class TransformerBlock(nn.Module):
    """Diffusers' transformer block on tokens (B, C, 1, S).

    Args:
        block: The network's.
        between_frames: Whether the batch is the frames of a clip and self-attention goes across them.
    """

    def __init__(self, block: BasicTransformerBlock, *, between_frames: bool = False) -> None:
        super().__init__()
        attention = FrameAttention if between_frames else SplitAttention
        self.norm1, self.attn1 = ChannelNorm(block.norm1), attention(cast("Attention", block.attn1))
        self.attn2 = None
        if block.attn2 is not None:
            self.norm2, self.attn2 = ChannelNorm(block.norm2), SplitAttention(block.attn2)
        self.norm3, self.ff = ChannelNorm(block.norm3), GatedFeedForward(block.ff)

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Mix tokens (B, C, 1, S), seeing text (1, D, 1, N)."""
        tokens = tokens + self.attn1(self.norm1(tokens))
        if self.attn2 is not None:
            tokens = tokens + self.attn2(self.norm2(tokens), text)
        return cast("Tensor", tokens + self.ff(self.norm3(tokens)))


class SpatialTransformer(nn.Module):
    """Every frame's pixels attend to each other and to the text."""

    def __init__(self, transformer: Transformer2DModel) -> None:
        super().__init__()
        self.norm = GroupNorm(transformer.norm)
        self.proj_in = sharing_copy(transformer.proj_in)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(block) for block in transformer.transformer_blocks)
        self.proj_out = sharing_copy(transformer.proj_out)

    def forward(self, video: Tensor, text: Tensor) -> Tensor:
        """Mix the pixels of frames (T, C, H, W)."""
        tokens = self.proj_in(_pixels_last(self.norm(video)))  # (T, C, 1, H*W)
        for block in self.transformer_blocks:
            tokens = block(tokens, text)
        return cast("Tensor", self.proj_out(tokens).reshape(video.shape) + video)


class PixelConvolution(nn.Module):
    """``conv1d``: a convolution over (frames, 1) of (1, C, T, H*W)."""

    def __init__(self, layer: TemporalConv) -> None:
        super().__init__()
        self.norm = GroupNorm(layer.norm)
        self.conv, self.proj_out = sharing_copy(layer.conv), sharing_copy(layer.proj_out)

    def forward(self, video: Tensor, text: Tensor) -> Tensor:  # noqa: ARG002  # one call for all layers
        """Mix frames (T, C, H, W)."""
        hidden = _channels_first(silu(self.norm(video)))
        hidden = self.proj_out(silu(self.conv(hidden)))
        return video + _frames_first(hidden, video)


class JointConvolution(nn.Module):
    """``conv3d``: one convolution over height and width for every distance in frames, added up."""

    def __init__(self, layer: TemporalConv, frames: int) -> None:
        super().__init__()
        self.norm = GroupNorm(layer.norm)
        self.conv = FrameConvolution(cast("nn.Conv3d", layer.conv), frames)
        self.proj_out = as_convolution(layer.proj_out)

    def forward(self, video: Tensor, text: Tensor) -> Tensor:  # noqa: ARG002  # one call for all layers
        """Mix frames (T, C, H, W)."""
        return cast("Tensor", video + self.proj_out(silu(self.conv(silu(self.norm(video))))))


class PixelAttention(nn.Module):
    """``*_attention_1d``: frames attend to each other at every pixel; frames are the batch, pixels the last axis."""

    position: Tensor

    def __init__(self, layer: TemporalAttention, frames: int) -> None:
        super().__init__()
        self.norm = GroupNorm(layer.norm)
        self.proj_in, self.proj_out = as_convolution(layer.proj_in), as_convolution(layer.proj_out)
        self.register_buffer("position", _positions(layer, frames)[:, :, None, None])  # (T, inner, 1, 1)
        self.block = TransformerBlock(layer.block, between_frames=True)

    def forward(self, video: Tensor, text: Tensor) -> Tensor:
        """Mix frames (T, C, H, W)."""
        tokens = self.proj_in(_pixels_last(self.norm(video))) + self.position  # (T, inner, 1, H*W)
        return cast("Tensor", video + self.proj_out(self.block(tokens, text)).reshape(video.shape))


class JointAttention(nn.Module):
    """``*_attention_3d``: all pixels of all frames attend to each other, in one row of tokens."""

    position: Tensor

    def __init__(self, layer: TemporalAttention, frames: int) -> None:
        super().__init__()
        self.norm = GroupNorm(layer.norm)
        self.proj_in, self.proj_out = as_convolution(layer.proj_in), as_convolution(layer.proj_out)
        self.register_buffer("position", _positions(layer, frames).t()[None, :, :, None])  # (1, inner, T, 1)
        self.block = TransformerBlock(layer.block)

    def forward(self, video: Tensor, text: Tensor) -> Tensor:
        """Mix frames (T, C, H, W)."""
        hidden = self.proj_in(_channels_first(self.norm(video))) + self.position  # (1, inner, T, H*W)
        tokens = self.block(_pixels_last(hidden), text)  # (1, inner, 1, T*H*W)
        hidden = self.proj_out(tokens.reshape(hidden.shape))
        return video + _frames_first(hidden, video)


class Stack(nn.ModuleList):
    """Temporal layers one after the other; called like one of them."""

    def forward(self, video: Tensor, text: Tensor) -> Tensor:
        """Run frames (T, C, H, W) through every layer."""
        for layer in self:
            video = layer(video, text)
        return video


def _positions(layer: TemporalAttention, frames: int) -> Tensor:
    return cast("Tensor", layer.position.pe)[0, :frames].detach()  # (T, inner)


def _pixels_last(video: Tensor) -> Tensor:
    """From (B, C, H, W) to (B, C, 1, H*W)."""
    return video.reshape(*video.shape[:2], 1, -1)


def _channels_first(video: Tensor) -> Tensor:
    """From frames (T, C, H, W) to (1, C, T, H*W)."""
    return video.reshape(1, *video.shape[:2], -1).transpose(1, 2)


def _frames_first(hidden: Tensor, video: Tensor) -> Tensor:
    """From (1, C, T, H*W) to the shape of ``video`` (T, C, H, W)."""
    return hidden.transpose(1, 2).reshape(video.shape)


if TYPE_CHECKING:
    _meets: type[Rewriting] = NeuralEngineRewriting
