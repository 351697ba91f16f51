"""Quality by held-out loss: how well a network predicts velocities on clips it has never seen, at fixed noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.core.evaluation import Quality
from nas.quality.supernet import Supernet
from nas.training.data import LatentClips, make_latent_clips
from nas.training.noise import TIME_SCALE, add_noise, velocity

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.models.caption import CaptionEncoder
    from nas.training.stage import Kit

# Times at which the loss is taken. Motion is decided where single frames say little: at 0.4 the empty and the largest
# network of `tiny` scored the same (0.130 and 0.131), at 0.6 and 0.8 they differed by 9 and 12 %.
MOTION_TIMES: tuple[float, ...] = (0.6, 0.75, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutBatch:
    """Fixed noisy clips: every held-out clip at every time, so that candidates are compared pairwise.

    ``noisy`` and ``target`` are (K * N, T, C, H, W), time by time; ``times`` (K * N,) in 0-1.
    """

    noisy: Tensor
    target: Tensor
    times: Tensor
    tokens: Tensor
    num_clips: int


@torch.no_grad()
def make_held_out_batch(
    clips: LatentClips, captions: CaptionEncoder, *, seed: int, times: tuple[float, ...] = MOTION_TIMES
) -> HeldOutBatch:
    """Add fixed noise to ``clips`` at every one of ``times``; each (clip, time) has its own noise."""
    generator = torch.Generator().manual_seed(seed)
    clean = clips.latents.repeat(len(times), 1, 1, 1, 1)
    noise = torch.randn(clean.shape, generator=generator)
    moment = torch.tensor(times).repeat_interleave(len(clips))
    tokens = captions(clips.token_ids.to(captions.positions.device)).tokens.cpu()
    return HeldOutBatch(
        noisy=add_noise(clean, noise, moment),
        target=velocity(clean, noise),
        times=moment,
        tokens=tokens.repeat(len(times), 1, 1),
        num_clips=len(clips),
    )


@torch.no_grad()
def clip_losses(denoiser: nn.Module, batch: HeldOutBatch) -> Tensor:
    """Mean square error of the velocity for every time and clip: (K, N)."""
    device = next(denoiser.parameters()).device
    predicted = denoiser(batch.noisy.to(device), (batch.times * TIME_SCALE).to(device), batch.tokens.to(device)).cpu()
    return (predicted - batch.target).square().flatten(1).mean(dim=1).reshape(-1, batch.num_clips)


class SupernetQuality:
    """Judges a candidate by its held-out loss with inherited supernet weights; meets ``QualityEstimator``.

    The score is minus the mean flow-matching loss over fixed held-out clips, noise and times: deterministic, and the
    same draws for every candidate. The standard error is over clips only; it says nothing of how the supernet's own
    training would scatter.

    Args:
        kit: A trained supernet.
        clips: Held-out clips.
        seed: Seed of the noise.
        trained_steps: Steps the supernet was trained, for ``fidelity``.
    """

    name = "supernet"

    def __init__(self, kit: Kit, clips: LatentClips, *, seed: int, trained_steps: int) -> None:
        if not isinstance(kit.denoiser, Supernet):
            raise TypeError(f"SupernetQuality needs a Supernet, got {type(kit.denoiser).__name__}")
        self.supernet = kit.denoiser.eval()
        self.fidelity = f"{trained_steps} shared steps, {len(clips)} held-out clips at {len(MOTION_TIMES)} times"
        self._batch = make_held_out_batch(clips, kit.captions, seed=seed)

    def estimate(self, architecture: Architecture) -> Quality:
        """Quality of one candidate; deterministic in the architecture."""
        self.supernet.space.validate(architecture)
        self.supernet.activate(self.supernet.space.to_options(architecture))
        losses = clip_losses(self.supernet, self._batch)
        by_clip = losses.mean(dim=0).double()
        by_time = tuple(
            (f"loss_at_{time:g}", float(loss)) for time, loss in zip(MOTION_TIMES, losses.mean(dim=1), strict=True)
        )
        return Quality(
            score=-float(by_clip.mean()),
            standard_error=float(by_clip.std()) / math.sqrt(len(by_clip)),
            estimator=self.name,
            fidelity=self.fidelity,
            metrics=(("held_out_loss", float(by_clip.mean())), *by_time),
        )


def supernet_quality(kit: Kit, *, seed: int, trained_steps: int, num_clips: int = 36) -> SupernetQuality:
    """The estimator of a trained supernet on ``num_clips`` held-out clips made here (a multiple of 18 is balanced)."""
    clips = make_latent_clips(num_clips, codec=kit.codec, captions=kit.captions, seed=seed, split="held_out")
    return SupernetQuality(kit, clips, seed=seed, trained_steps=trained_steps)
