"""Stage 1: a multi-step teacher by flow matching on video and image batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from nas.core.protocols import SilentProgress
from nas.training.data import TrainingClips, drop_captions, fetch_jointly
from nas.training.loop import Batch, Phase
from nas.training.losses import flow_matching_loss
from nas.training.noise import add_noise, gaussian_like, logit_normal_times, velocity
from nas.training.sampling import predict_velocity
from nas.training.stage import Kit, StageResult, describe_structure, run_stage, trained_captions

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.models.caption import TextEncoder
    from nas.training.options import NoiseOptions, TeacherOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyBatch:
    """One batch ready for the denoiser: clips (B, T, C, H, W), times (B,) in 0-1 and text rows."""

    clean: Tensor
    noise: Tensor
    noisy: Tensor
    times: Tensor
    text: Tensor

    @property
    def target(self) -> Tensor:
        """The velocity e - x_0."""
        return velocity(self.clean, self.noise)


def draw_noisy(data: TrainingClips, batch: Batch, options: NoiseOptions, *, captions: TextEncoder) -> NoisyBatch:
    """Take a batch's clips (or single frames), drop captions and add noise at logit-normal times.

    ``captions`` says what the empty caption is.
    """
    generator = batch.generator
    clean, text = fetch_jointly(data, batch, image_ratio=options.image_ratio)
    text, empty = text.to(batch.device), captions.empty_text(len(text)).to(batch.device)
    text = drop_captions(text, empty=empty, ratio=options.text_dropout, generator=generator)
    times = logit_normal_times(len(clean), mean=options.time_mean, std=options.time_std, generator=generator)
    noise = gaussian_like(clean, generator=generator)
    clean, noise, times = (item.to(batch.device) for item in (clean, noise, times))
    return NoisyBatch(clean=clean, noise=noise, noisy=add_noise(clean, noise, times), times=times, text=text)


def train_teacher(
    kit: Kit,
    data: TrainingClips,
    *,
    options: TeacherOptions,
    folder: Path,
    streams: RandomStreams,
    metrics: Path | None = None,
    progress: Progress | None = None,
    stage: str = "teacher",
) -> StageResult:
    """Train ``kit.denoiser`` and ``kit.captions`` together, in place; resumable, returns at once when finished.

    L = E |v_theta(x_t, t, c) - (e - x_0)|^2 (TRAINING 3.1). ``stage`` renames the stage for other networks trained
    the same way, such as the plain student of a comparison.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The folder's files cannot be used.
    """
    captions = trained_captions(kit)

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = draw_noisy(data, batch, options.noise, captions=kit.captions)
        tokens = kit.captions(drawn.text).tokens
        return flow_matching_loss(predict_velocity(kit.denoiser, drawn.noisy, drawn.times, tokens), drawn.target), {}

    return run_stage(
        stage,
        kit=kit,
        folder=folder,
        metrics=metrics or folder.parent / "metrics.jsonl",
        options=options.loop,
        details={"noise": options.noise, "data": data.description, "network": describe_structure(kit.denoiser)},
        modules={"denoiser": kit.denoiser, **captions},
        phases=[Phase(name="denoiser", trains=("denoiser", *captions), loss=loss)],
        averaged=("denoiser", *captions),
        num_items=len(data),
        streams=streams,
        progress=progress or SilentProgress(),
    )
