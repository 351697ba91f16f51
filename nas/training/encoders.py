"""What turns clips and captions into the tensors of shards: the toy task's own encoders, or pretrained ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nas.core.errors import InputError, UnavailableError
from nas.core.files import sha256_path
from nas.models.caption import CaptionEncoder
from nas.models.pretrained import load_clip_text, load_vae
from nas.training.codec import PatchCodec
from nas.training.stage import describe_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

CODEC_FILE = "codec.safetensors"
CAPTIONS_FILE = "caption_encoder.safetensors"
# Frames that a VAE encodes at once; its activations at full resolution, not its weights, fill the memory.
_VAE_FRAMES = 4


class ClipEncoders(Protocol):
    """Clips to latents and captions to text rows, the same numbers at every call."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What they are, as plain data without paths; other weights have another identity."""

    @property
    def cell_size(self) -> int:
        """Side in pixels of what becomes one latent cell."""

    def encode_video(self, video: NDArray[np.uint8]) -> Tensor:
        """Latents (B, T, C, H, W) float32 of clips (B, T, 3, H, W)."""

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Text rows (B, N + 1, D) float32: tokens, then the pooled text."""

    def fault(self, caption: str) -> str | None:
        """Why a caption cannot be encoded."""

    def shortens(self, caption: str) -> bool:
        """Whether words at the end of a caption are lost."""

    def save(self, folder: Path) -> None:
        """Keep in ``folder`` what is needed to decode and to sample with other captions; may be nothing."""


class LearnedEncoders:
    """The linear patch codec and a caption encoder of whole words."""

    def __init__(self, codec: PatchCodec, captions: CaptionEncoder) -> None:
        self.codec = codec.eval()
        self.captions = captions.eval().requires_grad_(False)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Digests of the weights."""
        words = len(self.captions.vocabulary)
        return {
            "type": "learned",
            "codec": describe_weights(self.codec),
            "captions": describe_weights(self.captions),
            "vocabulary": words,
        }

    @property
    def cell_size(self) -> int:
        """Side of a patch in pixels."""
        return self.codec.patch

    def encode_video(self, video: NDArray[np.uint8]) -> Tensor:
        """Latents (B, T, C, H, W)."""
        return self.codec.encode_clips(video)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Text rows (B, N + 1, D)."""
        features = self.captions.encode(captions)
        return torch.cat([features.tokens, features.pooled[:, None]], dim=1).float().cpu()

    def fault(self, caption: str) -> str | None:
        """The caption encoder's complaint about an unknown word or too many."""
        try:
            self.captions.tokenize([caption])
        except ValueError as error:
            return str(error).partition("; known words")[0]  # which are many, and the same for every caption
        return None

    def shortens(self, caption: str) -> bool:  # noqa: ARG002  # the protocol's; long captions are faults here
        """Never."""
        return False

    def save(self, folder: Path) -> None:
        """Write both as a stage folder has them."""
        self.codec.save(folder / CODEC_FILE)
        self.captions.save(folder / CAPTIONS_FILE)


class PretrainedEncoders:
    """A diffusers VAE, frame by frame, and a CLIP text model.

    A latent is the mean of the VAE's posterior, less its shift, times its scaling factor; drawing from the posterior
    would need the clip's own noise at every epoch. Tokens are the last hidden state, pooled is CLIP's pooled output.

    Args:
        vae: An ``AutoencoderKL``.
        tokenizer: A ``CLIPTokenizer``.
        text_model: A ``CLIPTextModel``.
        identity: Digests of their files.
        device: Where to encode.
    """

    def __init__(
        self, vae: Any, tokenizer: Any, text_model: Any, *, identity: Mapping[str, Any], device: str = "cpu"
    ) -> None:
        self._vae = vae.to(device)
        self._tokenizer = tokenizer
        self._text_model = text_model.to(device)
        self._device = device
        self._identity = dict(identity)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Digests of the files and the latents' scale."""
        return self._identity

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """VAE, tokenizer and text model."""
        return self._vae, self._tokenizer, self._text_model

    @property
    def cell_size(self) -> int:
        """Each level of the VAE but the first halves the side."""
        return int(2 ** (len(self._vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def encode_video(self, video: NDArray[np.uint8]) -> Tensor:
        """Latents (B, T, C, H, W)."""
        frames = torch.from_numpy(video).flatten(0, 1)
        config = self._vae.config
        parts = []
        for part in frames.split(_VAE_FRAMES):
            pixels = part.to(self._device).float().div_(127.5).sub_(1.0)
            mean = self._vae.encode(pixels).latent_dist.mode()
            parts.append(((mean - (config.shift_factor or 0.0)) * config.scaling_factor).cpu())
        return torch.cat(parts).unflatten(0, video.shape[:2])

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Text rows (B, N + 1, D)."""
        ids = self._tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self._tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        out = self._text_model(ids.to(self._device))
        return torch.cat([out.last_hidden_state, out.pooler_output[:, None]], dim=1).float().cpu()

    def fault(self, caption: str) -> str | None:  # noqa: ARG002  # the protocol's
        """None: any text can be encoded."""
        return None

    def shortens(self, caption: str) -> bool:
        """Whether the caption has more tokens than the text model has places."""
        return len(self._tokenizer(caption).input_ids) > self._tokenizer.model_max_length

    def save(self, folder: Path) -> None:
        """Nothing: the user has the weights, and they are large."""


def load_encoders(folder: Path, *, device: str = "cpu") -> ClipEncoders:
    """Encoders of a folder: one as diffusers saves a Stable Diffusion model, or a trained stage of the toy task.

    Raises:
        InputError: The folder is neither, or a part is missing or damaged.
        UnavailableError: transformers is needed and not installed.
    """
    if (folder / "vae").is_dir():
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UnavailableError(f"device {device!r}: torch sees no CUDA device here", hint="use --device cpu")
        vae = load_vae(folder / "vae")
        tokenizer, text_model = load_clip_text(folder / "tokenizer", folder / "text_encoder")
        identity = {
            "type": "pretrained",
            "vae": sha256_path(folder / "vae")[:16],
            "scaling_factor": float(vae.config.scaling_factor),
            "text_encoder": sha256_path(folder / "text_encoder")[:16],
            "tokenizer": sha256_path(folder / "tokenizer")[:16],
        }
        return PretrainedEncoders(vae, tokenizer, text_model, identity=identity, device=device)
    if (folder / CODEC_FILE).is_file() and (folder / CAPTIONS_FILE).is_file():
        return LearnedEncoders(PatchCodec.load(folder / CODEC_FILE), CaptionEncoder.load(folder / CAPTIONS_FILE))
    raise InputError(
        f"{folder}: holds no encoders",
        hint=f"name a diffusers folder with vae, tokenizer and text_encoder, or a stage's with {CODEC_FILE}",
    )
