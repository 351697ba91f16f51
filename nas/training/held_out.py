"""Loss on clips that were held out: what there is to compare where no judge can read the clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.training.data import ClipBatch, TrainingClips
from nas.training.losses import flow_matching_loss
from nas.training.noise import add_noise, gaussian_like, velocity
from nas.training.sampling import predict_velocity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.training.stage import Kit

# Times at which the loss is taken; the middle of five equal parts of 0-1 (ours).
TIMES: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRange:
    """Clips ``first`` to ``end`` of others, as training data of its own."""

    clips: TrainingClips
    first: int
    end: int

    @property
    def description(self) -> str:
        """Which of which clips."""
        return f"{self.first} to {self.end} of {self.clips.description}"

    def __len__(self) -> int:
        return self.end - self.first

    def fetch(self, indices: Tensor) -> ClipBatch:
        """The clips at ``indices`` (B,)."""
        return self.clips.fetch(self.first + indices)

    def fetch_text(self, indices: Tensor) -> Tensor:
        """Their text rows."""
        return self.clips.fetch_text(self.first + indices)

    def fetch_images(self, indices: Tensor, *, generator: torch.Generator) -> ClipBatch:
        """Images for them."""
        return self.clips.fetch_images(self.first + indices, generator=generator)


@torch.no_grad()
def held_out_loss(kit: Kit, clips: TrainingClips, *, seed: int, times: Sequence[float] = TIMES) -> dict[str, float]:
    """Mean flow-matching loss over all clips at each of ``times``, always with the same noise.

    Returns:
        ``flow_loss``, the mean over the times, and ``flow_loss_at_<percent>`` of each.
    """
    device = next(kit.denoiser.parameters()).device
    sums = dict.fromkeys(times, 0.0)
    for begin in range(0, len(clips), _BATCH):
        indices = torch.arange(begin, min(begin + _BATCH, len(clips)))
        clean, text = clips.fetch(indices)
        noise = gaussian_like(clean, generator=torch.Generator().manual_seed(seed + begin))
        tokens = kit.captions(text.to(device)).tokens
        for time in times:
            t = torch.full((len(clean),), time)
            noisy = add_noise(clean, noise, t).to(device)
            predicted = predict_velocity(kit.denoiser, noisy, t, tokens)
            loss = flow_matching_loss(predicted.float().cpu(), velocity(clean, noise))
            sums[time] += float(loss) * len(clean)
    means = {time: total / len(clips) for time, total in sums.items()}
    return {
        "flow_loss": sum(means.values()) / len(means),
        **{f"flow_loss_at_{round(100 * time)}": value for time, value in means.items()},
    }
