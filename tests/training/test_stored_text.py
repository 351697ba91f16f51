"""Every stage trains on embeddings made beforehand, without a caption encoder of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from nas.models.caption import StoredCaptions
from nas.training.adversarial import tune_adversarially
from nas.training.data import ClipBatch, as_images
from nas.training.distillation import distil
from nas.training.options import (
    AdversarialOptions,
    CollectionOptions,
    DistillationOptions,
    LoopOptions,
    TeacherOptions,
    TrajectoryOptions,
)
from nas.training.stage import load_kit
from nas.training.teacher import train_teacher
from nas.training.trajectory import collect_trajectories, distil_trajectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nas.core.rng import RandomStreams
    from nas.models.unet import VideoUNet
    from nas.training.stage import Kit

LOOP = LoopOptions(steps=2, batch_size=4, log_every=1)


class EmbeddedClips:
    """Eight random clips with random text rows of three tokens and the pooled text."""

    description = "eight random clips"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.latents = torch.randn(8, 8, 16, 4, 4, generator=generator)
        self.text = torch.randn(8, 4, 64, generator=generator)

    def __len__(self) -> int:
        return 8

    def fetch(self, indices: Tensor) -> ClipBatch:
        return ClipBatch(self.latents[indices], self.text[indices])

    def fetch_images(self, indices: Tensor, *, generator: torch.Generator) -> ClipBatch:
        batch = self.fetch(indices)
        return ClipBatch(as_images(batch.latents, generator=generator), batch.text)

    def fetch_text(self, indices: Tensor) -> Tensor:
        return self.text[indices]


@pytest.fixture
def embedded_kit(kit: Kit) -> Kit:
    return replace(kit, captions=StoredCaptions(empty=torch.zeros(4, 64)))


def test_all_stages_train_on_stored_embeddings(
    embedded_kit: Kit, make_network: Callable[[int], VideoUNet], streams: RandomStreams, tmp_path: Path
) -> None:
    data = EmbeddedClips()
    taught = train_teacher(
        embedded_kit, data, options=TeacherOptions(loop=LOOP), folder=tmp_path / "teacher", streams=streams
    )
    student = taught.kit.with_denoiser(make_network(1))
    distil(
        student, taught.kit, data, options=DistillationOptions(loop=LOOP), folder=tmp_path / "student", streams=streams
    )
    ways = collect_trajectories(
        taught.kit, data, options=CollectionOptions(num_clips=4), path=tmp_path / "ways.safetensors", streams=streams
    )
    assert ways.text.shape == (4, 4, 64)
    distil_trajectory(
        student, ways, options=TrajectoryOptions(loop=LOOP), folder=tmp_path / "trajectory", streams=streams
    )
    tuned = tune_adversarially(
        student,
        taught.kit,
        data,
        ways,
        options=AdversarialOptions(loop=LOOP),
        folder=tmp_path / "adversarial",
        streams=streams,
    )
    assert tuned.steps == 2
    assert isinstance(load_kit(tmp_path / "adversarial").captions, StoredCaptions)
