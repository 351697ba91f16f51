"""A small classifier of real clips, whose features measure how far generated clips are from real ones.

It is trained here, on procedural clips, to tell colour, shape and motion; convolutions over space and time let it see
motion. With it go the moments of the features and the pixel quantiles of real held-out clips, so that a network's clips
are compared with one fixed set. Everything is one safetensors file; the seed is fixed, so that distances of different
runs can be compared.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # the customary name
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.core.errors import CheckpointError
from nas.models.tensors import read_tensors, write_tensors
from nas.training.clips import CLIP_FRAMES, CLIP_SIZE, COLOURS, MOTIONS, SHAPES, make_clips
from nas.training.frechet import diversity, frechet_distance, moments, projected_quantiles, sliced_wasserstein

if TYPE_CHECKING:
    from pathlib import Path

    from nas.training.clips import Attributes

logger = logging.getLogger(__name__)

FILE = "clip_features.safetensors"
_SEED = 20_000
_BATCH = 64
_TRAINING_CLIPS = 4096
# Real clips compared with: 64 for each of the 18 held-out captions.
_REFERENCE_CLIPS = 1152
_CLASSES = (len(COLOURS), len(SHAPES), len(MOTIONS))


class ClipClassifier(nn.Module):
    """Colour, shape and motion of a clip, by way of one short feature vector.

    Shapes: N clips, T frames, H height, W width, D ``width``.

    Args:
        width: D, the number of features (ours: few enough for a covariance from 288 clips).
    """

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv3d(3, 12, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.GroupNorm(4, 12),
            nn.SiLU(),
            nn.Conv3d(12, 24, (3, 4, 4), stride=(1, 2, 2), padding=1),
            nn.GroupNorm(4, 24),
            nn.SiLU(),
            nn.Conv3d(24, 48, (3, 3, 3), stride=(2, 2, 2), padding=1),
            nn.GroupNorm(4, 48),
            nn.SiLU(),
            nn.AdaptiveAvgPool3d((4, 4, 4)),
            nn.Flatten(),
        )
        self.features = nn.Linear(48 * 64, width)
        self.classes = nn.Linear(width, sum(_CLASSES))

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) and logits (N, 18) of uint8 clips (N, T, 3, H, W)."""
        features = self.features(self.convolutions(video.transpose(1, 2).float() / 127.5 - 1.0))
        return features, self.classes(F.silu(features))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipReference:
    """The classifier, and what real held-out clips look like to it; ``scale`` (D,) makes their features' variance 1.

    ``accuracy`` is the classifier's share of real held-out clips with colour, shape and motion all right.
    """

    classifier: ClipClassifier
    scale: NDArray[np.float64]
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    accuracy: float

    def distances(self, video: NDArray[np.uint8], shown: Attributes) -> dict[str, float]:
        """``frechet`` and ``sliced_wasserstein`` from real clips, and ``diversity`` within captions.

        Frechet distances fall with the number of clips; compare only those of equally many.
        """
        mean, covariance = moments(_features(self.classifier, video)[0] * self.scale)
        caption = (shown.colour * len(SHAPES) + shown.shape) * len(MOTIONS) + shown.motion
        return {
            "frechet": frechet_distance(self.mean, self.covariance, mean, covariance),
            "sliced_wasserstein": sliced_wasserstein(self.quantiles, projected_quantiles(video)),
            "diversity": diversity(video, caption),
        }


def clip_reference(path: Path, *, steps: int, frames: int = CLIP_FRAMES, size: int = CLIP_SIZE) -> ClipReference:
    """Read the reference at ``path``, or train it there: 25 CPU seconds at 250 steps of 64 clips of 8 x 32 x 32.

    Raises:
        CheckpointError: The file is damaged or was made for other clips or steps.
        UnavailableError: The disk is full or the folder cannot be written.
    """
    wanted = {"kind": "clip_reference", "steps": str(steps), "frames": str(frames), "size": str(size)}
    if path.exists():
        return _read(path, wanted)
    classifier = _train(steps=steps, frames=frames, size=size)
    real = make_clips(_REFERENCE_CLIPS, seed=_SEED + 1, split="held_out", frames=frames, size=size)
    features, logits = _features(classifier, real.video)
    scale = 1.0 / np.maximum(features.std(axis=0), 1e-6)
    mean, covariance = moments(features * scale)
    accuracy = float(np.mean(np.all(_predicted(logits) == _labels(real.attributes).numpy(), axis=1)))
    logger.info("classifier of clips: %.3f of real held-out clips wholly right", accuracy)
    arrays = {"scale": scale, "mean": mean, "covariance": covariance, "quantiles": projected_quantiles(real.video)}
    tensors = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    write_tensors(path, tensors, metadata={**wanted, "accuracy": repr(accuracy)})
    return _read(path, wanted)


def _train(*, steps: int, frames: int, size: int) -> ClipClassifier:
    clips = make_clips(min(_TRAINING_CLIPS, steps * _BATCH), seed=_SEED, frames=frames, size=size)
    video, labels = torch.from_numpy(clips.video), _labels(clips.attributes)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        classifier = ClipClassifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=max(steps, 2))
    for _ in range(steps):
        rows = torch.randint(len(video), (_BATCH,), generator=generator)
        logits = classifier(video[rows])[1].split(_CLASSES, dim=1)
        loss = torch.stack([F.cross_entropy(part, labels[rows, i]) for i, part in enumerate(logits)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.requires_grad_(False).eval()


@torch.no_grad()
def _features(classifier: ClipClassifier, video: NDArray[np.uint8]) -> tuple[NDArray[np.float64], Tensor]:
    parts = [classifier(torch.from_numpy(video[begin : begin + 128])) for begin in range(0, len(video), 128)]
    features = torch.cat([part[0] for part in parts]).double().numpy()
    return features, torch.cat([part[1] for part in parts])


def _labels(attributes: Attributes) -> Tensor:
    return torch.from_numpy(np.stack([attributes.colour, attributes.shape, attributes.motion], axis=1))


def _predicted(logits: Tensor) -> NDArray[np.int64]:
    return torch.stack([part.argmax(dim=1) for part in logits.split(_CLASSES, dim=1)], dim=1).numpy()


def _read(path: Path, wanted: dict[str, str]) -> ClipReference:
    tensors, metadata = read_tensors(path)
    found = {name: metadata.get(name, "") for name in wanted}
    if found != wanted:
        raise CheckpointError(
            f"{path}: holds {found}, wanted is {wanted}", hint="remove the file to train the classifier again"
        )
    classifier = ClipClassifier()
    start = "classifier."
    classifier.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
    arrays = {name: tensors[name].numpy() for name in ("scale", "mean", "covariance", "quantiles")}
    return ClipReference(
        classifier=classifier.requires_grad_(False).eval(), accuracy=float(metadata["accuracy"]), **arrays
    )
