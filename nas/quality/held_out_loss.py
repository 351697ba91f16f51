"""Quality by held-out loss: how well a network predicts velocities on clips it has never seen, at fixed noise."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.core.evaluation import Quality
from nas.models.quantised import quantise_
from nas.quality.options import MOTION_TIMES
from nas.quality.supernet import Supernet
from nas.training.data import TrainingClips, make_latent_clips
from nas.training.noise import TIME_SCALE, add_noise, velocity
from nas.training.sampling import sample_euler

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.core.scenario import ScenarioPoint
    from nas.models.caption import TextEncoder
    from nas.models.stored_forms import StoredForm
    from nas.training.stage import Kit

# Euler's error falls with the number of steps, so a reference of four times as many sees three quarters of it.
REFERENCE_FACTOR = 4
SAMPLED_CLIPS = 9
_KEPT_REFERENCES = 256


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
    clips: TrainingClips, captions: TextEncoder, *, seed: int, times: tuple[float, ...] = MOTION_TIMES
) -> HeldOutBatch:
    """Add fixed noise to ``clips`` at every one of ``times``; each (clip, time) has its own noise."""
    generator = torch.Generator().manual_seed(seed)
    latents, text = clips.fetch(torch.arange(len(clips)))
    clean = latents.repeat(len(times), 1, 1, 1, 1)
    noise = torch.randn(clean.shape, generator=generator)
    moment = torch.tensor(times).repeat_interleave(len(clips))
    tokens = captions(text.to(captions.device)).tokens.cpu()
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

    In a scenario (``estimate_at``) weights are rounded to their stored bits first, and the error of sampling in few
    steps is added to the loss: the mean square distance between the clips that Euler steps reach and those that four
    times the most steps reach from the same noise. Both are in one unit: a clip is its noise minus the mean velocity
    of its path, so clips are as far apart as their mean velocities. A network distilled for few steps loses less by
    them than this says; its own loss is of the network before distillation as well.

    Args:
        kit: A trained supernet.
        clips: Held-out clips.
        seed: Seed of the noise.
        times: At which the loss is taken.
        trained_steps: Steps the supernet was trained, for ``fidelity``.
        most_steps: Most denoising steps that will be judged; 0 where steps are no choice.
        form: How weights of fewer than 16 bits are stored.
    """

    name = "supernet"
    judges = ("denoising_steps", "weight_bits")

    def __init__(
        self,
        kit: Kit,
        clips: TrainingClips,
        *,
        seed: int,
        trained_steps: int,
        times: tuple[float, ...] = MOTION_TIMES,
        most_steps: int = 0,
        form: StoredForm = "palettised",
    ) -> None:
        if not isinstance(kit.denoiser, Supernet):
            raise TypeError(f"SupernetQuality needs a Supernet, got {type(kit.denoiser).__name__}")
        self.supernet = kit.denoiser.eval()
        self.fidelity = f"{trained_steps} shared steps, {len(clips)} held-out clips at {len(times)} times"
        self._times = times
        self._form: StoredForm = form
        self._batch = make_held_out_batch(clips, kit.captions, seed=seed, times=times)
        self._reference_steps = REFERENCE_FACTOR * most_steps
        self._references: OrderedDict[tuple[str, int | None], Tensor] = OrderedDict()
        if most_steps:
            generator = torch.Generator().manual_seed(seed + 1)
            self._noise = torch.randn(SAMPLED_CLIPS, *kit.latent_shape, generator=generator)
            self._tokens = self._batch.tokens[:: max(1, len(clips) // SAMPLED_CLIPS)][:SAMPLED_CLIPS]
            self.fidelity += f", {len(self._tokens)} clips sampled against {self._reference_steps} steps"

    def estimate(self, architecture: Architecture) -> Quality:
        """Quality of one candidate; deterministic in the architecture."""
        self.supernet.space.validate(architecture)
        self.supernet.activate(self.supernet.space.to_options(architecture))
        return self._of_losses(clip_losses(self.supernet, self._batch))

    def estimate_at(self, architecture: Architecture, point: ScenarioPoint) -> Quality:
        """Quality of one candidate with the weight bits and in the number of steps of ``point``.

        Raises:
            ValueError: More steps than ``most_steps``.
        """
        if point.weight_bits is None:
            network: nn.Module = self.supernet
            quality = self.estimate(architecture)
        else:
            network = self.supernet.extract(architecture).eval()
            quantise_(network, bits=point.weight_bits, form=self._form)
            quality = self._of_losses(clip_losses(network, self._batch))
        if point.denoising_steps is None:
            return quality
        error = self._sampling_error(network, (architecture.digest, point.weight_bits), point.denoising_steps)
        spread = float(error.std()) / math.sqrt(len(error))
        return replace(
            quality,
            score=quality.score - float(error.mean()),
            standard_error=math.hypot(quality.standard_error or 0.0, spread),
            metrics=(*quality.metrics, ("sampling_error", float(error.mean()))),
        )

    def _of_losses(self, losses: Tensor) -> Quality:
        by_clip = losses.mean(dim=0).double()
        by_time = tuple(
            (f"loss_at_{time:g}", float(loss)) for time, loss in zip(self._times, losses.mean(dim=1), strict=True)
        )
        return Quality(
            score=-float(by_clip.mean()),
            standard_error=float(by_clip.std()) / math.sqrt(len(by_clip)),
            estimator=self.name,
            fidelity=self.fidelity,
            metrics=(("held_out_loss", float(by_clip.mean())), *by_time),
        )

    def _sampling_error(self, network: nn.Module, key: tuple[str, int | None], steps: int) -> Tensor:
        """Mean square distance (N,) of clips in ``steps`` steps from those of the reference; references are kept."""
        if steps * REFERENCE_FACTOR > self._reference_steps:
            raise ValueError(f"made to judge up to {self._reference_steps // REFERENCE_FACTOR} steps, got {steps}")
        if key not in self._references:
            self._references[key] = self._sampled(network, self._reference_steps)
            while len(self._references) > _KEPT_REFERENCES:
                self._references.popitem(last=False)
        distance = self._sampled(network, steps) - self._references[key]
        return distance.square().flatten(1).mean(dim=1).double()

    def _sampled(self, network: nn.Module, steps: int) -> Tensor:
        device = next(network.parameters()).device
        noise, tokens = self._noise[: len(self._tokens)].to(device), self._tokens.to(device)
        return sample_euler(network, noise, tokens, empty=tokens[:1], steps=steps).cpu()


def supernet_quality(
    kit: Kit,
    *,
    seed: int,
    trained_steps: int,
    num_clips: int = 36,
    times: tuple[float, ...] = MOTION_TIMES,
    most_steps: int = 0,
    form: StoredForm = "palettised",
) -> SupernetQuality:
    """The estimator of a trained supernet on ``num_clips`` held-out clips made here (a multiple of 18 is balanced)."""
    clips = make_latent_clips(num_clips, codec=kit.own_codec, captions=kit.captions, seed=seed, split="held_out")
    return SupernetQuality(
        kit, clips, seed=seed, trained_steps=trained_steps, times=times, most_steps=most_steps, form=form
    )
