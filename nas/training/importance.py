"""Block importance by removal: how much the distillation loss rises when units of an image network are left out.

Every set of units is judged on the same held-out noisy images: mean over batches of the squared distance to the
unpruned network's velocity over that velocity's mean square, plus the normalised distance of the features at equal
resolution. Rises are differences batch by batch, so that noise common to both cancels; their spread over batches gives
the standard error.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch

from nas.core.files import JsonLines
from nas.training.multi_level import clip_errors, clip_feature_errors
from nas.training.noise import TIME_SCALE
from nas.training.pruning_choice import LossRise
from nas.training.teacher_targets import Drawn, FixedDraws
from search_spaces.pruning import SourceUNet, kept_depth, skipped_parts

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from torch import Tensor

    from nas.core.rng import RandomStreams
    from nas.models.unet import VideoUNet
    from nas.training.data import TrainingClips
    from nas.training.options import ImportanceOptions, NoiseOptions
    from nas.training.stage import Kit
    from nas.training.teacher_targets import NoisyBatch


class RemovalLoss:
    """Measures sets of removed units; a set is measured once, also across interruptions.

    Args:
        network: The network to leave units out of, usually trained robustly.
        teacher: The unpruned network that it should go on to agree with.
        source: Names the units.
        data: Held-out clips; single frames of them are used.
        options: Number and size of batches.
        noise: How noise is drawn; the share of images is 1 here.
        streams: Source of the draws.
        journal: JSON Lines file of what was measured before, or None.
        fingerprint: Of networks, data and options; other lines of the journal are not used.
    """

    def __init__(
        self,
        network: VideoUNet,
        teacher: Kit,
        source: SourceUNet,
        data: TrainingClips,
        *,
        options: ImportanceOptions,
        noise: NoiseOptions,
        streams: RandomStreams,
        journal: Path | None = None,
        fingerprint: str = "",
    ) -> None:
        self._network, self._teacher, self._source = network.eval(), teacher.to(network.device), source
        self._fingerprint = fingerprint
        self._journal = JsonLines(journal) if journal else None
        self._known: dict[frozenset[str], list[float]] = {}
        for row in self._journal.read() if self._journal else ():
            if row.get("fingerprint") == fingerprint:
                self._known[frozenset(row["removed"])] = [float(value) for value in row["losses"]]
        draws = FixedDraws(data=data, captions=teacher.captions, options=noise, per_clip=1, streams=streams)
        clips = torch.arange(options.batches * options.batch_size) % len(data)
        self._batches = [self._batch(draws, part) for part in clips.split(options.batch_size)]

    def __call__(self, removed: Collection[str]) -> LossRise:
        """Rise over the network with nothing removed."""
        losses, whole = self.losses(removed), self.losses(())
        rises = [one - other for one, other in zip(losses, whole, strict=True)]
        mean = math.fsum(rises) / len(rises)
        spread = math.fsum((rise - mean) ** 2 for rise in rises) / max(len(rises) - 1, 1)
        return LossRise(mean=mean, standard_error=math.sqrt(spread / len(rises)))

    def losses(self, removed: Collection[str]) -> list[float]:
        """Loss of every batch."""
        key = frozenset(removed)
        if key not in self._known:
            self._known[key] = [self._loss(noisy, tokens, wanted, key) for noisy, tokens, wanted in self._batches]
            if self._journal is not None:
                row = {"removed": sorted(key), "losses": self._known[key], "fingerprint": self._fingerprint}
                self._journal.append(row)
        return self._known[key]

    @torch.no_grad()
    def _batch(self, draws: FixedDraws, clips: Tensor) -> tuple[NoisyBatch, Tensor, tuple[Tensor, list[Tensor]]]:
        drawn = Drawn(clips=clips, draws=torch.zeros_like(clips), images=True)
        noisy = draws.make(drawn, self._network.device)
        tokens = self._teacher.captions(noisy.text).tokens
        teacher = cast("VideoUNet", self._teacher.denoiser)
        return noisy, tokens, teacher.forward_with_features(noisy.noisy, noisy.times * TIME_SCALE, tokens)

    @torch.no_grad()
    def _loss(
        self, noisy: NoisyBatch, tokens: Tensor, wanted: tuple[Tensor, list[Tensor]], removed: frozenset[str]
    ) -> float:
        skipped = skipped_parts(self._source, removed)
        velocity, features = self._network.forward_with_features(
            noisy.noisy, noisy.times * TIME_SCALE, tokens, skipped=skipped
        )
        size = wanted[0].square().flatten(1).mean(dim=1).clamp_min(1e-6)
        output = clip_errors(velocity, wanted[0]) / size
        depth = kept_depth(self._source, removed)
        # One feature a down stage and one of the middle, which lies at another resolution once a level is gone.
        same = depth if depth < len(self._source.channels) else depth + 1
        return float((output + clip_feature_errors(features[:same], wanted[1][:same])).mean())
