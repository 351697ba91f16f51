"""Latent clips with their captions' word ids, made once and kept in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.training.clips import CLIP_FRAMES, CLIP_SIZE, Attributes, Split, make_clips

if TYPE_CHECKING:
    from nas.models.caption import CaptionEncoder
    from nas.training.codec import PatchCodec


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentClips:
    """N clips as the denoiser sees them.

    ``latents`` is (N, T, C, H, W) float32 on the CPU, ``token_ids`` (N, L) int64.
    """

    latents: Tensor
    token_ids: Tensor
    attributes: Attributes
    description: str

    def __len__(self) -> int:
        return len(self.latents)


def make_latent_clips(
    count: int,
    *,
    codec: PatchCodec,
    captions: CaptionEncoder,
    seed: int,
    split: Split = "train",
    frames: int = CLIP_FRAMES,
    size: int = CLIP_SIZE,
) -> LatentClips:
    """Make ``count`` clips of a split and encode them; equal arguments give equal data. ``size`` is in pixels."""
    clips = make_clips(count, seed=seed, split=split, frames=frames, size=size)
    own = "" if (frames, size) == (CLIP_FRAMES, CLIP_SIZE) else f" of {frames} frames of {size} x {size} px"
    return LatentClips(
        latents=codec.encode_clips(clips.video),
        token_ids=captions.tokenize(clips.captions),
        attributes=clips.attributes,
        description=f"{count} {split} clips{own}, seed {seed}",
    )


def drop_captions(token_ids: Tensor, *, ratio: float, generator: torch.Generator) -> Tensor:
    """Replace a share of the captions by the empty one, for classifier-free guidance (Ho & Salimans 2022)."""
    dropped = torch.rand(len(token_ids), generator=generator) < ratio
    return torch.where(dropped[:, None], torch.zeros_like(token_ids), token_ids)


def as_images(latents: Tensor, *, generator: torch.Generator) -> Tensor:
    """One random frame of every clip as a one-frame clip: (B, T, C, H, W) to (B, 1, C, H, W)."""
    frame = torch.randint(latents.shape[1], (len(latents),), generator=generator)
    return latents[torch.arange(len(latents)), frame].unsqueeze(1)
