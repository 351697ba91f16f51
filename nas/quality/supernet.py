"""Weight-sharing supernet: one spatial backbone, every kind of layer in every temporal slot, trained path by path.

Which paths a step trains is in ``nas.quality.paths``. A candidate is judged with the weights it inherits, so the score
says how well its layers did after few updates in varied company, not how it would do trained alone.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.core.protocols import SilentProgress
from nas.models.build import build_denoiser, build_temporal_layer
from nas.models.tensors import read_tensors, write_tensors
from nas.models.unet import VideoUNet, temporal_key
from nas.quality.paths import step_paths
from nas.training.codec import PatchCodec
from nas.training.distillation import copy_matching_weights
from nas.training.loop import Batch, Phase
from nas.training.losses import flow_matching_loss
from nas.training.sampling import predict_velocity
from nas.training.stage import WEIGHTS, Kit, StageResult, load_weights, make_kit, run_stage, trained_captions
from nas.training.teacher import draw_noisy
from search_spaces.layers import ATTENTIONS, temporal_spec
from search_spaces.workload import slot_setting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.core.workload import BlockSpec
    from nas.quality.options import Sharing, SupernetOptions
    from nas.training.data import TrainingClips
    from search_spaces.temporal import TemporalSpace


# Name of the weights that all kinds of attention share.
ATTENTION: Literal["attention"] = "attention"
# Options that decide the paths, for the fingerprint of the stage.
_PATH_OPTIONS = ("rule", "random_paths", "drop_ratio", "distillation_ratio", "layers", "backbone_steps")


class SlotLayers(nn.Module):
    """All options of one slot; ``active`` says which one runs, 0 is the empty slot.

    Options of a kind share the weights of its largest: a narrower one takes the first channels, a shorter kernel the
    middle frames, and heads divide the same channels (BigNAS, arXiv 2003.11142; heads as in AutoFormer, arXiv
    2107.00651). So a step trains all options of a kind, not one in four of them.

    Attention learns slower than convolution: after as many steps of each kind it lags behind what full training makes
    of it, and networks of convolutions rank too high. Where ``sharing`` is ``attention``, all kinds of attention share
    one set of weights (ours): along time as in space and time, and cross-attention is self-attention with a second part
    for the text. So every path with attention trains all of it, four times as often.

    Args:
        specs: The layer of each option; ``None`` for the empty slot.
        sharing: ``kind`` or ``attention``.
    """

    def __init__(self, specs: Sequence[BlockSpec | None], *, sharing: Sharing = "kind") -> None:
        super().__init__()
        self.active = 0
        # Forms without weights of their own, kept out of ``parameters()`` and ``state_dict()``.
        self._forms = {
            index: (_family(spec.kind, sharing), build_temporal_layer(spec))
            for index, spec in enumerate(specs)
            if spec is not None
        }
        largest: dict[str, tuple[int, BlockSpec]] = {}
        for index, (kind, form) in self._forms.items():
            size = sum(weight.numel() for weight in form.parameters())
            if size > largest.get(kind, (0, None))[0]:
                largest[kind] = (size, cast("BlockSpec", specs[index]))  # among attentions one with text: it has all
        self.kinds = nn.ModuleDict({kind: build_temporal_layer(spec) for kind, (_, spec) in largest.items()})

    def weights(self, option: int) -> dict[str, Tensor]:
        """Views of the shared weights that an option takes, by name in its own layer; none for the empty slot."""
        if option not in self._forms:
            return {}
        kind, form = self._forms[option]
        shared = dict(self.kinds[kind].named_parameters())
        return {name: _part(name, shared[name], weight.shape) for name, weight in form.named_parameters()}

    def forward(self, video: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        """Run the active option on ``video`` (B, T, C, H, W)."""
        if self.active not in self._forms:
            return video
        form = self._forms[self.active][1]
        fixed = {name: buffer.to(video.device) for name, buffer in form.named_buffers()}
        mixed: Tensor = functional_call(form, {**self.weights(self.active), **fixed}, (video, encoder_hidden_states))
        return mixed


def _family(kind: str, sharing: Sharing) -> str:
    return ATTENTION if sharing == "attention" and kind in ATTENTIONS else kind


def _part(name: str, shared: Tensor, shape: torch.Size) -> Tensor:
    """The part of a shared weight that a smaller layer takes."""
    if shared.shape == shape:
        return shared
    if ".ff.net.0.proj." in name:  # GEGLU holds values and gates one after the other
        values, gates = shared.chunk(2)
        half = torch.Size((shape[0] // 2, *shape[1:]))
        return torch.cat([_part("", values, half), _part("", gates, half)])
    for axis, size in enumerate(shape):
        first = 0 if axis < 2 else (shared.shape[axis] - size) // 2  # channels, then kernel
        shared = shared.narrow(axis, first, size)
    return shared


class Supernet(nn.Module):
    """Every architecture of a space in one network.

    Args:
        space: The search space; slots may have different numbers of options.
        sharing: See ``SlotLayers``.
    """

    def __init__(self, space: TemporalSpace, *, sharing: Sharing = "kind") -> None:
        super().__init__()
        self.space = space
        self.unet = build_denoiser(space, space.largest())
        layers = {slot: _slot_layers(space, slot, sharing) for slot in space.slots()}
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
        weights, mine = network.state_dict(), self.unet.state_dict()
        weights |= {name: mine[name] for name in weights if not name.startswith("temporal_layers.")}
        for slot, option in zip(self.space.slots(), options, strict=True):
            key = temporal_key(slot)
            layers = cast("SlotLayers", self.unet.temporal_layers[key])
            weights |= {f"temporal_layers.{key}.{name}": value for name, value in layers.weights(option).items()}
        network.load_state_dict(weights)
        return network

    def save_pretrained(self, folder: Path) -> None:
        """Write the weights where a stage expects its network's."""
        write_tensors(folder / WEIGHTS, self.state_dict(), metadata={"kind": "supernet"})


def make_supernet(space: TemporalSpace, *, seed: int, sharing: Sharing = "kind") -> Kit:
    """A fresh supernet of a space with a caption encoder and a codec that fit its backbone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = Supernet(space, sharing=sharing)
    backbone = space.backbone
    return make_kit(
        supernet,
        text_width=backbone.text_width,
        text_tokens=backbone.text_tokens,
        latent_channels=backbone.latent_channels,
        patch=backbone.latent_downsampling,
        seed=seed,
    )


def on_backbone(kit: Kit, backbone: Kit) -> Kit:
    """The supernet of ``make_supernet`` with the weights, captions and codec of a trained backbone; changed in place.

    Raises:
        ValueError: The backbone's weights are not all the supernet's.
    """
    unet = cast("Supernet", kit.denoiser).unet
    copied = copy_matching_weights(backbone.denoiser, unet)
    missing = set(backbone.denoiser.state_dict()) - set(copied)
    if missing:
        raise ValueError(f"the supernet has no weights {', '.join(sorted(missing)[:4])} of its backbone")
    return replace(backbone, denoiser=kit.denoiser, captions=copy.deepcopy(backbone.captions))


def load_supernet(space: TemporalSpace, folder: Path, *, seed: int) -> Kit:
    """A trained supernet from its stage folder; ``seed`` is the one it was made with.

    Raises:
        CheckpointError: A file is missing, damaged or of another space.
    """
    weights = folder / "denoiser" / WEIGHTS
    shared = any(f".{ATTENTION}." in name for name in read_tensors(weights)[0])
    kit = make_supernet(space, seed=seed, sharing=ATTENTION if shared else "kind")
    load_weights(kit.denoiser, weights)
    load_weights(kit.captions, folder / "caption_encoder.safetensors")
    kit = replace(kit, codec=PatchCodec.load(folder / "codec.safetensors"))  # a backbone brings its own
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
    captions = trained_captions(kit) if options.layers == "all" else {}
    trained: nn.Module = supernet if options.layers == "all" else supernet.unet.temporal_layers
    # Single frames have nothing to teach to temporal layers.
    noise = options.noise if options.layers == "all" else replace(options.noise, image_ratio=0.0)
    supernet.requires_grad_(False)

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        paths = step_paths(supernet.space, batch.step, options=options, streams=streams)
        drawn = draw_noisy(data, batch, noise, captions=kit.captions)
        if drawn.noisy.shape[1] == 1:  # temporal layers do not run on single frames, so that all paths are one
            paths = paths[:1]
        tokens = kit.captions(drawn.text).tokens
        predictions = []
        for path in paths:
            supernet.activate(path)
            predictions.append(predict_velocity(supernet, drawn.noisy, drawn.times, tokens))
        found = paths_loss(predictions, drawn.target, distillation_ratio=options.distillation_ratio)
        # A path of empty slots in a frozen backbone has no weight to train.
        return found if found.requires_grad else found + 0.0 * next(trained.parameters()).sum(), {}

    return run_stage(
        "supernet",
        kit=kit,
        folder=folder,
        metrics=metrics or folder.parent / "metrics.jsonl",
        options=options.loop,
        details={
            "noise": noise,
            "paths": [getattr(options, name) for name in _PATH_OPTIONS],
            "data": data.description,
            "space": supernet.space.identifier,
            **({} if options.sharing == "kind" else {"sharing": options.sharing}),
        },
        modules={"denoiser": trained, **captions},
        phases=[Phase(name="denoiser", trains=("denoiser", *captions), loss=loss)],
        averaged=("denoiser", *captions),
        num_items=len(data),
        streams=streams,
        progress=progress or SilentProgress(),
    )


def paths_loss(predictions: Sequence[Tensor], target: Tensor, *, distillation_ratio: float) -> Tensor:
    """Mean over paths of their flow-matching losses; all but the first learn in part from the first's output."""
    taught = torch.lerp(target, predictions[0].detach(), distillation_ratio)
    losses = [flow_matching_loss(one, taught if index else target) for index, one in enumerate(predictions)]
    return torch.stack(losses).mean()


def _slot_layers(space: TemporalSpace, slot: str, sharing: Sharing) -> SlotLayers:
    channels = space.backbone.slot_channels(slot)
    settings = [slot_setting(option, slot) for option in space.options(slot)]
    return SlotLayers(
        [temporal_spec(space.backbone, one, channels=channels, frames=1, height=1, width=1) for one in settings],
        sharing=sharing,
    )
