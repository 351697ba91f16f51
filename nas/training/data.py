"""What every stage learns from: clips as latents with their text, by index.

``TrainingClips`` is the protocol; ``LatentClips`` holds procedural clips in memory, ``ProceduralClips`` draws them when
they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from nas.models.caption import TextEncoder
from nas.training.clips import CLIP_FRAMES, CLIP_SIZE, Attributes, ClipSet, Split, make_clips, render_by_index
from nas.training.codec import PatchCodec

if TYPE_CHECKING:
    from nas.training.loop import Batch


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

    def fetch_images(self, indices: Tensor, *, generator: torch.Generator) -> ClipBatch:
        """As many one-frame clips (B, 1, C, H, W): images of the source's own, or frames of these clips."""


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

    def fetch_images(self, indices: Tensor, *, generator: torch.Generator) -> ClipBatch:
        """One random frame of each clip."""
        return _with_images(self.fetch(indices), generator=generator)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProceduralClips:
    """Clips drawn when they are asked for, out of endlessly many; each index has a seed of its own.

    ``count`` only says how far a stage's indices go: as many as steps times batch size, and no clip is seen twice.
    """

    count: int
    codec: PatchCodec
    captions: TextEncoder
    seed: int
    split: Split = "train"
    frames: int = CLIP_FRAMES
    size: int = CLIP_SIZE

    @property
    def description(self) -> str:
        """What they are."""
        shape = f"{self.frames} frames of {self.size} x {self.size} px"
        return f"{self.count} fresh {self.split} clips of {shape}, seed {self.seed}"

    def __len__(self) -> int:
        return self.count

    def fetch(self, indices: Tensor) -> ClipBatch:
        """Draw and encode the clips at ``indices`` (B,)."""
        clips = self._draw(indices)
        return ClipBatch(self.codec.encode_clips(clips.video), self.captions.tokenize(clips.captions))

    def fetch_images(self, indices: Tensor, *, generator: torch.Generator) -> ClipBatch:
        """One random frame of each clip."""
        return _with_images(self.fetch(indices), generator=generator)

    def fetch_text(self, indices: Tensor) -> Tensor:
        """Text rows of the captions."""
        return self.captions.tokenize(self._draw(indices).captions)

    def _draw(self, indices: Tensor) -> ClipSet:
        return render_by_index(indices.tolist(), seed=self.seed, split=self.split, frames=self.frames, size=self.size)


def drop_captions(text: Tensor, *, empty: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Replace a share of the text rows (B, ...) by those of ``empty``, for guidance (Ho & Salimans 2022)."""
    dropped = torch.rand(len(text), generator=generator) < ratio
    return torch.where(dropped.reshape(-1, *(1,) * (text.dim() - 1)).to(text.device), empty, text)


def fetch_jointly(data: TrainingClips, batch: Batch, *, image_ratio: float) -> ClipBatch:
    """A batch of clips, or, in a share ``image_ratio`` of the steps, one of images (SnapGen-V trains on both)."""
    if batch.decide(image_ratio):
        return data.fetch_images(batch.indices, generator=batch.generator)
    return data.fetch(batch.indices)


def as_images(latents: Tensor, *, generator: torch.Generator) -> Tensor:
    """One random frame of every clip as a one-frame clip: (B, T, C, H, W) to (B, 1, C, H, W)."""
    frame = torch.randint(latents.shape[1], (len(latents),), generator=generator)
    return latents[torch.arange(len(latents)), frame].unsqueeze(1)


def _with_images(batch: ClipBatch, *, generator: torch.Generator) -> ClipBatch:
    return batch._replace(latents=as_images(batch.latents, generator=generator))
