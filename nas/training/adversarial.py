"""Stage 4: adversarial tuning of the four-step student, without guidance, anchored by the teacher's trajectories.

The generator predicts a clip in one call from a noisy one at one of the four fixed times. Real and generated clips get
fresh noise at the discriminator's own time and are scored through the frozen teacher's encoder by trained heads
(TRAINING 3.4, METHODS 1c and 2c). One step of the heads per step of the generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from nas.core.protocols import SilentProgress
from nas.models.discriminator import VideoDiscriminator, feature_channels
from nas.training.data import TrainingClips, fetch_jointly
from nas.training.loop import Batch, Phase
from nas.training.losses import discriminator_hinge, generator_hinge, pseudo_huber
from nas.training.noise import (
    TIME_SCALE,
    add_noise,
    clean_from_velocity,
    gaussian_like,
    logit_normal_times,
)
from nas.training.options import AdversarialOptions
from nas.training.sampling import predict_velocity
from nas.training.stage import Kit, StageResult, describe_structure, describe_weights, run_stage
from nas.training.trajectory import Trajectories, segment_loss

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.models.discriminator import VideoEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """One batch of both phases: real clips, and the same clips noisy at one of the fixed times."""

    clean: Tensor
    noisy: Tensor
    times: Tensor
    tokens: Tensor
    pooled: Tensor


class AdversarialLosses:
    """Losses of both phases; holds the networks and nothing that changes from step to step.

    Args:
        student: The generator.
        discriminator: Frozen encoder and heads.
        data: Real clips.
        trajectories: Ways of the teacher, for the anchor.
        options: Weights and noise levels.
    """

    def __init__(
        self,
        student: Kit,
        discriminator: VideoDiscriminator,
        data: TrainingClips,
        trajectories: Trajectories,
        options: AdversarialOptions,
    ) -> None:
        self._student = student
        self._discriminator = discriminator
        self._data = data
        self._trajectories = trajectories
        self._options = options

    def heads(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Hinge loss of the heads on real, generated and wrongly captioned clips; the generator is not touched."""
        drawn = self._draw(batch)
        with torch.no_grad():
            fake = self._generate(drawn)
        real_scores = self._score(drawn.clean, drawn.tokens, drawn.pooled, batch)
        fake_scores = self._score(fake, drawn.tokens, drawn.pooled, batch)
        wrong = round(self._options.mismatch_ratio * len(fake))
        if wrong:
            tokens, pooled = drawn.tokens.roll(1, dims=0)[:wrong], drawn.pooled.roll(1, dims=0)[:wrong]
            mismatched = self._score(drawn.clean[:wrong], tokens, pooled, batch)
            fake_scores = [torch.cat([one, two]) for one, two in zip(fake_scores, mismatched, strict=True)]
        loss = discriminator_hinge(real_scores, fake_scores)
        return loss, {"real_score": _mean(real_scores), "fake_score": _mean(fake_scores)}

    def generator(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Hinge term through the frozen encoder, distance to the clean clip, and the trajectory anchor."""
        options = self._options
        drawn = self._draw(batch)
        fake = self._generate(drawn)
        adversarial = generator_hinge(self._score(fake, drawn.tokens, drawn.pooled, batch))
        reconstruction = pseudo_huber(fake, drawn.clean, width=options.huber_width)
        places = torch.randint(len(self._trajectories), (len(batch.indices),), generator=batch.generator)
        anchor = segment_loss(
            self._student, self._trajectories, places, huber_width=options.huber_width, device=batch.device
        )
        total = (
            options.adversarial_weight * adversarial
            + options.reconstruction_weight * reconstruction
            + options.anchor_weight * anchor
        )
        return total, {"adversarial_loss": adversarial, "reconstruction_loss": reconstruction, "anchor_loss": anchor}

    def _draw(self, batch: Batch) -> _Drawn:
        generator, device = batch.generator, batch.device
        clean, text = fetch_jointly(self._data, batch, image_ratio=self._options.image_ratio)
        choice = torch.randint(self._trajectories.num_segments, (len(clean),), generator=generator)
        times = torch.tensor(self._trajectories.times)[choice]
        noise = gaussian_like(clean, generator=generator)
        with torch.no_grad():
            features = self._student.captions(text.to(device))
        clean, noise, times = (item.to(device) for item in (clean, noise, times))
        return _Drawn(
            clean=clean,
            noisy=add_noise(clean, noise, times),
            times=times,
            tokens=features.tokens,
            pooled=features.pooled,
        )

    def _generate(self, drawn: _Drawn) -> Tensor:
        predicted = predict_velocity(self._student.denoiser, drawn.noisy, drawn.times, drawn.tokens)
        return clean_from_velocity(drawn.noisy, predicted, drawn.times)

    def _score(self, clips: Tensor, tokens: Tensor, pooled: Tensor, batch: Batch) -> list[Tensor]:
        """Scores of clips after noise at the discriminator's own time."""
        times = logit_normal_times(
            len(clips), mean=self._options.time_mean, std=self._options.time_std, generator=batch.generator
        ).to(batch.device)
        noisy = add_noise(clips, gaussian_like(clips, generator=batch.generator), times)
        scores: list[Tensor] = self._discriminator(noisy, times * TIME_SCALE, tokens, pooled)
        return scores


def make_discriminator(teacher: Kit, *, head_width: int, seed: int) -> VideoDiscriminator:
    """Heads with fresh weights on the frozen encoder of ``teacher``."""
    device = next(teacher.denoiser.parameters()).device
    features = teacher.captions(teacher.captions.empty_text(1))
    sample = torch.zeros(1, *teacher.latent_shape, device=device)
    channels = feature_channels(
        cast("VideoEncoder", teacher.denoiser),
        sample=sample,
        timestep=torch.zeros(1, device=device),
        tokens=features.tokens,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VideoDiscriminator(
            teacher.denoiser, channels=channels, text_width=features.pooled.shape[-1], width=head_width
        ).to(device)


def tune_adversarially(
    student: Kit,
    teacher: Kit,
    data: TrainingClips,
    trajectories: Trajectories,
    *,
    options: AdversarialOptions,
    folder: Path,
    streams: RandomStreams,
    metrics: Path | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Sharpen the few-step student in place against a discriminator on the teacher's frozen encoder.

    ``student`` and ``teacher`` must not be the same network: the encoder's weights must not move.

    Raises:
        ValueError: Student and teacher share a network.
        TrainingError: A loss is not finite.
        CheckpointError: The folder's files cannot be used.
    """
    if student.denoiser is teacher.denoiser:
        raise ValueError("student and teacher are one network; the discriminator needs a frozen copy")
    student.captions.requires_grad_(False).eval()
    discriminator = make_discriminator(
        teacher, head_width=options.head_width, seed=streams.integer("adversarial/heads")
    )
    losses = AdversarialLosses(student, discriminator, data, trajectories, options)
    phases = [
        Phase(
            name="heads",
            trains=("discriminator",),
            loss=losses.heads,
            learning_rate_ratio=options.heads_rate_ratio,
            betas=options.betas,
        ),
        Phase(name="generator", trains=("denoiser",), loss=losses.generator, betas=options.betas),
    ]
    own = {name: getattr(options, name) for name in AdversarialOptions.__slots__ if name != "loop"}
    details = {
        **own,
        "data": data.description,
        "trajectories": trajectories.fingerprint,
        "network": describe_structure(student.denoiser),
        "encoder": describe_weights(teacher.denoiser),
    }
    return run_stage(
        "adversarial",
        kit=student,
        folder=folder,
        metrics=metrics or folder.parent / "metrics.jsonl",
        options=options.loop,
        details=details,
        modules={"denoiser": student.denoiser, "discriminator": discriminator},
        phases=phases,
        averaged=("denoiser",),
        num_items=len(data),
        streams=streams,
        progress=progress or SilentProgress(),
    )


def _mean(scores: list[Tensor]) -> Tensor:
    return torch.stack([score.mean() for score in scores]).mean()
