"""Temporal layers: the six operators that mix frames, each an identity when fresh.

The paper (SnapGen-V) names the operators but does not publish their inside; this is our reading. "1d" works along time
at a fixed pixel, "3d" over space and time together. ``self_*`` layers see video only; ``cross_*`` layers are the same
with the transformer block's cross-attention to the text after its self-attention.

Nothing here exceeds five axes, group norms run on frames folded into the batch (four axes), and ``conv1d`` is a
two-dimensional convolution over (frames, pixels): a Conv3d never runs on Apple's Neural Engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from torch import Tensor, nn

from search_spaces.layers import ATTENTIONS, CONVOLUTIONS

if TYPE_CHECKING:
    from nas.core.workload import BlockSpec

M = TypeVar("M", bound=nn.Module)


class SharedTextProcessor(AttnProcessor2_0):
    """Cross-attention when several batch rows (frames, pixels) share one text.

    A query does not see other queries, so the rows of one clip are laid side by side as one long row of queries: equal
    to repeating the text for every row, without the copies and with one projection of keys and values per clip.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *_args: Any,
        **_kwargs: Any,
    ) -> Tensor:
        """Attend ``hidden_states`` (B*R, L, C), batch-major, to ``encoder_hidden_states`` (B, N, D).

        Raises:
            ValueError: There is a mask; its rows could not be laid side by side.
        """
        rows, length, width = hidden_states.shape
        if encoder_hidden_states is None or encoder_hidden_states.shape[0] == rows:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if attention_mask is not None:
            raise ValueError("attention masks cannot be used where rows share a text")
        side_by_side = hidden_states.reshape(encoder_hidden_states.shape[0], -1, width)
        return super().__call__(attn, side_by_side, encoder_hidden_states).reshape(rows, length, width)


def share_text(module: nn.Module) -> None:
    """Let every cross-attention of diffusers' transformer blocks inside ``module`` share text between rows."""
    for block in module.modules():
        if isinstance(block, BasicTransformerBlock) and block.attn2 is not None:
            block.attn2.set_processor(cast("Any", SharedTextProcessor()))


class TemporalConv(nn.Module):
    """Norm, SiLU, convolution over frames, SiLU, 1x1 convolution that starts at zero, residual.

    Args:
        channels: Channels of the video.
        inner: Channels between the two convolutions.
        kernel: Kernel size in frames, odd.
        groups: Groups of the norm.
        joint: Convolve frames and pixels together (``conv3d``) instead of frames only (``conv1d``).
    """

    def __init__(self, channels: int, inner: int, kernel: int, *, groups: int, joint: bool) -> None:
        super().__init__()
        self.joint = joint
        self.norm = nn.GroupNorm(groups, channels)
        if joint:
            self.conv: nn.Conv2d | nn.Conv3d = nn.Conv3d(channels, inner, (kernel, 3, 3), padding=(kernel // 2, 1, 1))
            self.proj_out: nn.Conv2d | nn.Conv3d = _zero(nn.Conv3d(inner, channels, 1))
        else:
            self.conv = nn.Conv2d(channels, inner, (kernel, 1), padding=(kernel // 2, 0))
            self.proj_out = _zero(nn.Conv2d(inner, channels, 1))

    def forward(self, video: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:  # noqa: ARG002  # one call for all layers
        """Mix frames of ``video`` (B, T, C, H, W); returns the same shape. The text is not used."""
        batch, frames, channels, height, width = video.shape
        hidden = nn.functional.silu(self.norm(video.reshape(batch * frames, channels, height, width)))
        size = (height, width) if self.joint else (height * width,)
        hidden = hidden.reshape(batch, frames, channels, *size).transpose(1, 2)  # (B, C, T, H*W) or (B, C, T, H, W)
        hidden = self.proj_out(nn.functional.silu(self.conv(hidden)))
        return video + hidden.transpose(1, 2).reshape(batch, frames, channels, height, width)


class TemporalAttention(nn.Module):
    """Norm, projection, frame position, diffusers' transformer block, projection that starts at zero, residual.

    Args:
        channels: Channels of the video.
        inner: Width of the transformer block, divisible by ``heads``.
        heads: Attention heads.
        groups: Groups of the norm.
        max_frames: Number of frame positions.
        joint: Attend over all pixels of all frames (``*_3d``) instead of over frames at each pixel (``*_1d``).
        text_width: Width of text tokens for ``cross_*`` layers; ``None`` for ``self_*``.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        *,
        heads: int,
        groups: int,
        max_frames: int,
        joint: bool,
        text_width: int | None,
    ) -> None:
        super().__init__()
        self.joint = joint
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.position = SinusoidalPositionalEmbedding(inner, max_seq_length=max_frames)
        self.block = BasicTransformerBlock(inner, heads, inner // heads, cross_attention_dim=text_width)
        self.proj_out = _zero(nn.Linear(inner, channels))
        share_text(self.block)

    def forward(self, video: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        """Mix frames of ``video`` (B, T, C, H, W), seeing ``encoder_hidden_states`` (B, N, D) in ``cross_*`` layers."""
        batch, frames, channels, height, width = video.shape
        pixels = height * width
        hidden = self.norm(video.reshape(batch * frames, channels, height, width))
        hidden = hidden.reshape(batch, frames, channels, pixels)
        position = cast("Tensor", self.position.pe)[:, :frames].to(hidden.dtype)  # (1, T, inner)
        if self.joint:
            tokens = self.proj_in(hidden.transpose(2, 3)) + position.unsqueeze(2)  # (B, T, H*W, inner)
            tokens = tokens.reshape(batch, frames * pixels, -1)
        else:
            tokens = self.proj_in(hidden.permute(0, 3, 1, 2)) + position.unsqueeze(1)  # (B, H*W, T, inner)
            tokens = tokens.reshape(batch * pixels, frames, -1)
        text = encoder_hidden_states if self.block.attn2 is not None else None
        tokens = self.proj_out(self.block(tokens, encoder_hidden_states=text))
        if self.joint:
            hidden = tokens.reshape(batch, frames, pixels, channels).transpose(2, 3)
        else:
            hidden = tokens.reshape(batch, pixels, frames, channels).permute(0, 2, 3, 1)
        return video + hidden.reshape(batch, frames, channels, height, width)


class TemporalStack(nn.ModuleList):
    """Temporal layers one after the other; called like one of them."""

    def forward(self, video: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        """Run ``video`` (B, T, C, H, W) through every layer."""
        for layer in self:
            video = layer(video, encoder_hidden_states)
        return video


def build_temporal_stack(spec: BlockSpec, depth: int) -> nn.Module:
    """Build ``depth`` equal layers in a row, the plain layer for one; see ``build_temporal_layer``."""
    if depth == 1:
        return build_temporal_layer(spec)
    return TemporalStack(build_temporal_layer(spec) for _ in range(depth))


def build_temporal_layer(spec: BlockSpec) -> nn.Module:
    """Build the layer of a temporal ``BlockSpec``; called as ``layer(video, encoder_hidden_states)``.

    ``video`` is (B, T, C, H, W), ``encoder_hidden_states`` (B, N, D), the result has the video's shape. Frames, height
    and width of the spec do not matter: the layer runs at any size up to ``max_frames``.

    Raises:
        ValueError: The spec is of no temporal kind.
    """
    joint = spec.kind.endswith("3d")
    if spec.kind in CONVOLUTIONS:
        return TemporalConv(spec["channels"], spec["inner"], spec["kernel"], groups=spec["groups"], joint=joint)
    if spec.kind in ATTENTIONS:
        return TemporalAttention(
            spec["channels"],
            spec["inner"],
            heads=spec["heads"],
            groups=spec["groups"],
            max_frames=spec["max_frames"],
            joint=joint,
            text_width=spec["text_width"] if spec.kind.startswith("cross") else None,
        )
    raise ValueError(f"{spec.kind!r} is no temporal layer; known are {', '.join((*CONVOLUTIONS, *ATTENTIONS))}")


def _zero(module: M) -> M:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
