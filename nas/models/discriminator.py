"""Discriminator of the adversarial stage: a frozen video encoder with one small trained head per encoder feature.

After SnapGen-V (METHODS 1c): the encoder half of the video network, frozen; after each of its features a head that
folds time into the batch for a 2-D ResBlock, folds space into the batch for self-attention over frames, and scores
every frame and place, conditioned on pooled text and the discriminator's own time by projection. Head widths are not
published; ours are. One-frame clips skip the temporal part (our choice, the paper does not say).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class VideoEncoder(Protocol):
    """The part of a video network that the discriminator looks through."""

    def encode(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> list[Tensor]:
        """Features (B, T, C, H, W), finest first."""
        ...


class SpatialTemporalHead(nn.Module):
    """Score map of one encoder feature.

    Shapes: B batch, T frames, C channels, H height, W width, D text width.

    Args:
        channels: C of the feature.
        width: Channels inside the head.
        text_width: D of the pooled text.
        num_heads: Attention heads over frames.
        temporal: Have the part that mixes frames; without it a clip is judged frame by frame.
    """

    def __init__(self, *, channels: int, width: int, text_width: int, num_heads: int, temporal: bool = True) -> None:
        super().__init__()
        # Inside the function: importing diffusers' blocks takes seconds that users of other models need not pay.
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps
        from diffusers.models.resnet import ResnetBlock2D

        groups = 8
        self.width = width
        self.shrink = nn.Conv2d(channels, width, 1)
        self.time_features = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(width, width)
        self.spatial = ResnetBlock2D(
            in_channels=width, out_channels=width, temb_channels=width, groups=groups, groups_out=groups
        )
        self.temporal = temporal
        if temporal:
            self.norm = nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.score = nn.Linear(width, 1)
        self.text = nn.Linear(text_width, width)
        # Weights of the projection start small, so that early scores judge the clip before its text.
        nn.init.normal_(self.text.weight, std=0.02)
        nn.init.zeros_(self.text.bias)

    def forward(self, feature: Tensor, pooled: Tensor, timestep: Tensor) -> Tensor:
        """Scores (B, T, H, W) of ``feature`` (B, T, C, H, W); ``timestep`` (B,) is the discriminator's, 0-1000."""
        batch, frames, channels, height, width = feature.shape
        moment = self.time(self.time_features(timestep).to(feature.dtype))  # (B, width)
        images = self.shrink(feature.reshape(batch * frames, channels, height, width))
        images = self.spatial(images, moment.repeat_interleave(frames, dim=0))
        tokens = images.reshape(batch, frames, self.width, height, width).permute(0, 3, 4, 1, 2)
        if self.temporal and frames > 1:
            tokens = tokens + self._across_frames(tokens)
        projection = (self.text(pooled) + moment)[:, None, None, None]
        scores = self.score(tokens).squeeze(-1) + (tokens * projection).mean(dim=-1)
        return scores.permute(0, 3, 1, 2)

    def _across_frames(self, tokens: Tensor) -> Tensor:
        """Self-attention over frames at every place of ``tokens`` (B, H, W, T, width)."""
        batch, height, width, frames, channels = tokens.shape
        positions = self.time_features(torch.arange(frames, device=tokens.device).float() * (1000.0 / frames))
        rows = self.norm(tokens.reshape(-1, frames, channels)) + positions.to(tokens.dtype)
        mixed: Tensor = self.attention(rows, rows, rows, need_weights=False)[0]
        return mixed.reshape(batch, height, width, frames, channels)


class VideoDiscriminator(nn.Module):
    """Scores noisy clips: high for real, low for generated (the project's one sign convention).

    The encoder is held outside the module tree on purpose: ``parameters()``, ``state_dict()`` and optimizers see the
    heads only, while the gradient still flows through the frozen encoder to the clip.

    Args:
        encoder: Video network whose ``encode`` is used; its weights are set to want no gradient.
        channels: Channels of each encoder feature, in order.
        text_width: Width of the pooled text.
        width: Channels inside the heads (ours).
        num_heads: Attention heads over frames (ours).
        temporal: Heads have their part over frames.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        channels: Sequence[int],
        text_width: int,
        width: int = 64,
        num_heads: int = 4,
        temporal: bool = True,
    ) -> None:
        super().__init__()
        encoder.requires_grad_(False)
        encoder.eval()
        self._hidden = (encoder,)  # a tuple, so that torch does not register it
        self.heads = nn.ModuleList(
            SpatialTemporalHead(
                channels=count, width=width, text_width=text_width, num_heads=num_heads, temporal=temporal
            )
            for count in channels
        )

    @property
    def encoder(self) -> VideoEncoder:
        """The frozen network whose ``encode`` the heads look through."""
        return cast("VideoEncoder", self._hidden[0])

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, pooled: Tensor) -> list[Tensor]:
        """Scores of every head, each (B, T, h, w).

        Args:
            sample: Noisy clips (B, T, C, H, W) at the discriminator's time.
            timestep: That time on the 0-1000 scale, (B,).
            encoder_hidden_states: Caption features for the encoder, (B, N, D).
            pooled: Pooled captions (B, D).
        """
        return self.judge(self.encoder.encode(sample, timestep, encoder_hidden_states), timestep, pooled)

    def judge(self, features: Sequence[Tensor], timestep: Tensor, pooled: Tensor) -> list[Tensor]:
        """Scores of every head for features that the encoder gave."""
        if len(features) != len(self.heads):
            raise ValueError(f"encoder gives {len(features)} features, discriminator has {len(self.heads)} heads")
        return [head(feature, pooled, timestep) for head, feature in zip(self.heads, features, strict=True)]


@torch.no_grad()
def feature_channels(encoder: VideoEncoder, *, sample: Tensor, timestep: Tensor, tokens: Tensor) -> tuple[int, ...]:
    """Channels of each encoder feature, found by one call on example inputs."""
    return tuple(feature.shape[2] for feature in encoder.encode(sample, timestep, tokens))
