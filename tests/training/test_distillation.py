"""Multi-level distillation: its scaling, a larger teacher, and the teacher's answers from a cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution

from nas.core.errors import CheckpointError, ConfigError, UnavailableError
from nas.core.protocols import Progress
from nas.core.rng import RandomStreams
from nas.core.schema import to_data
from nas.models.unet import VideoUNet
from nas.training.compatibility import require_same_world, require_weights_fit
from nas.training.distillation import distil
from nas.training.loop import Batch
from nas.training.multi_level import (
    adapt_features,
    clip_errors,
    clip_feature_errors,
    make_adapters,
    pair_features,
    scale_by_time,
    task_shares,
)
from nas.training.options import DistillationOptions, LoopOptions, NoiseOptions, TeacherOptions
from nas.training.stage import Kit, load_kit
from nas.training.teacher import train_teacher
from nas.training.teacher_cache import TeacherCache
from nas.training.teacher_targets import Drawn, FixedDraws, Teacher
from search_spaces.backbone import Level, pruned_unet_stages
from search_spaces.pruning import no_temporal_layers
from search_spaces.tiny import tiny_backbone

if TYPE_CHECKING:
    from pathlib import Path

    from nas.training.data import LatentClips

MakeNetwork = Callable[[int], VideoUNet]
KillAt = Callable[[int], Progress]
LOOP = LoopOptions(steps=6, batch_size=4, warmup_steps=2, checkpoint_every=2, log_every=1)
CPU = torch.device("cpu")


def wide_network(seed: int, **changes: object) -> VideoUNet:
    """A teacher wider than ``tiny``, with twice the blocks at the top."""
    spec = replace(
        tiny_backbone(),
        name="wide",
        stages=pruned_unet_stages(
            (
                Level(channels=64, down_blocks=(0, 1), up_blocks=(0, 2), up_attentions=(0,)),
                Level(channels=80, down_attentions=(0,), up_blocks=(0,)),
            ),
            source_levels=2,
        ),
        **changes,
    )
    torch.manual_seed(seed)
    return VideoUNet(space="wide/1", choices=dict(no_temporal_layers(spec).choices), backbone=to_data(spec))


def losses(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


# -- losses ------------------------------------------------------------------------------------------------------------


def test_feature_errors_are_relative_to_the_teachers_size_clip_by_clip() -> None:
    teacher = [torch.ones(2, 1, 2, 2, 2), 100 * torch.ones(2, 1, 3, 2, 2)]
    factor = torch.tensor([1.5, 3.0]).reshape(2, 1, 1, 1, 1)
    assert clip_feature_errors([factor * item for item in teacher], teacher).tolist() == pytest.approx([0.25, 4.0])


def test_features_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"student \[\(2, 2\)\], teacher \[\(2, 3\)\]"):
        clip_feature_errors([torch.ones(2, 2)], [torch.ones(2, 3)])


def test_shares_follow_the_logit_normal_density() -> None:
    times = torch.linspace(0.02, 0.98, 49)
    density = TransformedDistribution(Normal(0.0, 1.0), SigmoidTransform()).log_prob(times).exp()
    assert torch.allclose(task_shares(times), density / density.max(), atol=1e-5)
    assert task_shares(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-3)


def test_scaling_gives_both_terms_the_size_of_the_task_and_no_gradient_through_the_ratio() -> None:
    times = torch.tensor([0.5, 0.1])
    task = torch.tensor([2.0, 3.0], requires_grad=True)
    other = torch.tensor([0.01, 50.0], requires_grad=True)
    value = scale_by_time(task, other, times)
    share = task_shares(times)
    assert value.item() == pytest.approx(2.5)  # w a + (1 - w) (a / b) b = a, clip by clip
    value.backward()
    assert torch.allclose(task.grad, share / 2)
    assert torch.allclose(other.grad, (1 - share) * torch.tensor([2.0 / 0.01, 3.0 / 50.0]) / 2)


def test_a_perfect_student_is_left_with_the_task_alone() -> None:
    value = scale_by_time(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([0.2]))
    assert value.item() == pytest.approx(task_shares(torch.tensor([0.2])).item())


# -- a larger teacher --------------------------------------------------------------------------------------------------


def test_stages_of_equal_resolution_are_paired(make_network: MakeNetwork) -> None:
    pairs = pair_features(make_network(0).spec, wide_network(0).spec)
    assert [(pair.stage, pair.student_channels, pair.teacher_channels) for pair in pairs] == [
        ("down0", 48, 64), ("down1", 80, 80), ("mid", 80, 80)
    ]  # fmt: skip


def test_middle_of_a_deeper_teacher_is_not_paired(make_network: MakeNetwork) -> None:
    stages = pruned_unet_stages(tuple(Level(channels=48, up_blocks=(0,)) for _ in range(3)), source_levels=3)
    deeper = replace(tiny_backbone(), stages=stages)
    assert [pair.stage for pair in pair_features(make_network(0).spec, deeper)] == ["down0", "down1"]


def test_adapters_stand_only_where_widths_differ(make_network: MakeNetwork) -> None:
    pairs = pair_features(make_network(0).spec, wide_network(0).spec)
    adapters = make_adapters(pairs, seed=3)
    assert list(adapters) == ["down0"]
    assert same_weights(adapters, make_adapters(pairs, seed=3))
    features = [torch.randn(2, 3, channels, 4, 4) for channels in (48, 80, 80)]
    adapted = adapt_features(features, pairs, adapters)
    assert [item.shape[2] for item in adapted] == [64, 80, 80]
    assert torch.equal(adapted[1], features[1])
    by_hand = torch.einsum("oi,btihw->btohw", adapters["down0"].weight[:, :, 0, 0], features[0])
    assert torch.allclose(adapted[0], by_hand + adapters["down0"].bias[:, None, None], atol=1e-5)


def test_student_learns_from_a_larger_teacher_and_keeps_no_adapter(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    teacher = wide_network(0)
    nn.init.normal_(teacher.conv_out.weight, std=0.2)
    options = DistillationOptions(loop=LoopOptions(steps=40, batch_size=8, warmup_steps=2, log_every=10))
    student, names = make_network(1), set(make_network(1).state_dict())
    distil(kit.with_denoiser(student), kit.with_denoiser(teacher), data, options=options, folder=tmp_path / "d",
           streams=streams)  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["output_loss"] < 0.85 * rows[0]["output_loss"]
    assert rows[-1]["feature_loss"] < 0.85 * rows[0]["feature_loss"]
    assert set(load_kit(tmp_path / "d").denoiser.state_dict()) == names


def test_killed_distillation_from_a_larger_teacher_resumes_to_the_same_losses(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path, kill_at: KillAt
) -> None:
    options = DistillationOptions(loop=LOOP, scaling="timestep_aware", draws=2)

    def train(folder: Path, progress: Progress | None = None) -> None:
        distil(kit.with_denoiser(make_network(1)), kit.with_denoiser(wide_network(0)), data, options=options,
               folder=folder / "d", streams=streams, progress=progress)  # fmt: skip

    train(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(tmp_path / "broken", kill_at(5))
    train(tmp_path / "broken")
    assert losses(tmp_path / "broken" / "metrics.jsonl") == losses(tmp_path / "whole" / "metrics.jsonl")


# -- fixed draws and the cache -----------------------------------------------------------------------------------------


def make_draws(data: LatentClips, kit: Kit, *, seed: int = 5, **noise: float) -> FixedDraws:
    return FixedDraws(
        data=data, captions=kit.captions, options=NoiseOptions(**noise), per_clip=2, streams=RandomStreams(seed)
    )


def drawn(clips: list[int], draws: list[int], *, images: bool = False) -> Drawn:
    return Drawn(clips=torch.tensor(clips), draws=torch.tensor(draws), images=images)


def test_a_draw_depends_on_seed_clip_and_number_alone(kit: Kit, data: LatentClips) -> None:
    draws = make_draws(data, kit)
    one = draws.make(drawn([3, 7, 3], [0, 1, 1]), CPU)
    two = draws.make(drawn([7, 9, 3], [1, 0, 0]), CPU)
    assert torch.equal(one.noisy[0], two.noisy[2])
    assert torch.equal(one.noisy[1], two.noisy[0])
    assert one.times[0] != one.times[2]
    assert not torch.equal(one.noise[0], one.noise[2])
    other = make_draws(data, kit, seed=6).make(drawn([3], [0]), CPU)
    assert not torch.equal(other.noise[0], one.noise[0])


def test_fixed_draws_have_the_statistics_of_fresh_noise(kit: Kit, data: LatentClips) -> None:
    draws = make_draws(data, kit, text_dropout=0.3, time_mean=0.5)
    every = [draws.make(drawn(list(range(32)), [number] * 32), CPU) for number in range(40)]
    times = torch.logit(torch.cat([batch.times for batch in every]))
    dropped = torch.cat([(batch.text == 0).all(dim=1) for batch in every]).float()
    count = len(times)
    assert times.mean().item() == pytest.approx(0.5, abs=4 / count**0.5)
    assert times.std().item() == pytest.approx(1.0, abs=0.1)
    assert dropped.mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / count) ** 0.5)
    assert torch.cat([batch.noise for batch in every]).std().item() == pytest.approx(1.0, abs=0.01)


def test_image_batches_come_at_their_rate_and_are_single_frames(kit: Kit, data: LatentClips) -> None:
    draws = make_draws(data, kit, image_ratio=0.5)
    generator = torch.Generator().manual_seed(0)
    batches = [
        draws.choose(Batch(indices=torch.arange(4), generator=generator, step=step, device=CPU)) for step in range(200)
    ]
    images = [batch for batch in batches if batch.images]
    assert 70 < len(images) < 130
    assert draws.make(images[0], CPU).clean.shape == (4, 1, 16, 4, 4)


@pytest.mark.parametrize("image_ratio", [0.0, 0.4])
def test_losses_with_the_cache_are_those_without_it_to_the_bit(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path, image_ratio: float
) -> None:
    nn.init.normal_(kit.denoiser.conv_out.weight, std=0.2)
    options = DistillationOptions(
        loop=replace(LOOP, steps=12), noise=NoiseOptions(image_ratio=image_ratio), draws=2, start_from_teacher=False
    )
    students = []
    for name, cache in (("without", False), ("with", True)):
        student = make_network(1)
        distil(kit.with_denoiser(student), kit, data, options=replace(options, cache=cache),
               folder=tmp_path / name / "d", streams=streams)  # fmt: skip
        students.append(student)
    assert losses(tmp_path / "with" / "metrics.jsonl") == losses(tmp_path / "without" / "metrics.jsonl")
    assert same_weights(*students)
    assert (tmp_path / "with" / "teacher_cache" / "cache.json").is_file()


def test_losses_with_the_cache_ask_the_teacher_nothing(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    options = DistillationOptions(loop=LOOP, draws=1, cache=True)
    cache = tmp_path / "shared"
    distil(kit.with_denoiser(make_network(1)), kit, data, options=options, folder=tmp_path / "a", streams=streams,
           cache=cache)  # fmt: skip
    calls: list[int] = []
    kit.denoiser.forward_with_features = lambda *_: calls.append(1)  # type: ignore[method-assign]
    distil(kit.with_denoiser(make_network(2)), kit, data, options=options, folder=tmp_path / "b", streams=streams,
           cache=cache)  # fmt: skip
    assert calls == []


def make_cache(kit: Kit, data: LatentClips, folder: Path, **noise: float) -> TeacherCache:
    teacher = Teacher(denoiser=kit.denoiser.eval(), captions=kit.captions, features=(0, 2))
    return TeacherCache(folder, teacher, make_draws(data, kit, **noise), loop=LOOP, device=CPU)


def test_interrupted_filling_goes_on(
    kit: Kit, data: LatentClips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_cache(kit, data, tmp_path, image_ratio=0.0)
    assert first.fill() == 2 * 32
    before = first.read(drawn([31, 0], [1, 0]), CPU)
    (tmp_path / "video-001-00000.safetensors").unlink()
    again = make_cache(kit, data, tmp_path, image_ratio=0.0)
    assert again.fill() == 32
    after = again.read(drawn([31, 0], [1, 0]), CPU)
    assert torch.equal(before.velocity, after.velocity)
    assert all(torch.equal(one, two) for one, two in zip(before.features, after.features, strict=True))
    assert not caplog.records  # nothing depended on the batch


def test_cache_of_another_teacher_or_noise_is_refused(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, tmp_path: Path
) -> None:
    make_cache(kit, data, tmp_path)
    with pytest.raises(CheckpointError, match=r"these differ: teacher$"):
        make_cache(kit.with_denoiser(make_network(4)), data, tmp_path)
    with pytest.raises(CheckpointError, match=r"these differ: noise$"):
        make_cache(kit, data, tmp_path, time_mean=0.1)


def test_damaged_shard_is_named(kit: Kit, data: LatentClips, tmp_path: Path) -> None:
    make_cache(kit, data, tmp_path, image_ratio=0.0).fill()
    shard = tmp_path / "video-000-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"video-000-00000\.safetensors: cannot be read"):
        make_cache(kit, data, tmp_path, image_ratio=0.0).read(drawn([0], [0]), CPU)


def test_full_disk_is_said_before_anything_is_written(
    kit: Kit, data: LatentClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(kit, data, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UnavailableError, match=r"answers need \d+ MB, 0 MB are free"):
        cache.fill()
    assert not list(tmp_path.glob("*.safetensors"))


def test_teacher_whose_answers_depend_on_the_batch_is_announced(
    kit: Kit, data: LatentClips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Mixing(nn.Module):
        def forward_with_features(
            self, noisy: torch.Tensor, *_: torch.Tensor
        ) -> tuple[torch.Tensor, list[torch.Tensor]]:
            mixed = noisy + noisy.mean()
            return mixed, [mixed, mixed, mixed]

    make_cache(kit.with_denoiser(Mixing()), data, tmp_path).fill()
    assert "depends on the batch it is in" in caplog.text


def test_cache_without_fixed_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="cache needs draws"):
        DistillationOptions(cache=True)


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_teacher_of_other_latents_and_text_is_refused_before_the_first_step(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    teacher = wide_network(0, latent_channels=4, text_width=768)
    with pytest.raises(ConfigError) as caught:
        distil(kit.with_denoiser(make_network(1)), kit.with_denoiser(teacher), data,
               options=DistillationOptions(loop=LOOP), folder=tmp_path / "d", streams=streams)  # fmt: skip
    message = str(caught.value)
    assert "teacher 'wide' cannot teach student 'tiny'" in message
    assert "the student's latents have 16 channels, the teacher's 4" in message
    assert "the student's text tokens are 64 wide, the teacher's 768" in message
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "d").exists()


def test_clips_that_a_network_has_no_positions_for_are_refused(make_network: MakeNetwork) -> None:
    network = make_network(0)
    require_same_world(network, wide_network(0), latent_shape=(8, 16, 4, 4))
    with pytest.raises(ConfigError, match="the clips have 40 latent frames, the student has positions for 32"):
        require_same_world(network, wide_network(0), latent_shape=(40, 16, 4, 4))


def test_weights_of_another_architecture_are_named_with_their_shapes(make_network: MakeNetwork) -> None:
    with pytest.raises(CheckpointError) as caught:
        require_weights_fit(wide_network(0).state_dict(), make_network(0).state_dict(), what="model.safetensors")
    message = str(caught.value)
    assert "model.safetensors: weights of another architecture" in message
    assert "conv_in.bias (64,), needs (48,)" in message
    assert "missing (temporal_layers" in message
    assert "unknown (down_blocks.0.resnets.1" in message


def test_folder_of_another_architecture_is_named_with_its_shapes(
    kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path, kill_at: KillAt
) -> None:
    options, folder = TeacherOptions(loop=LOOP), tmp_path / "t"
    with pytest.raises(InterruptedError):
        train_teacher(kit, data, options=options, folder=folder, streams=streams, progress=kill_at(3))
    other = kit.with_denoiser(wide_network(0))
    with pytest.raises(CheckpointError, match=r"step-00000002: .*another architecture: .*conv_in.bias \(48,\), needs"):
        train_teacher(other, data, options=options, folder=folder, streams=streams)
    train_teacher(kit, data, options=options, folder=folder, streams=streams)
    with pytest.raises(
        CheckpointError, match=r"model.safetensors: .*another architecture: .*conv_in.bias \(48,\), needs"
    ):
        train_teacher(other, data, options=options, folder=folder, streams=streams)


def test_clip_errors_are_one_value_a_clip() -> None:
    assert clip_errors(torch.zeros(2, 1, 2, 1, 1), torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1, 1)).tolist() == [1, 4]
