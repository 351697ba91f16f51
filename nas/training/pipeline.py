"""A trained model as a diffusers pipeline: text in, frames out, in few steps and without guidance unless asked.

The pipeline is a folder of safetensors and JSON that ``VideoPipeline.from_pretrained`` reads. Its parts are the
denoiser, a flow-matching scheduler, and either the toy task's caption encoder and codec or a CLIP text model and a VAE.
Annotations are not postponed here: diffusers reads those of ``VideoPipeline.__init__`` to check what it loads.
"""

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from nas.core.errors import CheckpointError, ConfigError, InputError, UnavailableError
from nas.models.caption import CaptionEncoder
from nas.models.unet import VideoUNet
from nas.training.codec import PatchCodec
from nas.training.encoders import LearnedEncoders, PretrainedEncoders
from nas.training.noise import FIXED_TIMES, TIME_SCALE
from nas.training.sampling import guided_velocity, sampling_times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nas.training.encoders import ClipEncoders
    from nas.training.sampling import Sampler
    from nas.training.stage import Kit

MODEL_INDEX = "model_index.json"
# Frames that a VAE decodes at once.
_VAE_FRAMES = 4


class WordEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # how diffusers' own models inherit
    """A ``CaptionEncoder`` as a part of a pipeline.

    Args:
        vocabulary: Known words.
        width: Text width.
        num_tokens: Largest number of words.
    """

    @register_to_config
    def __init__(self, vocabulary: list[str], width: int, num_tokens: int) -> None:
        super().__init__()
        self.encoder = CaptionEncoder(vocabulary=vocabulary, width=width, num_tokens=num_tokens)

    @classmethod
    def of(cls, encoder: CaptionEncoder) -> "WordEncoder":
        """The same weights as a part."""
        part = cls(vocabulary=list(encoder.vocabulary), width=encoder.width, num_tokens=encoder.num_tokens)
        part.encoder.load_state_dict(encoder.state_dict())
        return part.eval()

    def forward(self, captions: "Sequence[str]") -> Tensor:
        """Tokens (B, N, D) of sentences."""
        return self.encoder.encode(captions).tokens


class PatchDecoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # how diffusers' own models inherit
    """A ``PatchCodec`` as a part of a pipeline.

    Args:
        patch: Side of a patch in pixels.
        channels: Latent channels.
    """

    @register_to_config
    def __init__(self, patch: int, channels: int) -> None:
        super().__init__()
        self.codec = PatchCodec(patch=patch, channels=channels)

    @classmethod
    def of(cls, codec: PatchCodec) -> "PatchDecoder":
        """The same numbers as a part."""
        part = cls(patch=codec.patch, channels=codec.channels)
        part.codec.load_state_dict(codec.state_dict())
        return part.eval()

    def forward(self, latents: Tensor) -> Tensor:
        """Pixels (B, T, 3, H, W) in -1..1 of latents."""
        return self.codec.decode(latents.float())


@dataclass
class VideoPipelineOutput(BaseOutput):  # type: ignore[misc]  # diffusers' habit
    """``frames``: (B, T, H, W, 3) NumPy or (B, T, 3, H, W) torch in 0-1, latents, or a list of pillow images a clip."""

    frames: Any


class VideoPipeline(DiffusionPipeline):  # type: ignore[misc]  # how diffusers' own pipelines inherit
    """Text to video with a ``VideoUNet``.

    Args:
        denoiser: The network; predicts the velocity of flow matching.
        scheduler: ``FlowMatchEulerDiscreteScheduler``; its ``stochastic_sampling`` adds fresh noise between steps.
        text_encoder: ``WordEncoder``, or a ``CLIPTextModel`` with its ``tokenizer``.
        tokenizer: Of a ``CLIPTextModel``.
        codec: ``AutoencoderKL``, or what makes pixels of latents at a call: ``PatchDecoder``.
        times: Times of the steps it was trained for, from 1 down.
        guidance: Weight of guidance where the call names none; 1 is none.
        latent_shape: (T, C, H, W) of a clip.
        fps: Frames a second of what is written.
        encoder: Identity of the encoders its training data came from; empty for the toy task.
    """

    denoiser: VideoUNet
    scheduler: Any  # FlowMatchEulerDiscreteScheduler, whose own annotations are narrower than what it takes
    text_encoder: Any
    tokenizer: Any
    codec: Any
    model_cpu_offload_seq = "text_encoder->denoiser->codec"  # type: ignore[assignment]  # the base has None
    _optional_components = ["text_encoder", "tokenizer", "codec"]  # noqa: RUF012  # diffusers' own name and form

    def __init__(
        self,
        denoiser: VideoUNet,
        scheduler: FlowMatchEulerDiscreteScheduler,
        text_encoder: nn.Module | None = None,
        tokenizer: Any = None,
        codec: nn.Module | None = None,
        times: list | tuple = FIXED_TIMES,
        guidance: float = 1.0,
        latent_shape: list | tuple = (8, 16, 4, 4),
        fps: float = 8.0,
        encoder: dict | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            denoiser=denoiser, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer, codec=codec
        )
        self.register_to_config(
            times=list(times),
            guidance=guidance,
            latent_shape=list(latent_shape),
            fps=fps,
            encoder=dict(encoder or {}),
        )

    @property
    def settings(self) -> Any:
        """The arguments that are not parts: ``times``, ``guidance``, ``latent_shape``, ``fps`` and ``encoder``."""
        return self.config

    @torch.no_grad()
    def __call__(
        self,
        prompt: "str | Sequence[str]",
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: Literal["np", "pil", "pt", "latent"] = "np",
        return_dict: bool = True,
    ) -> VideoPipelineOutput | tuple[Any]:
        """Generate one clip a prompt.

        Args:
            prompt: Sentences; of the vocabulary where the text encoder is a ``WordEncoder``.
            num_inference_steps: Equal steps; the ones trained for when left out.
            guidance_scale: Weight of classifier-free guidance, twice the calls; 1 is none.
            generator: Source of the noise, on the CPU; one for all clips or one a clip.
            latents: Noise (B, T, C, H, W) instead.
            output_type: Form of the frames.
            return_dict: Give a ``VideoPipelineOutput`` instead of a tuple.

        Raises:
            ValueError: A word is unknown, or the pipeline lacks a text encoder or codec.
        """
        captions = [prompt] if isinstance(prompt, str) else list(prompt)
        device = self._execution_device
        tokens = self._tokens(captions, device)
        guidance = self.settings.guidance if guidance_scale is None else guidance_scale
        empty = self._tokens([""], device) if guidance != 1.0 else tokens[:1]
        shape = (len(captions), *self.settings.latent_shape)
        sample = randn_tensor(shape, generator=generator, device=device) if latents is None else latents.to(device)
        times = self.settings.times if num_inference_steps is None else sampling_times(num_inference_steps)[:-1]
        self.scheduler.set_timesteps(sigmas=list(times), device=device)
        for moment in self.progress_bar(self.scheduler.timesteps):
            here = (moment / TIME_SCALE).expand(len(captions))
            velocity = guided_velocity(
                self.denoiser, sample.to(self.denoiser.dtype), here, tokens, empty=empty, guidance=guidance
            )
            sample = self.scheduler.step(velocity, moment, sample, generator=generator).prev_sample
        frames = self._frames(sample, output_type)
        return VideoPipelineOutput(frames=frames) if return_dict else (frames,)

    def give_encoders(self, encoders: "ClipEncoders") -> None:
        """Add text encoder and codec to a pipeline that was saved without.

        Raises:
            InputError: The training data came from other encoders.
        """
        wanted = {name: value for name, value in self.settings.encoder.items() if name != "vocabulary"}
        found = {name: value for name, value in encoders.identity.items() if name != "vocabulary"}
        if wanted and found != wanted:
            other = sorted(name for name in wanted if wanted[name] != found.get(name))
            raise InputError(
                f"the model was trained on latents and text of other encoders: {', '.join(other)} differ",
                hint="give the folder that `nas data encode --encoder` was given",
            )
        if isinstance(encoders, LearnedEncoders):
            self.register_modules(
                text_encoder=WordEncoder.of(encoders.captions), codec=PatchDecoder.of(encoders.codec), tokenizer=None
            )
        elif isinstance(encoders, PretrainedEncoders):
            vae, tokenizer, text_model = encoders.parts
            self.register_modules(text_encoder=text_model, tokenizer=tokenizer, codec=vae)
        else:
            raise TypeError(f"a pipeline takes learned or pretrained encoders, got {type(encoders).__name__}")

    def _tokens(self, captions: list[str], device: torch.device) -> Tensor:
        if self.text_encoder is None:
            raise ValueError("the pipeline has no text encoder; its training text was encoded beforehand")
        if self.tokenizer is None:
            tokens: Tensor = self.text_encoder(captions)
        else:
            ids = self.tokenizer(
                captions,
                padding="max_length",
                truncation=True,
                max_length=self.tokenizer.model_max_length,
                return_tensors="pt",
            ).input_ids
            tokens = self.text_encoder(ids.to(device)).last_hidden_state
        return tokens.to(device=device, dtype=self.denoiser.dtype)

    def _frames(self, latents: Tensor, output_type: str) -> Any:
        if output_type == "latent":
            return latents
        if self.codec is None:
            raise ValueError("the pipeline has no codec; ask for output_type 'latent' or give it encoders")
        pixels = self._vae_pixels(latents) if hasattr(self.codec, "decode") else self.codec(latents)
        pixels = pixels.float().add(1.0).div(2.0).clamp(0.0, 1.0)
        if output_type == "pt":
            return pixels
        frames = pixels.permute(0, 1, 3, 4, 2).cpu().numpy()
        if output_type == "np":
            return frames
        if output_type == "pil":
            return [self.numpy_to_pil(clip) for clip in frames]
        raise ValueError(f"output_type must be 'np', 'pil', 'pt' or 'latent', got {output_type!r}")

    def _vae_pixels(self, latents: Tensor) -> Tensor:
        config = self.codec.config
        scaled = (latents / config.scaling_factor + (config.shift_factor or 0.0)).to(self.codec.dtype)
        parts = [self.codec.decode(part).sample for part in scaled.flatten(0, 1).split(_VAE_FRAMES)]
        return torch.cat(parts).unflatten(0, latents.shape[:2])


def make_pipeline(
    kit: "Kit",
    *,
    times: "Sequence[float]" = FIXED_TIMES,
    sampler: "Sampler" = "euler",
    guidance: float = 1.0,
    fps: float = 8.0,
    encoder: "Mapping[str, Any] | None" = None,
) -> VideoPipeline:
    """A pipeline around a kit's own networks, which it shares.

    Args:
        kit: Denoiser, captions and codec; text made beforehand and no codec leave these parts empty.
        times: Times of the steps.
        sampler: ``renoise`` adds fresh noise after every step.
        guidance: Weight of guidance by default.
        fps: Frames a second.
        encoder: Identity of the encoders of the training data, ``ShardIndex.encoder``.
    """
    words = kit.captions if isinstance(kit.captions, CaptionEncoder) else None
    pipeline = VideoPipeline(
        denoiser=cast("VideoUNet", kit.denoiser),
        scheduler=make_scheduler(sampler),
        text_encoder=WordEncoder.of(words) if words is not None else None,
        codec=PatchDecoder.of(kit.codec) if kit.codec is not None else None,
        times=tuple(times),
        guidance=guidance,
        latent_shape=kit.latent_shape,
        fps=fps,
        encoder=dict(encoder or {}),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_scheduler(sampler: "Sampler") -> Any:
    """Scheduler of flow matching; ``renoise`` adds fresh noise after every step."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0, stochastic_sampling=sampler == "renoise")


def read_scheduler(folder: "Path") -> Any:
    """A scheduler of a folder, as ``save_pretrained`` of diffusers wrote it.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    try:
        return FlowMatchEulerDiscreteScheduler.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}: cannot be read as a scheduler: {error}") from error


def save_pipeline(pipeline: VideoPipeline, folder: "Path") -> None:
    """Write a pipeline to ``folder``, whole or not at all; an older one there is replaced."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    pipeline.save_pretrained(draft, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def load_pipeline(folder: "Path", *, with_denoiser: bool = True) -> VideoPipeline:
    """Read what ``save_pipeline`` wrote; nothing but safetensors and JSON is read.

    Args:
        folder: Of the pipeline.
        with_denoiser: Read the denoiser too; without, it is None.

    Raises:
        CheckpointError: A file is missing, damaged or of another model.
    """
    if not (folder / MODEL_INDEX).is_file():
        raise CheckpointError(f"{folder / MODEL_INDEX}: does not exist", hint="run the train stage again")
    logging.disable_progress_bar()
    try:
        pipeline: VideoPipeline = VideoPipeline.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, **({} if with_denoiser else {"denoiser": None})
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: cannot be read as a pipeline: {error}") from error
    finally:
        logging.enable_progress_bar()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate_clips(
    pipeline: VideoPipeline,
    captions: "Sequence[str]",
    *,
    first_seed: int,
    steps: int | None = None,
    guidance: float | None = None,
) -> np.ndarray:
    """Clips (B, T, 3, H, W) of uint8, the first by ``first_seed`` and each further one by the next.

    A clip's noise does not depend on its neighbours.

    Raises:
        ConfigError: A caption has an unknown word; the message names the known ones.
    """
    generators = [torch.Generator().manual_seed(first_seed + place) for place in range(len(captions))]
    try:
        made = pipeline(captions, num_inference_steps=steps, guidance_scale=guidance, generator=generators)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return as_bytes(cast("VideoPipelineOutput", made).frames)


def on_device(pipeline: VideoPipeline, device: str) -> VideoPipeline:
    """The pipeline, moved.

    Raises:
        UnavailableError: There is no such device.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UnavailableError(f"device {device!r}: torch sees no CUDA device here", hint="use --device cpu")
    moved: VideoPipeline = pipeline.to(device)
    return moved


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """Frames (B, T, H, W, 3) in 0-1 as (B, T, 3, H, W) of uint8."""
    rounded: np.ndarray = np.rint(frames * 255.0).astype(np.uint8).transpose(0, 1, 4, 2, 3)
    return rounded
