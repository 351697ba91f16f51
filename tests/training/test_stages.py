"""The stages on the real network: they finish, resume to the bit, return at once, and refuse foreign folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from nas.core.errors import CheckpointError
from nas.core.protocols import Progress, SilentProgress
from nas.models.unet import VideoUNet
from nas.training.distillation import copy_matching_weights, distil
from nas.training.options import (
    CollectionOptions,
    DistillationOptions,
    LoopOptions,
    NoiseOptions,
    TeacherOptions,
    TrajectoryOptions,
)
from nas.training.stage import Kit, load_kit
from nas.training.teacher import draw_noisy, train_teacher
from nas.training.trajectory import collect_trajectories, distil_trajectory, segment_loss

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.rng import RandomStreams
    from nas.training.data import LatentClips

LOOP = LoopOptions(steps=6, batch_size=4, warmup_steps=2, checkpoint_every=2, log_every=1)
MakeNetwork = Callable[[int], VideoUNet]
KillAt = Callable[[int], Progress]


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def losses(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def test_killed_teacher_resumes_to_the_same_losses_and_weights(
    fresh_kit: Callable[[], Kit], data: LatentClips, streams: RandomStreams, tmp_path: Path, kill_at: KillAt
) -> None:
    options = TeacherOptions(loop=LOOP, noise=NoiseOptions(image_ratio=0.5))
    whole, broken, resumed = (fresh_kit() for _ in range(3))
    train_teacher(whole, data, options=options, folder=tmp_path / "whole" / "teacher", streams=streams)
    with pytest.raises(InterruptedError):
        train_teacher(
            broken, data, options=options, folder=tmp_path / "b" / "teacher", streams=streams, progress=kill_at(5)
        )
    train_teacher(resumed, data, options=options, folder=tmp_path / "b" / "teacher", streams=streams)
    assert losses(tmp_path / "b" / "metrics.jsonl") == losses(tmp_path / "whole" / "metrics.jsonl")
    assert same_weights(whole.denoiser, resumed.denoiser)
    assert same_weights(whole.captions, resumed.captions)


def test_finished_stage_returns_at_once_with_its_weights(
    kit: Kit, fresh_kit: Callable[[], Kit], data: LatentClips, streams: RandomStreams, tmp_path: Path, kill_at: KillAt
) -> None:
    options = TeacherOptions(loop=LOOP)
    first = train_teacher(kit, data, options=options, folder=tmp_path / "teacher", streams=streams)
    other = fresh_kit()
    progress = kill_at(0)  # would be called by any training
    again = train_teacher(other, data, options=options, folder=tmp_path / "teacher", streams=streams, progress=progress)
    assert (first.reused, again.reused) == (False, True)
    assert again.loss == first.loss
    assert same_weights(kit.denoiser, other.denoiser)


def test_stage_folder_rebuilds_the_kit(kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path) -> None:
    train_teacher(kit, data, options=TeacherOptions(loop=LOOP), folder=tmp_path / "teacher", streams=streams)
    again = load_kit(tmp_path / "teacher")
    arguments = (torch.randn(1, *kit.latent_shape), torch.full((1,), 500.0))
    captions = ["a red circle standing still"]
    one = kit.denoiser(*arguments, kit.captions.encode(captions).tokens)
    two = again.denoiser(*arguments, again.captions.encode(captions).tokens)
    assert again.latent_shape == kit.latent_shape
    assert torch.allclose(one, two, atol=1e-5)


def test_folder_of_other_options_is_refused(
    kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    train_teacher(kit, data, options=TeacherOptions(loop=LOOP), folder=tmp_path / "teacher", streams=streams)
    other = TeacherOptions(loop=LOOP, noise=NoiseOptions(time_mean=0.7))
    with pytest.raises(CheckpointError, match="holds stage 'teacher' trained with other options"):
        train_teacher(kit, data, options=other, folder=tmp_path / "teacher", streams=streams)


def test_damaged_weights_of_a_finished_stage_are_named(
    kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    train_teacher(kit, data, options=TeacherOptions(loop=LOOP), folder=tmp_path / "teacher", streams=streams)
    weights = tmp_path / "teacher" / "denoiser" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.safetensors: cannot be read"):
        train_teacher(kit, data, options=TeacherOptions(loop=LOOP), folder=tmp_path / "teacher", streams=streams)
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.safetensors: cannot be read"):
        load_kit(tmp_path / "teacher")


def test_image_batches_are_single_frames_of_the_clips(kit: Kit, data: LatentClips) -> None:
    from nas.training.loop import Batch

    batch = Batch(
        indices=torch.arange(8), generator=torch.Generator().manual_seed(0), step=0, device=torch.device("cpu")
    )
    drawn = draw_noisy(data, batch, NoiseOptions(image_ratio=1.0), captions=kit.captions)
    assert drawn.clean.shape == (8, 1, 16, 4, 4)
    distance = (data.latents[:8] - drawn.clean).abs().amax(dim=(2, 3, 4)).amin(dim=1)
    assert distance.max() == 0.0


def test_captions_are_dropped_at_the_stated_rate(kit: Kit, data: LatentClips) -> None:
    from nas.training.data import drop_captions

    ids = data.token_ids[:1].expand(4000, -1)
    dropped = drop_captions(
        ids, empty=kit.captions.empty_text(4000), ratio=0.1, generator=torch.Generator().manual_seed(0)
    )
    share = (dropped.sum(dim=1) == 0).float().mean().item()
    assert share == pytest.approx(0.1, abs=3 * (0.1 * 0.9 / 4000) ** 0.5)


def test_distillation_brings_the_student_nearer_to_its_teacher(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    nn.init.normal_(kit.denoiser.conv_out.weight, std=0.2)
    teacher_before = {name: value.clone() for name, value in kit.denoiser.state_dict().items()}
    options = DistillationOptions(
        loop=LoopOptions(steps=40, batch_size=8, warmup_steps=2, log_every=10), start_from_teacher=False
    )
    distil(kit.with_denoiser(make_network(1)), kit, data, options=options, folder=tmp_path / "d", streams=streams)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["output_loss"] < 0.85 * rows[0]["output_loss"]
    assert rows[-1]["feature_loss"] < 0.85 * rows[0]["feature_loss"]
    assert all(torch.equal(value, teacher_before[name]) for name, value in kit.denoiser.state_dict().items())


def test_student_of_the_same_architecture_starts_as_its_teacher(make_network: MakeNetwork) -> None:
    teacher, student = make_network(0), make_network(1)
    names = copy_matching_weights(teacher, student)
    assert set(names) == set(teacher.state_dict())
    assert same_weights(teacher, student)


def test_collected_states_end_where_guided_euler_sampling_ends(
    kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    from nas.training.sampling import sample_euler

    nn.init.normal_(kit.denoiser.conv_out.weight, std=0.1)
    options = CollectionOptions(num_clips=3, substeps=2, guidance=2.0)
    ways = collect_trajectories(kit, data, options=options, path=tmp_path / "w.safetensors", streams=streams)
    tokens, empty = kit.captions(ways.text).tokens, kit.captions.encode([""]).tokens
    wanted = sample_euler(kit.denoiser, ways.states[:, 0], tokens, empty=empty, steps=8, guidance=2.0)
    assert ways.states.shape == (3, 5, *kit.latent_shape)
    assert torch.allclose(ways.states[:, -1], wanted, atol=1e-5)


def test_collected_ways_are_read_back_and_belong_to_their_teacher(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    options, path = CollectionOptions(num_clips=2, substeps=2), tmp_path / "w.safetensors"
    first = collect_trajectories(kit, data, options=options, path=path, streams=streams)
    again = collect_trajectories(kit, data, options=options, path=path, streams=streams)
    assert torch.equal(first.states, again.states)
    with pytest.raises(CheckpointError, match="trajectories of another teacher"):
        collect_trajectories(kit.with_denoiser(make_network(3)), data, options=options, path=path, streams=streams)


def test_segment_loss_is_zero_for_a_student_that_moves_as_the_teacher_did(
    kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    # One Euler step a segment without guidance: the teacher itself is the student that matches.
    nn.init.normal_(kit.denoiser.conv_out.weight, std=0.1)
    options = CollectionOptions(num_clips=4, substeps=1, guidance=1.0)
    ways = collect_trajectories(kit, data, options=options, path=tmp_path / "w.safetensors", streams=streams)
    loss = segment_loss(kit, ways, torch.arange(len(ways)), huber_width=0.1, device=torch.device("cpu"))
    assert loss.item() < 1e-6


def test_trajectory_distillation_lowers_its_loss(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    nn.init.normal_(kit.denoiser.conv_out.weight, std=0.2)
    ways = collect_trajectories(
        kit,
        data,
        options=CollectionOptions(num_clips=8, substeps=1),
        path=tmp_path / "w.safetensors",
        streams=streams,
    )
    options = TrajectoryOptions(loop=LoopOptions(steps=40, batch_size=8, warmup_steps=2, log_every=10))
    student = kit.with_denoiser(make_network(1))
    result = distil_trajectory(student, ways, options=options, folder=tmp_path / "t", streams=streams)
    values = losses(tmp_path / "metrics.jsonl")
    assert result.stage == "trajectory"
    assert values[-1] < 0.85 * values[0]


def test_progress_hears_of_every_logged_step(
    kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    class Listener(SilentProgress):
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        def update(self, done: int, total: int, message: str = "") -> None:  # noqa: ARG002
            self.seen.append((done, total))

    listener = Listener()
    train_teacher(
        kit, data, options=TeacherOptions(loop=LOOP), folder=tmp_path / "t", streams=streams, progress=listener
    )
    assert listener.seen == [(step, 6) for step in range(7)]
