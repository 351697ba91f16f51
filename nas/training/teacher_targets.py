"""What a frozen teacher says of noisy clips: computed when asked for, or read from a cache on disk.

Fresh noise never repeats, so a cache needs *fixed draws*: of every clip a fixed number of (x_t, t, c), each a pure
function of (seed, clip, number of the draw). Image batches have draws of their own. Then the same losses come out with
the cache and without it; to the bit where the teacher's answer to one clip does not depend on its neighbours in the
batch, which the filled cache is checked for (true on CPUs; always at one batch size).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from nas.core.rng import RandomStreams
from nas.models.caption import TextEncoder
from nas.training.data import ClipBatch, TrainingClips
from nas.training.noise import add_noise, gaussian_like, logit_normal_times
from nas.training.options import NoiseOptions
from nas.training.sampling import velocity_and_features
from nas.training.teacher import NoisyBatch, draw_noisy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.training.loop import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Places of a batch's fixed draws: clip and draw of every row (B,), and whether they are single frames."""

    clips: Tensor
    draws: Tensor
    images: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the teacher says: velocity (B, T, C, H, W), and features by block."""

    velocity: Tensor
    features: tuple[Tensor, ...]


class StoredTargets(Protocol):
    """A filled cache."""

    def read(self, drawn: Drawn, device: torch.device) -> Target:
        """The stored answers, equal to ``Teacher.answer``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A frozen network and which of its features are wanted, by their place in ``VideoUNet.encode``."""

    denoiser: nn.Module
    captions: TextEncoder
    features: tuple[int, ...]

    @torch.no_grad()
    def answer(self, noisy: NoisyBatch) -> Target:
        """One call of the network."""
        tokens = self.captions(noisy.text).tokens
        velocity, features = velocity_and_features(self.denoiser, noisy.noisy, noisy.times, tokens)
        return Target(velocity=velocity, features=tuple(features[place] for place in self.features))

    def to(self, device: torch.device) -> None:
        """Move both networks; a loop moves only what it trains."""
        self.denoiser.to(device)
        if isinstance(self.captions, nn.Module):
            self.captions.to(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedDraws:
    """Of every clip ``per_clip`` fixed noisy versions, and as many of single frames.

    Equal seeds and options give equal draws, whatever else is drawn.
    """

    data: TrainingClips
    captions: TextEncoder
    options: NoiseOptions
    per_clip: int
    streams: RandomStreams

    def choose(self, batch: Batch) -> Drawn:
        """Choose draws for a batch of the loop by its generator."""
        images = batch.decide(self.options.image_ratio)
        draws = torch.randint(self.per_clip, (len(batch.indices),), generator=batch.generator)
        return Drawn(clips=batch.indices, draws=draws, images=images)

    def make(self, drawn: Drawn, device: torch.device) -> NoisyBatch:
        """Make the noisy clips of draws."""
        generators = [
            self._generator(int(clip), int(draw), images=drawn.images)
            for clip, draw in zip(drawn.clips, drawn.draws, strict=True)
        ]
        clean, text = self._fetch(drawn, generators)
        rows = [self._row(clean[row : row + 1], generator) for row, generator in enumerate(generators)]
        noise, times, dropped = (torch.cat(parts) for parts in zip(*rows, strict=True))
        empty = self.captions.empty_text(len(text)).to(text.device)
        text = torch.where(dropped.reshape(-1, *(1,) * (text.dim() - 1)), empty, text)
        clean, noise, times, text = (item.to(device) for item in (clean, noise, times, text))
        return NoisyBatch(clean=clean, noise=noise, noisy=add_noise(clean, noise, times), times=times, text=text)

    def _generator(self, clip: int, draw: int, *, images: bool) -> torch.Generator:
        name = f"fixed-draw/{'image' if images else 'video'}/{draw}"
        return torch.Generator().manual_seed(self.streams.integer(name, clip))

    def _fetch(self, drawn: Drawn, generators: Sequence[torch.Generator]) -> ClipBatch:
        if not drawn.images:
            return self.data.fetch(drawn.clips)
        clips = zip(drawn.clips.split(1), generators, strict=True)
        batches = [self.data.fetch_images(clip, generator=generator) for clip, generator in clips]
        return ClipBatch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))

    def _row(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        options = self.options
        dropped = torch.rand(1, generator=generator) < options.text_dropout
        times = logit_normal_times(1, mean=options.time_mean, std=options.time_std, generator=generator)
        return gaussian_like(clean, generator=generator), times, dropped


class TeacherTargets:
    """Noisy batches with the teacher's answers, as a distillation loss takes them.

    Args:
        data: The clips.
        teacher: The frozen network.
        options: How noise is drawn.
        draws: Fixed draws, or None for fresh noise at every step.
        stored: A filled cache of those draws, or None to compute every answer.
    """

    def __init__(
        self,
        data: TrainingClips,
        teacher: Teacher,
        options: NoiseOptions,
        *,
        draws: FixedDraws | None = None,
        stored: StoredTargets | None = None,
    ) -> None:
        self._data, self._teacher, self._options = data, teacher, options
        self._draws, self._stored = draws, stored

    def take(self, batch: Batch) -> tuple[NoisyBatch, Target]:
        """The noisy clips of a step and what the teacher says of them."""
        if self._draws is None:
            noisy = draw_noisy(self._data, batch, self._options, captions=self._teacher.captions)
            return noisy, self._teacher.answer(noisy)
        drawn = self._draws.choose(batch)
        noisy = self._draws.make(drawn, batch.device)
        if self._stored is None:
            return noisy, self._teacher.answer(noisy)
        return noisy, self._stored.read(drawn, batch.device)


def rows_of(parts: Sequence[Target]) -> Target:
    """Several answers as one."""
    return Target(
        velocity=torch.cat([part.velocity for part in parts]),
        features=tuple(torch.cat(blocks) for blocks in zip(*(part.features for part in parts), strict=True)),
    )
