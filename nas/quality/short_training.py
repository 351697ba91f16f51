"""Quality by short training: every candidate is trained alone for some steps and judged on held-out clips.

All candidates start from one trained network, as SnapGen-V starts from a finished image model: the backbone without
temporal layers; or a teacher, from which they are then distilled; or a supernet, whose weights each inherits and trains
on. They see the same clips in the same order with the same noise. So two scores differ by their temporal layers and not
by the luck of the draw. Nothing else is shared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from nas.core.evaluation import Quality
from nas.core.protocols import SilentProgress
from nas.core.rng import RandomStreams
from nas.models.build import build_denoiser
from nas.quality.held_out_loss import clip_losses, make_held_out_batch
from nas.quality.options import MOTION_TIMES
from nas.quality.supernet import Supernet
from nas.training.data import TrainingClips, make_latent_clips
from nas.training.distillation import copy_matching_weights, distil
from nas.training.loop import Batch, Phase, TrainingRun
from nas.training.losses import flow_matching_loss
from nas.training.options import DistillationOptions, LoopOptions, NoiseOptions, TeacherOptions
from nas.training.sampling import predict_velocity
from nas.training.stage import Kit, make_kit
from nas.training.teacher import draw_noisy, train_teacher

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.core.architecture import Architecture
    from nas.core.protocols import Progress
    from nas.models.unet import VideoUNet
    from nas.quality.options import Layers, ShortTrainingOptions
    from search_spaces.temporal import TemporalSpace

# Single frames teach nothing about time, and the start has seen them.
_NOISE = NoiseOptions(image_ratio=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStart:
    """What all candidates share.

    Attributes:
        kit: The trained network they start from, with its captions and codec; of a supernet each candidate inherits its
            own path.
        is_teacher: Whether they are distilled from it.
        data: Clips to learn from.
        held_out: Clips to be judged on.
        seed: Of fresh weights, order and noise.
    """

    kit: Kit
    is_teacher: bool
    data: TrainingClips
    held_out: TrainingClips
    seed: int


class ShortTraining:
    """Judges a candidate by its held-out loss after a short training of its own; meets ``QualityEstimator``.

    The score is minus the mean flow-matching loss over fixed held-out clips, noise and times: deterministic in the
    architecture and the seed. Its standard error is that of the mean difference from the start over the same clips,
    because what makes a clip hard is the same for all candidates; it says nothing of how another seed would train.

    Args:
        space: What candidates are of.
        start: What they share.
        loop: Steps, batch size and rates of one candidate.
        layers: Train ``all`` weights or the ``temporal`` layers alone, in a frozen backbone as SnapGen-V's search does
            (METHODS 1b): a few steps then cannot spoil what the backbone knows. A teacher's students train all.
    """

    name = "short_training"

    def __init__(self, space: TemporalSpace, start: SharedStart, loop: LoopOptions, *, layers: Layers = "all") -> None:
        if start.is_teacher and layers != "all":
            raise ValueError("students of a teacher train all layers")
        self._space = space
        self._layers = layers
        self._start = start
        self._loop = loop
        self._batch = make_held_out_batch(start.held_out, start.kit.captions, seed=start.seed)
        if isinstance(start.kit.denoiser, Supernet):
            start.kit.denoiser.activate(space.to_options(space.smallest()))
        self._before = clip_losses(start.kit.denoiser, self._batch).mean(dim=0).double()
        how = "distilled" if start.is_teacher else "from inherited weights" if self._inherits else "alone"
        times = f"{len(start.held_out)} held-out clips at {len(MOTION_TIMES)} times"
        which = "" if layers == "all" else "of temporal layers "
        self.fidelity = f"{loop.steps} steps {which}{how}, {times}"

    def estimate(self, architecture: Architecture) -> Quality:
        """Train and judge one candidate.

        Raises:
            TrainingError: Its loss is not finite.
        """
        losses = clip_losses(self.trained(architecture), self._batch)
        by_clip = losses.mean(dim=0).double()
        by_time = tuple(
            (f"loss_at_{time:g}", float(loss)) for time, loss in zip(MOTION_TIMES, losses.mean(dim=1), strict=True)
        )
        gained = self._before - by_clip
        return Quality(
            score=-float(by_clip.mean()),
            standard_error=float(gained.std()) / math.sqrt(len(gained)),
            estimator=self.name,
            fidelity=self.fidelity,
            metrics=(("held_out_loss", float(by_clip.mean())), *by_time),
        )

    @property
    def _inherits(self) -> bool:
        return isinstance(self._start.kit.denoiser, Supernet)

    def trained(self, architecture: Architecture) -> VideoUNet:
        """Return one candidate's network after its training.

        Raises:
            TrainingError: Its loss is not finite.
        """
        start, streams = self._start, RandomStreams(self._start.seed)
        if isinstance(start.kit.denoiser, Supernet):
            denoiser = start.kit.denoiser.extract(architecture)
        else:
            denoiser = fresh_network(self._space, architecture, seed=start.seed)
        with TemporaryDirectory() as place:
            if start.is_teacher:
                distil(
                    start.kit.with_denoiser(denoiser),
                    start.kit,
                    start.data,
                    options=DistillationOptions(loop=self._loop, noise=_NOISE),
                    folder=Path(place) / "candidate",
                    streams=streams,
                )
            else:
                if not self._inherits:
                    copy_matching_weights(start.kit.denoiser, denoiser)
                trained = denoiser if self._layers == "all" else denoiser.temporal_layers
                if any(True for _ in trained.parameters()):
                    _train(denoiser, trained, start, loop=self._loop, folder=Path(place), streams=streams)
        return denoiser


def trained_start(
    space: TemporalSpace,
    options: ShortTrainingOptions,
    *,
    folder: Path,
    streams: RandomStreams,
    progress: Progress | None = None,
) -> SharedStart:
    """Train the backbone without temporal layers in ``folder``, or read it from there, and make the clips.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The folder's files cannot be used.
    """
    seed, backbone = streams.integer("short_training"), space.backbone
    kit = make_kit(
        fresh_network(space, space.smallest(), seed=seed),
        text_width=backbone.text_width,
        text_tokens=backbone.text_tokens,
        latent_channels=backbone.latent_channels,
        patch=backbone.latent_downsampling,
        seed=seed,
    )
    data = make_latent_clips(options.clips, codec=kit.own_codec, captions=kit.captions, seed=streams.seed)
    result = train_teacher(
        kit,
        data,
        options=TeacherOptions(loop=options.backbone),
        folder=folder,
        streams=streams,
        progress=progress or SilentProgress(),
        stage="backbone",
    )
    return shared_start(result.kit, options, data=data, seed=seed)


def shared_start(
    kit: Kit, options: ShortTrainingOptions, *, data: TrainingClips, seed: int, is_teacher: bool = False
) -> SharedStart:
    """Return a trained network as the start of every candidate, with held-out clips made here."""
    held_out = make_latent_clips(
        options.held_out_clips, codec=kit.own_codec, captions=kit.captions, seed=seed, split="held_out"
    )
    for module in (kit.denoiser, kit.captions):
        module.requires_grad_(False).eval()
    return SharedStart(kit=kit, is_teacher=is_teacher, data=data, held_out=held_out, seed=seed)


def fresh_network(space: TemporalSpace, architecture: Architecture, *, seed: int) -> VideoUNet:
    """Return an untrained network; equal seeds give equal weights, whatever else was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_denoiser(space, architecture)


def _train(
    denoiser: VideoUNet,
    trained: nn.Module,
    start: SharedStart,
    *,
    loop: LoopOptions,
    folder: Path,
    streams: RandomStreams,
) -> None:
    """Train ``trained``, a part of the network or all of it, by flow matching, in place."""
    denoiser.requires_grad_(False)

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = draw_noisy(start.data, batch, _NOISE, captions=start.kit.captions)
        with torch.no_grad():
            tokens = start.kit.captions(drawn.text).tokens
        return flow_matching_loss(predict_velocity(denoiser, drawn.noisy, drawn.times, tokens), drawn.target), {}

    run = TrainingRun(
        stage="short_training",
        folder=folder,
        metrics=folder / "metrics.jsonl",
        options=loop,
        modules={"denoiser": trained},
        phases=[Phase(name="denoiser", trains=("denoiser",), loss=loss)],
        averaged=("denoiser",),
        num_items=len(start.data),
        streams=streams,
        fingerprint="",
    )
    run.run(SilentProgress())
    run.use_averages()
