"""Networks and clips of a pruning: the source with its weights, and what measures removals from it.

Only ``nas prune`` without given scores imports this; torch itself is imported inside the function that uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.errors import InputError
from nas.models.pruned import build_source
from nas.models.weights import load_image_weights
from nas.training.data import LatentClips, TrainingClips, make_latent_clips
from nas.training.held_out import ClipRange
from nas.training.importance import RemovalLoss
from nas.training.shards import ShardedClips
from nas.training.stage import Kit, describe_weights, fingerprint_of, make_kit
from nas.training.teacher import train_teacher

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.config.prune import ProceduralImages, PruneConfig
    from nas.config.train import ShardsData
    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.models.unet import VideoUNet
    from search_spaces.pruning import SourceUNet


def source_material(
    config: PruneConfig,
    folder: Path,
    source: SourceUNet,
    streams: RandomStreams,
    *,
    progress: Callable[[str], Progress],
) -> tuple[Kit, TrainingClips, TrainingClips]:
    """The whole network with its weights, clips to train on, and held-out clips.

    Raises:
        CheckpointError: The weights do not fit.
        InputError: The shards are damaged, too few, or of other shapes than the network takes.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.integer("source"))
        network = build_source(source)
    if config.source.weights is not None:
        load_image_weights(network, Path(config.source.weights))
    if config.data.type == "shards":
        return _with_shards(config.data, source, network)
    return _with_procedural(config, config.data, folder, source, network, streams, progress=progress)


def _with_shards(section: ShardsData, source: SourceUNet, network: VideoUNet) -> tuple[Kit, ClipRange, ClipRange]:
    clips = ShardedClips(Path(section.path))
    frames, _, height, width = clips.latent_shape
    shape = (frames, source.latent_channels, height, width)
    clips.require(latent_shape=shape, text_width=source.text_width, network=source.name)
    if len(clips) <= section.held_out:
        raise InputError(
            f"{section.path}: holds {len(clips)} clips, and data.held_out keeps {section.held_out} of them back",
            hint="encode more clips, or lower data.held_out",
        )
    border = len(clips) - section.held_out
    kit = Kit(denoiser=network, captions=clips.captions(), codec=None, latent_shape=shape)
    return kit, ClipRange(clips=clips, first=0, end=border), ClipRange(clips=clips, first=border, end=len(clips))


def _with_procedural(
    config: PruneConfig,
    section: ProceduralImages,
    folder: Path,
    source: SourceUNet,
    network: VideoUNet,
    streams: RandomStreams,
    *,
    progress: Callable[[str], Progress],
) -> tuple[Kit, LatentClips, LatentClips]:
    kit = make_kit(
        network,
        text_width=source.text_width,
        text_tokens=source.text_tokens,
        latent_channels=source.latent_channels,
        patch=source.latent_downsampling,
        seed=streams.integer("kit"),
    )
    seed, codec = config.run.seed, kit.own_codec
    data = make_latent_clips(section.clips, codec=codec, captions=kit.captions, seed=seed)
    held_out = make_latent_clips(section.held_out, codec=codec, captions=kit.captions, seed=seed, split="held_out")
    train_teacher(
        kit,
        data,
        options=config.teacher,
        folder=folder / "teacher",
        streams=streams,
        metrics=folder / "metrics.jsonl",
        progress=progress("teacher"),
    )
    return kit, data, held_out


def removal_loss(
    config: PruneConfig,
    folder: Path,
    source: SourceUNet,
    teacher: Kit,
    network: VideoUNet,
    held_out: TrainingClips,
    streams: RandomStreams,
) -> RemovalLoss:
    """Measures removals from ``network`` on held-out images; what was measured before is in ``removals.jsonl``."""
    fingerprint = fingerprint_of(
        teacher=describe_weights(teacher.denoiser),
        network=describe_weights(network),
        data=held_out.description,
        options=config.importance,
        noise=config.robust.noise,
        seed=streams.seed,
    )
    return RemovalLoss(
        network,
        teacher,
        source,
        held_out,
        options=config.importance,
        noise=config.robust.noise,
        streams=streams,
        journal=folder / "removals.jsonl",
        fingerprint=fingerprint,
    )
