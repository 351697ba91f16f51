"""A stage's folder: the trained network with its caption encoder and codec, and ``stage.json``, written last."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from nas.core.errors import CheckpointError, InputError
from nas.core.files import canonical_json, read_json, sha256_text, write_json
from nas.core.schema import check_schema, to_data, with_schema
from nas.models.caption import CaptionEncoder, TextEncoder, load_text_encoder
from nas.models.tensors import read_tensors
from nas.training.acceleration import training_device
from nas.training.clips import CLIP_FRAMES, CLIP_SIZE, VOCABULARY
from nas.training.codec import PatchCodec, fit_codec
from nas.training.compatibility import require_weights_fit
from nas.training.loop import Phase, TrainingRun
from nas.training.processes import is_main, join_processes, num_processes, wait_for_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusers.models.modeling_utils import ModelMixin

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.training.options import LoopOptions

WEIGHTS = "diffusion_pytorch_model.safetensors"  # diffusers' name
CODEC = "codec.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What is trained and sampled together: a denoiser, its captions and its codec.

    ``latent_shape`` is (T, C, H, W) of one clip. ``codec`` is None where latents come from elsewhere: such clips are
    trained on, but not shown or judged here.
    """

    denoiser: nn.Module
    captions: TextEncoder
    codec: PatchCodec | None
    latent_shape: tuple[int, int, int, int]

    @property
    def clip_size(self) -> int:
        """Height of a clip in pixels."""
        return self.latent_shape[2] * self.own_codec.patch

    @property
    def own_codec(self) -> PatchCodec:
        """The codec where there must be one.

        Raises:
            ValueError: There is none.
        """
        if self.codec is None:
            raise ValueError("latents that were made elsewhere cannot be turned into clips: the kit has no codec")
        return self.codec

    def with_clips(self, *, frames: int, size: int) -> Kit:
        """The same networks and codec for clips of ``frames`` frames of ``size`` x ``size`` pixels."""
        channels, side = self.latent_shape[1], size // self.own_codec.patch
        return replace(self, latent_shape=(frames, channels, side, side))

    def to(self, device: torch.device) -> Kit:
        """Move networks and captions, in place; returns itself."""
        self.denoiser.to(device)
        cast("nn.Module", self.captions).to(device)
        return self

    def with_denoiser(self, denoiser: nn.Module) -> Kit:
        """The same captions and codec around another network."""
        return replace(self, denoiser=denoiser)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """A finished stage; ``kit.denoiser`` holds the averaged weights, in eval mode.

    ``seconds`` is the wall time of the training, summed over interruptions only as far as the last run knows.
    ``reused`` says that the folder already held the finished stage.
    """

    stage: str
    folder: Path
    kit: Kit
    steps: int
    loss: float
    seconds: float
    reused: bool


def make_kit(
    denoiser: nn.Module, *, text_width: int, text_tokens: int, latent_channels: int, patch: int, seed: int
) -> Kit:
    """A fresh caption encoder and a fitted codec around a network of the toy task.

    Args:
        denoiser: The network.
        text_width: The backbone's.
        text_tokens: The backbone's.
        latent_channels: The backbone's.
        patch: Pixels per latent cell, the backbone's ``latent_downsampling``.
        seed: Seed of the encoder's weights and the codec's clips.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        captions = CaptionEncoder(vocabulary=VOCABULARY, width=text_width, num_tokens=text_tokens)
    codec = fit_codec(patch=patch, channels=latent_channels, seed=seed)
    shape = (CLIP_FRAMES, latent_channels, CLIP_SIZE // patch, CLIP_SIZE // patch)
    return Kit(denoiser=denoiser, captions=captions, codec=codec, latent_shape=shape)


def trained_captions(kit: Kit) -> dict[str, nn.Module]:
    """The caption encoder as a module to train, none if it has no weights."""
    captions = cast("nn.Module", kit.captions)
    return {"captions": captions} if any(True for _ in captions.parameters()) else {}


def fingerprint_of(**parts: Any) -> str:
    """Digest of everything that decides a stage's outcome: options, seed, data, network."""
    return sha256_text(canonical_json(to_data(parts)))


def describe_structure(module: nn.Module) -> str:
    """Digest of a module's weight names and shapes; for networks about to be trained."""
    rows = [(name, list(value.shape)) for name, value in module.state_dict().items()]
    return sha256_text(canonical_json(rows))[:16]


def describe_weights(module: nn.Module) -> str:
    """Digest of a module's weights; for frozen networks that a stage learns from."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + b"\0")
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def run_stage(
    stage: str,
    *,
    kit: Kit,
    folder: Path,
    metrics: Path,
    options: LoopOptions,
    details: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    phases: Sequence[Phase],
    averaged: Sequence[str],
    num_items: int,
    streams: RandomStreams,
    progress: Progress,
) -> StageResult:
    """Train a stage in ``folder``, go on with it, or return it at once when it is finished.

    ``modules`` must hold ``kit.denoiser`` as ``denoiser``; ``captions`` as ``captions`` where a phase trains it.
    ``details`` are the stage's further options, for the fingerprint and ``stage.json``.

    Raises:
        TrainingError: See ``TrainingRun.run``.
        CheckpointError: The folder holds a stage or checkpoint that cannot be read or belongs to another run.
    """
    join_processes()
    kit.to(training_device())
    decides = {"loop": options.outcome(), **to_data(details)}
    fingerprint = fingerprint_of(stage=stage, options=decides, seed=streams.seed, modules=sorted(modules))
    if (folder / "stage.json").exists():
        return _finished(stage, kit=kit, folder=folder, fingerprint=fingerprint)
    began = time.perf_counter()
    run = TrainingRun(
        stage=stage,
        folder=folder,
        metrics=metrics,
        options=options,
        modules=modules,
        phases=phases,
        averaged=averaged,
        num_items=num_items,
        streams=streams,
        fingerprint=fingerprint,
        events=metrics.parent / "tensorboard" / stage,
    )
    run.run(progress)
    run.use_averages()
    seconds = time.perf_counter() - began
    body = {
        "stage": stage,
        "steps": run.step,
        "loss": run.last_loss,
        "seconds": seconds,
        "steps_per_s": run.steps_per_s,
        "processes": num_processes(),
        "seed": streams.seed,
        "fingerprint": fingerprint,
        "options": {**to_data(details), "loop": to_data(options)},
    }
    if is_main():
        save_kit(folder, kit)
        write_json(folder / "stage.json", with_schema("training_stage", 1, body))
    wait_for_all()
    for module in modules.values():
        module.requires_grad_(False)
        module.eval()
    return StageResult(
        stage=stage, folder=folder, kit=kit, steps=run.step, loss=run.last_loss, seconds=seconds, reused=False
    )


def save_kit(folder: Path, kit: Kit) -> None:
    """Write ``denoiser/`` (diffusers layout), ``caption_encoder.safetensors``, the codec and ``kit.json``."""
    cast("ModelMixin", kit.denoiser).save_pretrained(folder / "denoiser")
    kit.captions.save(folder / "caption_encoder.safetensors")
    if kit.codec is not None:
        kit.codec.save(folder / CODEC)
    write_json(folder / "kit.json", with_schema("kit", 1, {"latent_shape": list(kit.latent_shape)}))


def load_kit(folder: Path) -> Kit:
    """Read what ``save_kit`` wrote, everything rebuilt from the folder.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    from nas.models.unet import VideoUNet

    captions = load_text_encoder(folder / "caption_encoder.safetensors")
    shape = _latent_shape(folder)
    codec = PatchCodec.load(folder / CODEC) if (folder / CODEC).exists() else None
    read_tensors(folder / "denoiser" / WEIGHTS)  # names the file when it is damaged
    try:
        denoiser = VideoUNet.from_pretrained(folder / "denoiser", use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{folder / 'denoiser'}: cannot be read: {error}") from error
    denoiser.eval().requires_grad_(False)
    return Kit(denoiser=denoiser, captions=captions.eval(), codec=codec, latent_shape=shape)


def _latent_shape(folder: Path) -> tuple[int, int, int, int]:
    path = folder / "kit.json"
    try:
        frames, channels, height, width = check_schema(read_json(path), "kit", 1, where=str(path))["latent_shape"]
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}", hint="give the folder of a finished stage") from error
    return int(frames), int(channels), int(height), int(width)


def load_weights(module: nn.Module | TextEncoder, path: Path) -> None:
    """Load a safetensors file into a module.

    Raises:
        CheckpointError: The file is damaged or belongs to another network.
    """
    module = cast("nn.Module", module)
    tensors, _ = read_tensors(path)
    require_weights_fit(tensors, module.state_dict(), what=str(path))
    module.load_state_dict(tensors)


def _finished(stage: str, *, kit: Kit, folder: Path, fingerprint: str) -> StageResult:
    path = folder / "stage.json"
    try:
        body = check_schema(read_json(path), "training_stage", 1, where=str(path))
        found, steps, loss, seconds = body["fingerprint"], int(body["steps"]), float(body["loss"]), body["seconds"]
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}", hint="remove the folder to train afresh") from error
    if found != fingerprint:
        weights = folder / "denoiser" / WEIGHTS
        require_weights_fit(read_tensors(weights)[0], kit.denoiser.state_dict(), what=str(weights))
        raise CheckpointError(
            f"{path}: holds stage {body.get('stage')!r} trained with other options, network, data or seed",
            hint="choose another folder, or remove this one to train afresh",
        )
    load_weights(kit.denoiser, folder / "denoiser" / WEIGHTS)
    load_weights(kit.captions, folder / "caption_encoder.safetensors")
    for module in (kit.denoiser, kit.captions):
        module.requires_grad_(False)
        module.eval()
    return StageResult(stage=stage, folder=folder, kit=kit, steps=steps, loss=loss, seconds=float(seconds), reused=True)
