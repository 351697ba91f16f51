"""Weight-sharing supernet: one spatial backbone, every option of every temporal slot, trained once, one path a step.

Paths are drawn fairly: over as many steps as a slot has options, each option is trained exactly once (strict fairness,
FairNAS, arXiv 1907.01845), slots independently of one another. A candidate is judged with the weights it inherits, so
the score says how well its layers did after few updates in varied company, not how it would do trained alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from nas.core.protocols import SilentProgress
from nas.models.build import build_denoiser, build_temporal_layer
from nas.models.tensors import write_tensors
from nas.models.unet import VideoUNet, temporal_key
from nas.training.loop import Batch, Phase
from nas.training.losses import flow_matching_loss
from nas.training.sampling import predict_velocity
from nas.training.stage import WEIGHTS, Kit, StageResult, load_weights, make_kit, run_stage, trained_captions
from nas.training.teacher import draw_noisy
from search_spaces.layers import temporal_spec
from search_spaces.workload import slot_setting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.quality.options import SupernetOptions
    from nas.training.data import TrainingClips
    from search_spaces.temporal import TemporalSpace


class SlotLayers(nn.Module):
    """All options of one slot; ``active`` says which one runs, 0 is the empty slot.

    Args:
        layers: The layer of each option; ``None`` for the empty slot.
    """

    def __init__(self, layers: Sequence[nn.Module | None]) -> None:
        super().__init__()
        self.options = nn.ModuleDict({str(index): layer for index, layer in enumerate(layers) if layer is not None})
        self.active = 0

    def forward(self, video: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        """Run the active option on ``video`` (B, T, C, H, W)."""
        if str(self.active) not in self.options:
            return video
        mixed: Tensor = self.options[str(self.active)](video, encoder_hidden_states)
        return mixed


class Supernet(nn.Module):
    """Every architecture of a space in one network.

    Args:
        space: The search space; slots may have different numbers of options.
    """

    def __init__(self, space: TemporalSpace) -> None:
        super().__init__()
        self.space = space
        self.unet = build_denoiser(space, space.largest())
        layers = {slot: _slot_layers(space, slot) for slot in space.slots()}
        self.unet.temporal_layers = nn.ModuleDict({temporal_key(slot): layer for slot, layer in layers.items()})

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Velocity of the active path; arguments of ``VideoUNet.forward``."""
        predicted: Tensor = self.unet(sample, timestep, encoder_hidden_states)
        return predicted

    def activate(self, options: Sequence[int]) -> None:
        """Choose the path: one option index a slot."""
        for slot, option in zip(self.space.slots(), options, strict=True):
            cast("SlotLayers", self.unet.temporal_layers[temporal_key(slot)]).active = option

    def extract(self, architecture: Architecture) -> VideoUNet:
        """Build an architecture's own network with the weights it has in the supernet; a copy."""
        network = build_denoiser(self.space, architecture)
        options = self.space.to_options(architecture)
        mine = self.unet.state_dict()
        names = {}
        for slot, option in zip(self.space.slots(), options, strict=True):
            key = temporal_key(slot)
            names[f"temporal_layers.{key}."] = f"temporal_layers.{key}.options.{option}."
        weights = {}
        for name in network.state_dict():
            prefix = next((start for start in names if name.startswith(start)), "")
            weights[name] = mine[names.get(prefix, "") + name.removeprefix(prefix)]
        network.load_state_dict(weights)
        return network

    def save_pretrained(self, folder: Path) -> None:
        """Write the weights where a stage expects its network's."""
        write_tensors(folder / WEIGHTS, self.state_dict(), metadata={"kind": "supernet"})


def make_supernet(space: TemporalSpace, *, seed: int) -> Kit:
    """A fresh supernet of a space with a caption encoder and a codec that fit its backbone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = Supernet(space)
    backbone = space.backbone
    return make_kit(
        supernet,
        text_width=backbone.text_width,
        text_tokens=backbone.text_tokens,
        latent_channels=backbone.latent_channels,
        patch=backbone.latent_downsampling,
        seed=seed,
    )


def load_supernet(space: TemporalSpace, folder: Path, *, seed: int) -> Kit:
    """A trained supernet from its stage folder; ``seed`` is the one it was made with.

    Raises:
        CheckpointError: A file is missing, damaged or of another space.
    """
    kit = make_supernet(space, seed=seed)
    load_weights(kit.denoiser, folder / "denoiser" / WEIGHTS)
    load_weights(kit.captions, folder / "caption_encoder.safetensors")
    kit.denoiser.requires_grad_(False).eval()
    kit.captions.requires_grad_(False).eval()
    return kit


def train_supernet(
    kit: Kit,
    data: TrainingClips,
    *,
    options: SupernetOptions,
    folder: Path,
    streams: RandomStreams,
    metrics: Path | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Train the supernet of ``make_supernet`` by flow matching, in place; resumable, returns at once when finished.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The folder's files cannot be used.
    """
    supernet = kit.denoiser
    if not isinstance(supernet, Supernet):
        raise TypeError(f"train_supernet needs a Supernet, got {type(supernet).__name__}")
    captions = trained_captions(kit)

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        supernet.activate(fair_path(supernet.space, batch.step, streams=streams))
        drawn = draw_noisy(data, batch, options.noise, captions=kit.captions)
        tokens = kit.captions(drawn.text).tokens
        return flow_matching_loss(predict_velocity(supernet, drawn.noisy, drawn.times, tokens), drawn.target), {}

    return run_stage(
        "supernet",
        kit=kit,
        folder=folder,
        metrics=metrics or folder.parent / "metrics.jsonl",
        options=options.loop,
        details={"noise": options.noise, "data": data.description, "space": supernet.space.identifier},
        modules={"denoiser": supernet, **captions},
        phases=[Phase(name="denoiser", trains=("denoiser", *captions), loss=loss)],
        averaged=("denoiser", *captions),
        num_items=len(data),
        streams=streams,
        progress=progress or SilentProgress(),
    )


def fair_path(space: TemporalSpace, step: int, *, streams: RandomStreams) -> tuple[int, ...]:
    """Options of step ``step``: every slot walks through a fresh random order of its options, again and again."""
    path = []
    for slot in space.slots():
        count = len(space.options(slot))
        order = streams.numpy(f"supernet/path/{slot}", step // count).permutation(count)
        path.append(int(order[step % count]))
    return tuple(path)


def _slot_layers(space: TemporalSpace, slot: str) -> SlotLayers:
    channels = space.backbone.slot_channels(slot)
    layers: list[nn.Module | None] = []
    for option in space.options(slot):
        setting = slot_setting(option, slot)
        spec = temporal_spec(space.backbone, setting, channels=channels, frames=1, height=1, width=1)
        layers.append(None if spec is None else build_temporal_layer(spec))
    return SlotLayers(layers)
