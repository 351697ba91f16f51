"""Stage 4: adversarial tuning of the four-step student, without guidance, anchored by the teacher's trajectories.

The generator makes a clip in one way or another (``generator_input`` says how). Real and generated clips get fresh
noise at the discriminator's own time and are scored through the frozen teacher's encoder by trained heads (TRAINING
3.4, METHODS 1c and 2c), and so are single frames in the same step. One step of the heads per step of the generator.
What is judged and reconstructed is the last step after the sampler's own step before it, so that the student is
trained on what it meets when it is sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas.core.protocols import SilentProgress
from nas.models.discriminator import VideoDiscriminator, feature_channels
from nas.training.data import as_images
from nas.training.loop import Batch, Phase
from nas.training.losses import (
    discriminator_hinge,
    flow_matching_loss,
    generator_hinge,
    gradient_penalty,
    pseudo_huber,
)
from nas.training.noise import (
    TIME_SCALE,
    add_noise,
    broadcast_times,
    clean_from_velocity,
    gaussian_like,
    log_normal_times,
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
    from nas.training.data import ClipBatch, TrainingClips


@dataclass(frozen=True, slots=True, kw_only=True)
class _Captioned:
    """Clips (B, T, C, H, W) to judge, with their captions' features."""

    clips: Tensor
    tokens: Tensor
    pooled: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Generated:
    """What the generator made, and its distance from the real clips where it began from them."""

    fake: _Captioned
    reconstruction: Tensor | None = None


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
        real = self._real(batch)
        with torch.no_grad():
            fake = self._generate(real, batch).fake
        loss, values = self._heads_hinge(real, fake, batch)
        if self._judges_images:
            images = self._real_images(batch)
            shown = _frames(fake, len(images.clips), batch)
            beside, found = self._heads_hinge(images, shown, batch)
            loss = loss + self._options.image_ratio * beside
            values |= {f"image_{name}": value for name, value in found.items()}
        return loss, values

    def _heads_hinge(self, real: _Captioned, fake: _Captioned, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        options = self._options
        times = self._times(len(real.clips), batch)
        extra: dict[str, Tensor] = {}
        if options.r1_weight:
            real_scores, penalty = self._score_with_penalty(real, times, batch)
            extra["gradient_penalty"] = penalty
        else:
            real_scores = self._score(real, times, batch)
        fake_scores = self._score(fake, times, batch)
        wrong = round(options.mismatch_ratio * len(real.clips))
        if wrong:
            tokens, pooled = real.tokens.roll(1, dims=0)[:wrong], real.pooled.roll(1, dims=0)[:wrong]
            swapped = _Captioned(clips=real.clips[:wrong], tokens=tokens, pooled=pooled)
            mismatched = self._score(swapped, times[:wrong], batch)
            fake_scores = [torch.cat([one, two]) for one, two in zip(fake_scores, mismatched, strict=True)]
        loss = discriminator_hinge(real_scores, fake_scores)
        if options.r1_weight:
            loss = loss + options.r1_weight * extra["gradient_penalty"]
        return loss, {"real_score": _mean(real_scores), "fake_score": _mean(fake_scores), **extra}

    def generator(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Hinge term through the frozen encoder, distance to the clean clip, and the trajectory anchor."""
        options = self._options
        real = self._real(batch)
        total, terms, away, made = torch.zeros((), device=batch.device), {}, None, None
        if options.adversarial_weight:
            made = self._generate(real, batch)
            away = made.reconstruction
            adversarial = self._generator_hinge(made.fake, batch)
            total, terms["adversarial_loss"] = options.adversarial_weight * adversarial, adversarial
        if options.anchor_weight:
            anchor = self._anchor(batch)
            total, terms["anchor_loss"] = total + options.anchor_weight * anchor, anchor
        if options.reconstruction_weight:
            away = self._from_real(real, batch)[1] if away is None else away
            total, terms["reconstruction_loss"] = total + options.reconstruction_weight * away, away
        if made is not None and self._judges_images:
            images = self._generator_hinge(_frames(made.fake, self._num_images(batch), batch), batch)
            total, terms["image_loss"] = total + options.adversarial_weight * options.image_ratio * images, images
        return total, terms

    def _generator_hinge(self, fake: _Captioned, batch: Batch) -> Tensor:
        return generator_hinge(self._score(fake, self._times(len(fake.clips), batch), batch))

    @property
    def _judges_images(self) -> bool:
        return self._options.image_heads and self._options.image_ratio > 0

    def _num_images(self, batch: Batch) -> int:
        """Images to judge beside the clips of a batch; at least one, for small batches."""
        return math.ceil(self._options.image_ratio * len(batch.indices))

    def _real(self, batch: Batch) -> _Captioned:
        """The batch's clips with their captions; they alone are reconstructed, for a lone frame has no motion."""
        return self._captioned(self._data.fetch(batch.indices), batch)

    def _real_images(self, batch: Batch) -> _Captioned:
        indices = batch.indices[: self._num_images(batch)]
        return self._captioned(self._data.fetch_images(indices, generator=batch.generator), batch)

    def _captioned(self, rows: ClipBatch, batch: Batch) -> _Captioned:
        clean, text = rows
        tokens, pooled = self._captions(text, batch)
        return _Captioned(clips=clean.to(batch.device), tokens=tokens, pooled=pooled)

    def _captions(self, text: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            features = self._student.captions(text.to(batch.device))
        return features.tokens, features.pooled

    def _generate(self, real: _Captioned, batch: Batch) -> _Generated:
        """Clips of the student, for the captions of the real ones or of the ways."""
        if self._options.generator_input == "real":
            clips, away = self._from_real(real, batch)
            return _Generated(fake=replace(real, clips=clips), reconstruction=away)
        return self._along_trajectories(batch)

    def _from_real(self, real: _Captioned, batch: Batch) -> tuple[Tensor, Tensor]:
        """The clean clips predicted from real ones, and their distance from what they should be.

        From noise at any of the fixed times where these predictions are judged. Otherwise the last step only, from what
        the sampler's step before it makes of the noisy real clip: so the last step learns to put that one right.
        """
        options, fixed = self._options, self._trajectories.times
        if options.generator_input == "real":
            choice = torch.randint(len(fixed), (len(real.clips),), generator=batch.generator)
            times = torch.tensor(fixed)[choice].to(batch.device)
            noisy = self._noisy(real, times, batch)
        else:
            first = torch.full((len(real.clips),), fixed[max(len(fixed) - 2, 0)], device=batch.device)
            noisy, times = self._before_last(self._noisy(real, first, batch), real.tokens, batch)
        wanted = (noisy - real.clips) / broadcast_times(times, noisy) + self._towards_text(noisy, times, real.tokens)
        predicted = predict_velocity(self._student.denoiser, noisy, times, real.tokens)
        clips = clean_from_velocity(noisy, predicted, times)
        if options.reconstruction == "flow":
            return clips, flow_matching_loss(predicted, wanted)
        return clips, pseudo_huber(clips, clean_from_velocity(noisy, wanted, times), width=options.huber_width)

    @torch.no_grad()
    def _towards_text(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor | float:
        """(w - 1) (v_text - v_empty) of the teacher, which guidance adds to a velocity."""
        weight = self._options.reconstruction_guidance
        if weight == 1.0:
            return 0.0
        captions, teacher = self._student.captions, cast("nn.Module", self._discriminator.encoder)
        both = torch.cat([tokens, captions(captions.empty_text(1)).tokens.expand_as(tokens)])
        found = predict_velocity(teacher, torch.cat([noisy, noisy]), torch.cat([times, times]), both)
        with_text, without = found.chunk(2)
        return (weight - 1.0) * (with_text - without)

    def _along_trajectories(self, batch: Batch) -> _Generated:
        """The clips to which the student's last two steps lead from the states of the teacher's ways before them."""
        ways = self._trajectories
        way = torch.randint(len(ways.states), (len(batch.indices),), generator=batch.generator)
        place = way * ways.num_segments + max(ways.num_segments - 2, 0)
        segment = ways.segment(place, device=batch.device)
        tokens, pooled = self._captions(segment.text, batch)
        state, times = self._before_last(segment.begin, tokens, batch)
        clips = clean_from_velocity(state, predict_velocity(self._student.denoiser, state, times, tokens), times)
        return _Generated(fake=_Captioned(clips=clips, tokens=tokens, pooled=pooled))

    @torch.no_grad()
    def _before_last(self, state: Tensor, tokens: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """From ``state`` at the last but one of the fixed times to the last as the sampler goes, and that time (B,)."""
        fixed = self._trajectories.times[-2:]
        times = [torch.full((len(state),), time, device=batch.device) for time in fixed]
        if len(fixed) == 1:
            return state, times[0]
        predicted = predict_velocity(self._student.denoiser, state, times[0], tokens)
        if self._options.sampler == "euler":
            return state + (fixed[1] - fixed[0]) * predicted, times[1]
        clean = clean_from_velocity(state, predicted, times[0])
        return add_noise(clean, gaussian_like(clean, generator=batch.generator), times[1]), times[1]

    def _anchor(self, batch: Batch) -> Tensor:
        """The trajectory term; not on the last segment, which is judged and which only hinge and data decide."""
        ways, options = self._trajectories, self._options
        free = ways.num_segments - 1
        way = torch.randint(len(ways.states), (len(batch.indices),), generator=batch.generator)
        segment = torch.randint(max(free, 1), (len(batch.indices),), generator=batch.generator)
        places = way * ways.num_segments + segment
        return segment_loss(self._student, ways, places, huber_width=options.huber_width, device=batch.device)

    def _times(self, count: int, batch: Batch) -> Tensor:
        """The discriminator's own times (B,) in 0-1."""
        options = self._options
        draw = log_normal_times if options.noise == "log_normal" else logit_normal_times
        times = draw(count, mean=options.time_mean, std=options.time_std, generator=batch.generator)
        return times.to(batch.device)

    def _noisy(self, shown: _Captioned, times: Tensor, batch: Batch) -> Tensor:
        return add_noise(shown.clips, gaussian_like(shown.clips, generator=batch.generator), times)

    def _score(self, shown: _Captioned, times: Tensor, batch: Batch) -> list[Tensor]:
        noisy = self._noisy(shown, times, batch)
        scores: list[Tensor] = self._discriminator(noisy, times * TIME_SCALE, shown.tokens, shown.pooled)
        return scores

    def _score_with_penalty(self, shown: _Captioned, times: Tensor, batch: Batch) -> tuple[list[Tensor], Tensor]:
        noisy = self._noisy(shown, times, batch)
        on_clips = self._options.r1_on == "clips"
        # The fast attention kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            with torch.set_grad_enabled(on_clips):
                noisy = noisy.detach().requires_grad_(on_clips)
                features = self._discriminator.encoder.encode(noisy, times * TIME_SCALE, shown.tokens)
            inputs = [noisy] if on_clips else [feature.detach().requires_grad_() for feature in features]
            scores = self._discriminator.judge(features if on_clips else inputs, times * TIME_SCALE, shown.pooled)
            return scores, gradient_penalty(scores, inputs)


def make_discriminator(teacher: Kit, *, head_width: int, seed: int, temporal: bool = True) -> VideoDiscriminator:
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
            teacher.denoiser,
            channels=channels,
            text_width=features.pooled.shape[-1],
            width=head_width,
            temporal=temporal,
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
    stage: str = "adversarial",
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
        teacher,
        head_width=options.head_width,
        seed=streams.integer(f"{stage}/heads"),
        temporal=options.video_heads,
    )
    losses = AdversarialLosses(student, discriminator, data, trajectories, options)
    heads = Phase(
        name="heads",
        trains=("discriminator",),
        loss=losses.heads,
        learning_rate_ratio=options.heads_rate_ratio,
        betas=options.betas,
    )
    generator = Phase(name="generator", trains=("denoiser",), loss=losses.generator, betas=options.betas)
    # Without the hinge term nobody asks the heads, so they are not trained.
    phases = [heads, generator] if options.adversarial_weight else [generator]
    own = {name: getattr(options, name) for name in AdversarialOptions.__slots__ if name != "loop"}
    details = {
        **own,
        "data": data.description,
        "trajectories": trajectories.fingerprint,
        "network": describe_structure(student.denoiser),
        "start": describe_weights(student.denoiser),
        "encoder": describe_weights(teacher.denoiser),
    }
    return run_stage(
        stage,
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


def _frames(shown: _Captioned, count: int, batch: Batch) -> _Captioned:
    """One random frame of each of the first ``count`` clips, as one-frame clips."""
    clips = as_images(shown.clips[:count], generator=batch.generator)
    return _Captioned(clips=clips, tokens=shown.tokens[:count], pooled=shown.pooled[:count])


def _mean(scores: list[Tensor]) -> Tensor:
    return torch.stack([score.mean() for score in scores]).mean()
