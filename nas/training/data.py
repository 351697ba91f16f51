"""What every stage learns from: clips as latents with their text, by index.

``TrainingClips`` is the protocol; ``LatentClips`` holds procedural clips in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from nas.training.clips import CLIP_FRAMES, CLIP_SIZE, Attributes, Split, make_clips

if TYPE_CHECKING:
    from nas.models.caption import TextEncoder
    from nas.training.codec import PatchCodec


class ClipBatch(NamedTuple):
    """Some clips: ``latents`` (B, T, C, H, W) float32, and ``text`` as the kit's ``TextEncoder`` takes it.

    Text rows are word ids (B, L) of the learned caption encoder, or stored embeddings (B, N + 1, D).
    """

    latents: Tensor
    text: Tensor


class TrainingClips(Protocol):
    """Clips to learn from, on the CPU."""

    @property
    def description(self) -> str:
        """What they are; part of a stage's fingerprint, so other data must have another description."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Tensor) -> ClipBatch:
        """The clips at ``indices`` (B,), in that order."""

    def fetch_text(self, indices: Tensor) -> Tensor:
        """The text rows alone."""


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

    def fetch(self, indices: Tensor) -> ClipBatch:
        """The clips at ``indices`` (B,), with their word ids as text."""
        return ClipBatch(self.latents[indices], self.token_ids[indices])

    def fetch_text(self, indices: Tensor) -> Tensor:
        """Word ids (B, L)."""
        return self.token_ids[indices]


def make_latent_clips(
    count: int,
    *,
    codec: PatchCodec,
    captions: TextEncoder,
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


def drop_captions(text: Tensor, *, empty: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Replace a share of the text rows (B, ...) by those of ``empty``, for guidance (Ho & Salimans 2022)."""
    dropped = torch.rand(len(text), generator=generator) < ratio
    return torch.where(dropped.reshape(-1, *(1,) * (text.dim() - 1)).to(text.device), empty, text)


def as_images(latents: Tensor, *, generator: torch.Generator) -> Tensor:
    """One random frame of every clip as a one-frame clip: (B, T, C, H, W) to (B, 1, C, H, W)."""
    frame = torch.randint(latents.shape[1], (len(latents),), generator=generator)
    return latents[torch.arange(len(latents)), frame].unsqueeze(1)
