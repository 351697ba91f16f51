"""Heads learn, the encoder does not, and the generator's gradient passes through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from nas.training.adversarial import AdversarialLosses, make_discriminator, tune_adversarially
from nas.training.loop import Batch
from nas.training.options import AdversarialOptions, CollectionOptions, LoopOptions
from nas.training.trajectory import Trajectories, collect_trajectories

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.rng import RandomStreams
    from nas.models.discriminator import VideoDiscriminator
    from nas.models.unet import VideoUNet
    from nas.training.data import LatentClips
    from nas.training.stage import Kit


@pytest.fixture
def discriminator(kit: Kit) -> VideoDiscriminator:
    return make_discriminator(kit, head_width=16, seed=0)


@pytest.fixture
def trajectories(kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path) -> Trajectories:
    options = CollectionOptions(num_clips=4, substeps=2)
    return collect_trajectories(kit, data, options=options, path=tmp_path / "ways.safetensors", streams=streams)


def test_one_head_for_every_encoder_feature_scores_every_frame_and_place(
    kit: Kit, discriminator: VideoDiscriminator
) -> None:
    features = kit.captions.encode(["a red circle standing still"] * 2)
    sample = torch.randn(2, *kit.latent_shape)
    scores = discriminator(sample, torch.full((2,), 300.0), features.tokens, features.pooled)
    encoded = kit.denoiser.encode(sample, torch.full((2,), 300.0), features.tokens)
    assert [score.shape for score in scores] == [(*item.shape[:2], *item.shape[3:]) for item in encoded]


def test_only_heads_are_parameters(kit: Kit, discriminator: VideoDiscriminator) -> None:
    assert all(name.startswith("heads.") for name, _ in discriminator.named_parameters())
    assert not any(parameter.requires_grad for parameter in kit.denoiser.parameters())


def test_gradient_flows_through_the_frozen_encoder_to_the_clip(kit: Kit, discriminator: VideoDiscriminator) -> None:
    features = kit.captions.encode(["a red circle standing still"])
    sample = torch.randn(1, *kit.latent_shape, requires_grad=True)
    scores = discriminator(sample, torch.full((1,), 300.0), features.tokens.detach(), features.pooled.detach())
    torch.stack([score.mean() for score in scores]).sum().backward()
    assert sample.grad is not None
    assert sample.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in kit.denoiser.parameters())


def test_scores_of_single_frames_do_not_use_attention_over_frames(kit: Kit, discriminator: VideoDiscriminator) -> None:
    features = kit.captions.encode(["a red circle standing still"])
    sample = torch.randn(1, 1, *kit.latent_shape[1:])
    arguments = (torch.full((1,), 300.0), features.tokens, features.pooled)
    before = discriminator(sample, *arguments)
    for head in discriminator.heads:
        torch.nn.init.normal_(head.attention.in_proj_weight)
    assert all(torch.equal(one, two) for one, two in zip(before, discriminator(sample, *arguments), strict=True))


def test_scores_of_clips_depend_on_the_order_of_frames(kit: Kit, discriminator: VideoDiscriminator) -> None:
    features = kit.captions.encode(["a red circle standing still"])
    sample = torch.randn(1, *kit.latent_shape)
    arguments = (torch.full((1,), 300.0), features.tokens, features.pooled)
    forward, backward = discriminator(sample, *arguments), discriminator(sample.flip(1), *arguments)
    assert not all(torch.allclose(one, two.flip(1)) for one, two in zip(forward, backward, strict=True))


def test_scores_depend_on_the_caption_and_on_the_discriminators_time(
    kit: Kit, discriminator: VideoDiscriminator
) -> None:
    features = kit.captions.encode(["a red circle standing still", "a blue square moving up slowly"])
    sample = torch.randn(1, *kit.latent_shape)
    time = torch.full((1,), 300.0)
    one = discriminator(sample, time, features.tokens[:1], features.pooled[:1])
    other_text = discriminator(sample, time, features.tokens[:1], features.pooled[1:])
    other_time = discriminator(sample, time + 400, features.tokens[:1], features.pooled[:1])
    assert not torch.allclose(one[0], other_text[0])
    assert not torch.allclose(one[0], other_time[0])


def test_training_changes_heads_and_student_but_never_the_encoder(
    kit: Kit,
    make_network,
    data: LatentClips,
    trajectories: Trajectories,
    streams: RandomStreams,
    tmp_path: Path,
) -> None:
    student: VideoUNet = make_network(1)
    encoder_before = {name: value.clone() for name, value in kit.denoiser.state_dict().items()}
    student_before = {name: value.clone() for name, value in student.state_dict().items()}
    options = AdversarialOptions(loop=LoopOptions(steps=3, batch_size=4, warmup_steps=1), head_width=16)
    tune_adversarially(
        kit.with_denoiser(student), kit, data, trajectories, options=options, folder=tmp_path / "a", streams=streams
    )
    assert all(torch.equal(value, encoder_before[name]) for name, value in kit.denoiser.state_dict().items())
    assert not all(torch.equal(value, student_before[name]) for name, value in student.state_dict().items())


def test_generator_phase_gives_the_student_gradient_from_the_discriminator_alone(
    kit: Kit, make_network, data: LatentClips, trajectories: Trajectories, discriminator: VideoDiscriminator
) -> None:
    student: VideoUNet = make_network(1)
    options = AdversarialOptions(anchor_weight=0.0, reconstruction_weight=0.0, image_ratio=0.0)
    losses = AdversarialLosses(kit.with_denoiser(student), discriminator, data, trajectories, options)
    batch = Batch(
        indices=torch.arange(4), generator=torch.Generator().manual_seed(0), step=0, device=torch.device("cpu")
    )
    losses.generator(batch)[0].backward()
    assert student.conv_in.weight.grad is not None
    assert student.conv_in.weight.grad.abs().sum() > 0


def test_heads_phase_leaves_the_student_without_gradient(
    kit: Kit, make_network, data: LatentClips, trajectories: Trajectories, discriminator: VideoDiscriminator
) -> None:
    student: VideoUNet = make_network(1)
    losses = AdversarialLosses(kit.with_denoiser(student), discriminator, data, trajectories, AdversarialOptions())
    batch = Batch(
        indices=torch.arange(4), generator=torch.Generator().manual_seed(0), step=0, device=torch.device("cpu")
    )
    losses.heads(batch)[0].backward()
    assert student.conv_in.weight.grad is None
    assert discriminator.heads[0].score.weight.grad.abs().sum() > 0


def test_one_network_as_student_and_teacher_is_refused(
    kit: Kit, data: LatentClips, trajectories: Trajectories, streams: RandomStreams, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="student and teacher are one network"):
        tune_adversarially(kit, kit, data, trajectories, options=AdversarialOptions(), folder=tmp_path, streams=streams)
