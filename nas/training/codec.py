"""Fixed linear codec: principal components of pixel patches stand in for a VAE, so that training is latent.

A patch of 8 x 8 pixels (192 numbers) becomes 16 channels of one latent cell: a 32 x 32 frame is a 4 x 4 latent. The
components are fitted once, in closed form, on training clips; nothing is learned by gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from nas.core.errors import CheckpointError
from nas.models.tensors import read_tensors, write_tensors
from nas.training.clips import make_clips

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_CHUNK = 512


class PatchCodec(nn.Module):
    """Linear map between pixels (B, T, 3, H, W) in -1..1 and latents (B, T, C, H/P, W/P).

    Args:
        patch: Side P of a patch in pixels.
        channels: Latent channels C.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor

    def __init__(self, *, patch: int, channels: int) -> None:
        super().__init__()
        self.patch = patch
        self.channels = channels
        self.register_buffer("mean", torch.zeros(3 * patch * patch))
        self.register_buffer("components", torch.zeros(channels, 3 * patch * patch))
        self.register_buffer("scale", torch.ones(channels))

    def encode(self, video: Tensor) -> Tensor:
        """Latents of ``video`` (B, T, 3, H, W) in -1..1."""
        batch, frames, _, height, width = video.shape
        rows, columns = height // self.patch, width // self.patch
        patches = video.reshape(batch, frames, 3, rows, self.patch, columns, self.patch)
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, frames, rows, columns, -1)
        latents = (patches - self.mean) @ self.components.T * self.scale
        return latents.permute(0, 1, 4, 2, 3).contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in -1..1 of ``latents`` (B, T, C, h, w)."""
        batch, frames, _, rows, columns = latents.shape
        patches = latents.permute(0, 1, 3, 4, 2) / self.scale @ self.components + self.mean
        patches = patches.reshape(batch, frames, rows, columns, 3, self.patch, self.patch)
        video = patches.permute(0, 1, 4, 2, 5, 3, 6)
        return video.reshape(batch, frames, 3, rows * self.patch, columns * self.patch).clamp(-1.0, 1.0)

    @torch.no_grad()
    def encode_clips(self, video: NDArray[np.uint8]) -> Tensor:
        """Latents of uint8 clips (N, T, 3, H, W), in chunks on the CPU."""
        parts = np.array_split(video, max(1, -(-len(video) // _CHUNK)))
        return torch.cat([self.encode(torch.from_numpy(part).float().div_(127.5).sub_(1.0)) for part in parts])

    @torch.no_grad()
    def decode_clips(self, latents: Tensor) -> NDArray[np.uint8]:
        """Clips as uint8 (N, T, 3, H, W)."""
        pixels = self.decode(latents.float().to(self.mean.device))
        return pixels.add(1.0).mul(127.5).round().to(torch.uint8).cpu().numpy()

    def save(self, path: Path) -> None:
        """Write the codec as safetensors, atomically."""
        tensors = {"mean": self.mean, "components": self.components, "scale": self.scale}
        write_tensors(path, tensors, metadata={"kind": "patch_codec", "patch": str(self.patch)})

    @classmethod
    def load(cls, path: Path) -> PatchCodec:
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: The file is missing, damaged, or no codec.
        """
        tensors, metadata = read_tensors(path)
        if metadata.get("kind") != "patch_codec" or set(tensors) != {"mean", "components", "scale"}:
            raise CheckpointError(f"{path}: is not a patch codec: holds {sorted(tensors)}")
        codec = cls(patch=int(metadata["patch"]), channels=len(tensors["scale"]))
        codec.load_state_dict(tensors)
        return codec


def fit_codec(
    *, patch: int, channels: int, seed: int, num_clips: int = 1024, flatten: float = 0.5, rms: float = 0.5
) -> PatchCodec:
    """Fit the codec to procedural training clips; equal arguments give equal codecs.

    Args:
        patch: Side of a patch in pixels.
        channels: Number of components kept.
        seed: Seed of the clips.
        num_clips: Clips to fit on.
        flatten: See ``fit_codec_to``.
        rms: See ``fit_codec_to``.

    Raises:
        ValueError: More channels are wanted than a patch has numbers.
    """
    video = make_clips(num_clips, seed=seed).video
    return fit_codec_to(video, patch=patch, channels=channels, flatten=flatten, rms=rms)


def fit_codec_to(
    video: NDArray[np.uint8], *, patch: int, channels: int, flatten: float = 0.5, rms: float = 0.5
) -> PatchCodec:
    """Fit the codec to clips (N, T, 3, H, W) whose sides are multiples of ``patch``.

    Args:
        video: Clips to fit on.
        patch: Side of a patch in pixels.
        channels: Number of components kept.
        flatten: 0 keeps the components' variances, 1 makes them equal (whitening); halfway is ours.
        rms: Root mean square of the latents. Frames of a clip repeat one another, so at unit scale direction is
            decided only at t > 0.9, where few training times and sampling steps lie; half the scale is the same as a
            time shift of 2, as larger images need too (Stable Diffusion 3, arXiv 2403.03206, section 5.3.2).

    Raises:
        ValueError: More channels are wanted than a patch has numbers.
    """
    if channels > 3 * patch * patch:
        raise ValueError(f"codec of {patch} x {patch} patches has at most {3 * patch * patch} channels, got {channels}")
    pixels = video.astype(np.float64) / 127.5 - 1.0
    count, frames, _, height, width = video.shape
    patches = pixels.reshape(count * frames, 3, height // patch, patch, width // patch, patch)
    rows = patches.transpose(0, 2, 4, 1, 3, 5).reshape(-1, 3 * patch * patch)
    mean = rows.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov((rows - mean).T))
    variances, vectors = variances[::-1][:channels], vectors[:, ::-1][:, :channels]
    # The sign of an eigenvector is arbitrary; the largest entry is made positive.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(channels)])
    scale = variances ** (-0.5 * flatten)
    scale = scale * rms / np.sqrt(np.mean(variances * scale**2))
    codec = PatchCodec(patch=patch, channels=channels)
    codec.mean.copy_(torch.from_numpy(mean))
    codec.components.copy_(torch.from_numpy(np.ascontiguousarray(vectors.T)))
    codec.scale.copy_(torch.from_numpy(scale))
    return codec
