"""Teacher-feature alignment: how much of what a trained teacher's temporal layers do untrained layers can imitate."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from nas.core.evaluation import Quality
from nas.models.build import build_temporal_layer
from nas.models.unet import temporal_key
from nas.quality.held_out_loss import clip_losses, make_held_out_batch
from nas.quality.short_training import fresh_network
from nas.training.distillation import copy_matching_weights
from nas.training.noise import TIME_SCALE
from nas.training.options import NoiseOptions, TeacherOptions
from nas.training.teacher import train_teacher
from search_spaces.layers import temporal_spec
from search_spaces.workload import slot_setting

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.models.unet import VideoUNet
    from nas.quality.held_out_loss import HeldOutBatch
    from nas.quality.short_training import SharedStart
    from nas.training.options import LoopOptions
    from search_spaces.temporal import TemporalSpace

# Of the mean square of the features; keeps the fit from following noise where a layer has more features than needed.
_RIDGE = 1e-3


class FeatureAlignment:
    """Judges candidates slot by slot against a trained teacher; PROXY, meets ``QualityEstimator``.

    In every slot the teacher's layer turns video x into x + r. A candidate's layer, untrained, is given the teacher's
    x; its last projection alone is fitted to r by ridge regression on half of the clips. The share of r's power that it
    explains on the other half is its alignment, 0 for an empty slot. The score is the sum of alignments, each times
    what removing the teacher's layer costs the teacher in held-out loss.

    Blockwise against a teacher's features as in DNA (Li et al. 2020, arXiv 1911.13053), whose blocks are trained;
    fitting nothing but a readout of random features is ours (random features: Rahimi & Recht 2007). So a layer is
    credited with what its form can express, not with what its inner weights could learn.

    Args:
        space: What candidates are of.
        teacher: A trained network with a layer in every slot.
        batch: Clips to compare on.
        seed: Of fresh weights.
    """

    name = "feature_alignment (proxy)"

    def __init__(self, space: TemporalSpace, teacher: VideoUNet, batch: HeldOutBatch, *, seed: int = 0) -> None:
        self._space = space
        self._seed = seed
        self._tokens = batch.tokens
        self._videos = layer_videos(teacher, batch)
        missing = [slot for slot in space.slots() if slot not in self._videos]
        if missing:
            raise ValueError(f"the teacher needs a temporal layer in every slot, it has none in {', '.join(missing)}")
        whole = float(clip_losses(teacher, batch).mean())
        self.worth = {slot: max(0.0, removal_loss(teacher, slot, batch) - whole) for slot in space.slots()}
        self._known: dict[tuple[str, int], float] = {}
        self.fidelity = f"untrained layers fitted to a teacher on {batch.num_clips} clips"

    def estimate(self, architecture: Architecture) -> Quality:
        """Alignment of one candidate; deterministic, hence no standard error."""
        options = dict(zip(self._space.slots(), self._space.to_options(architecture), strict=True))
        aligned = {slot: self.alignment(slot, option) for slot, option in options.items()}
        return Quality(
            score=sum(self.worth[slot] * share for slot, share in aligned.items()),
            estimator=self.name,
            fidelity=self.fidelity,
            metrics=tuple((f"alignment_of_{slot}", share) for slot, share in aligned.items()),
            origin="proxy",
        )

    def alignment(self, slot: str, option: int) -> float:
        """Share (0-1) of the teacher's change in a slot that an option's untrained layer can express."""
        if (slot, option) not in self._known:
            layer = self._layer(slot, option)
            self._known[slot, option] = 0.0 if layer is None else self._explained(slot, layer)
        return self._known[slot, option]

    def _layer(self, slot: str, option: int) -> nn.Module | None:
        backbone = self._space.backbone
        setting = slot_setting(self._space.options(slot)[option], slot)
        channels = backbone.slot_channels(slot)
        spec = temporal_spec(backbone, setting, channels=channels, frames=1, height=1, width=1)
        if spec is None:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return build_temporal_layer(spec)

    @torch.no_grad()
    def _explained(self, slot: str, layer: nn.Module) -> float:
        before, after = self._videos[slot]
        features = _readout_inputs(layer, before, self._tokens)
        wanted = _rows(after - before)
        half = len(features) // 2
        weights = _ridge(features[:half], wanted[:half])
        left = _with_one(features[half:]) @ weights - wanted[half:]
        return max(0.0, 1.0 - float(left.square().sum() / wanted[half:].square().sum().clamp_min(1e-12)))


def alignment_to_largest(
    space: TemporalSpace,
    start: SharedStart,
    *,
    loop: LoopOptions,
    folder: Path,
    streams: RandomStreams,
    progress: Progress | None = None,
) -> FeatureAlignment:
    """The alignment to the largest network, trained on from the backbone in ``folder``, or read from there.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The folder's files cannot be used.
    """
    network = fresh_network(space, space.largest(), seed=start.seed)
    copy_matching_weights(start.kit.denoiser, network)
    kit = replace(start.kit, denoiser=network, captions=copy.deepcopy(start.kit.captions))
    result = train_teacher(
        kit,
        start.data,
        options=TeacherOptions(loop=loop, noise=NoiseOptions(image_ratio=0.0)),
        folder=folder,
        streams=streams,
        progress=progress,
        stage="alignment_teacher",
    )
    batch = make_held_out_batch(start.held_out, result.kit.captions, seed=start.seed)
    return FeatureAlignment(space, cast("VideoUNet", result.kit.denoiser), batch, seed=start.seed)


@torch.no_grad()
def layer_videos(network: VideoUNet, batch: HeldOutBatch) -> dict[str, tuple[Tensor, Tensor]]:
    """What enters and what leaves every temporal layer (B, T, C, H, W), by slot."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    handles = []
    for slot in network.spec.slots:
        layer = network.temporal_layer(slot)
        if layer is not None:
            keep = lambda _module, inputs, output, slot=slot: found.update({slot: (inputs[0], output)})  # noqa: E731
            handles.append(layer.register_forward_hook(keep))
    try:
        network(batch.noisy, batch.times * TIME_SCALE, batch.tokens)
    finally:
        for handle in handles:
            handle.remove()
    return found


def removal_loss(network: VideoUNet, slot: str, batch: HeldOutBatch) -> float:
    """Held-out loss of a network without the temporal layer of one slot."""
    key = temporal_key(slot)
    layer = network.temporal_layers[key]
    del network.temporal_layers[key]
    try:
        return float(clip_losses(network, batch).mean())
    finally:
        network.temporal_layers[key] = layer


def _readout_inputs(layer: nn.Module, video: Tensor, tokens: Tensor) -> Tensor:
    """What enters the layer's last projection, one row a place: (B*T*H*W, inner)."""
    seen: list[Tensor] = []
    readout = cast("nn.Module", layer.proj_out)
    handle = readout.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        layer(video, tokens)
    finally:
        handle.remove()
    batch, frames, _, height, width = video.shape
    hidden = seen[0]
    if isinstance(readout, nn.Linear):  # attention: rows of tokens, pixels before frames or after them
        if layer.joint:
            return hidden.reshape(batch * frames * height * width, -1)
        return hidden.reshape(batch, height * width, frames, -1).transpose(1, 2).reshape(-1, hidden.shape[-1])
    hidden = hidden.reshape(batch, -1, frames, height * width)  # convolution: (B, inner, T, ...)
    return hidden.permute(0, 2, 3, 1).reshape(-1, hidden.shape[1])


def _rows(video: Tensor) -> Tensor:
    """Channels of every place: (B*T*H*W, C)."""
    return video.permute(0, 1, 3, 4, 2).reshape(-1, video.shape[2]).double()


def _ridge(features: Tensor, wanted: Tensor) -> Tensor:
    inputs = _with_one(features)
    gram = inputs.T @ inputs
    gram.diagonal().add_(_RIDGE * float(gram.diagonal().mean()))
    return torch.linalg.solve(gram, inputs.T @ wanted)


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
