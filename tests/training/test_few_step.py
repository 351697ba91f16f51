"""Baselines and switches of the few-step stages: formulas, bit-exact resume, and what each switch leaves out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from nas.core.protocols import Progress
from nas.models.unet import VideoUNet
from nas.training.adversarial import AdversarialLosses, make_discriminator, tune_adversarially
from nas.training.consistency import ConsistencyLoss, distil_consistency
from nas.training.loop import Batch
from nas.training.losses import gradient_penalty
from nas.training.noise import log_normal_levels, log_normal_times
from nas.training.options import (
    AdversarialOptions,
    CollectionOptions,
    ConsistencyOptions,
    LoopOptions,
    ProgressiveOptions,
)
from nas.training.progressive import HalvingLoss, distil_progressively
from nas.training.trajectory import Trajectories, collect_trajectories

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.rng import RandomStreams
    from nas.training.data import LatentClips
    from nas.training.stage import Kit

MakeNetwork = Callable[[int], VideoUNet]
KillAt = Callable[[int], Progress]
LOOP = LoopOptions(steps=2, batch_size=2, warmup_steps=1, checkpoint_every=1, log_every=1)


@pytest.fixture
def ways(kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path) -> Trajectories:
    options = CollectionOptions(num_clips=4, substeps=1)
    return collect_trajectories(kit, data, options=options, path=tmp_path / "ways.safetensors", streams=streams)


@pytest.fixture
def batch() -> Batch:
    return Batch(
        indices=torch.arange(4), generator=torch.Generator().manual_seed(0), step=0, device=torch.device("cpu")
    )


@pytest.mark.parametrize(("mean", "std"), [(-1.0, 1.0), (0.5, 0.7)])
def test_log_normal_levels_have_the_probabilities_of_sf_v(mean: float, std: float) -> None:
    levels = 50
    grid = [(0.002 ** (1 / 7) + i / levels * (700 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7 for i in range(levels + 1)]
    heights = [math.erf((math.log(sigma) - mean) / (math.sqrt(2) * std)) for sigma in grid]
    wanted = [(b - a) / (heights[-1] - heights[0]) for a, b in itertools.pairwise(heights)]
    times, probabilities = log_normal_levels(mean=mean, std=std, levels=levels)
    assert probabilities.tolist() == pytest.approx(wanted, abs=1e-6)
    assert times.tolist() == pytest.approx([sigma / (1 + sigma) for sigma in grid[1:]], abs=1e-6)


def test_log_normal_times_have_their_median_at_the_mean() -> None:
    times = log_normal_times(4000, mean=-1.0, std=1.0, generator=torch.Generator().manual_seed(0))
    assert times.median().item() == pytest.approx(math.exp(-1) / (1 + math.exp(-1)), abs=0.02)


def test_gradient_penalty_of_a_linear_score_is_half_its_squared_weights() -> None:
    weights = torch.tensor([3.0, 4.0])
    clips = torch.randn(5, 2, requires_grad=True)
    assert gradient_penalty([(clips @ weights).unsqueeze(1)], [clips]).item() == pytest.approx(12.5)


@pytest.mark.parametrize("where", ["features", "clips"])
def test_r1_adds_to_the_loss_of_the_heads(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, ways: Trajectories, batch: Batch, where: str
) -> None:
    discriminator = make_discriminator(kit, head_width=8, seed=0)
    options = AdversarialOptions(r1_weight=10.0, r1_on=where)  # type: ignore[arg-type]  # a table of cases
    loss, values = AdversarialLosses(kit.with_denoiser(make_network(1)), discriminator, data, ways, options).heads(
        batch
    )
    plain = dataclasses.replace(options, r1_weight=0.0)
    again = Batch(indices=batch.indices, generator=torch.Generator().manual_seed(0), step=0, device=batch.device)
    without = AdversarialLosses(kit.with_denoiser(make_network(1)), discriminator, data, ways, plain).heads(again)[0]
    assert values["gradient_penalty"].item() > 0
    penalty = values["gradient_penalty"] + options.image_ratio * values["image_gradient_penalty"]
    assert loss.item() == pytest.approx(without.item() + 10.0 * penalty.item(), rel=1e-3)
    loss.backward()
    assert discriminator.heads[0].shrink.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in kit.denoiser.parameters())


SWITCHES: dict[str, dict[str, Any]] = {
    "trajectory, Euler steps, no guidance": {"sampler": "euler", "reconstruction_guidance": 1.0, "image_ratio": 0.5},
    "trajectory, log-normal": {"generator_input": "trajectory", "noise": "log_normal", "image_ratio": 0.5},
    "real, R1 on clips": {"generator_input": "real", "r1_weight": 0.1, "r1_on": "clips", "reconstruction_weight": 0.1},
    "no video heads, R1 on features, flow": {
        "video_heads": False, "r1_weight": 0.1, "reconstruction": "flow", "reconstruction_weight": 0.1
    },
    "no image heads, no anchor": {"image_heads": False, "anchor_weight": 0.0},
    "no discriminator": {"adversarial_weight": 0.0, "reconstruction_weight": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_killed_tuning_resumes_to_the_bit_and_never_moves_the_encoder(
    kit: Kit,
    make_network: MakeNetwork,
    data: LatentClips,
    ways: Trajectories,
    streams: RandomStreams,
    tmp_path: Path,
    kill_at: KillAt,
    switches: dict[str, Any],
) -> None:
    options = AdversarialOptions(loop=LOOP, head_width=8, **switches)
    encoder = {name: value.clone() for name, value in kit.denoiser.state_dict().items()}
    before = make_network(1).state_dict()

    def tune(folder: str, progress: Progress | None = None) -> nn.Module:
        student = kit.with_denoiser(make_network(1))
        tune_adversarially(
            student,
            kit,
            data,
            ways,
            options=options,
            folder=tmp_path / folder / "a",
            streams=streams,
            progress=progress,
        )
        return student.denoiser

    whole = tune("whole")
    with pytest.raises(InterruptedError):
        tune("broken", kill_at(1))
    resumed = tune("broken")
    assert (tmp_path / "broken/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert not all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    assert all(torch.equal(value, encoder[name]) for name, value in kit.denoiser.state_dict().items())


@pytest.mark.parametrize("start", ["real", "trajectory"])
def test_the_generator_learns_from_the_discriminator_alone(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, ways: Trajectories, batch: Batch, start: str
) -> None:
    student = make_network(1)
    nn.init.normal_(student.conv_out.weight, std=0.1)
    options = AdversarialOptions(generator_input=start, anchor_weight=0.0, image_ratio=0.0)  # type: ignore[arg-type]  # a table of cases
    discriminator = make_discriminator(kit, head_width=8, seed=0)
    AdversarialLosses(kit.with_denoiser(student), discriminator, data, ways, options).generator(batch)[0].backward()
    assert student.conv_in.weight.grad is not None
    assert student.conv_in.weight.grad.abs().sum() > 0


def test_without_video_heads_no_head_mixes_frames(kit: Kit) -> None:
    names = [name for name, _ in make_discriminator(kit, head_width=8, seed=0, temporal=False).named_parameters()]
    assert names
    assert not any("attention" in name for name in names)


def test_without_image_heads_no_images_are_fetched(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, ways: Trajectories, batch: Batch
) -> None:
    class ClipsOnly:
        description = "clips only"

        def __len__(self) -> int:
            return len(data)

        def __getattr__(self, name: str) -> Any:
            assert name in ("fetch", "fetch_text")
            return getattr(data, name)

    options = AdversarialOptions(image_heads=False, image_ratio=1.0)
    discriminator = make_discriminator(kit, head_width=8, seed=0)
    losses = AdversarialLosses(kit.with_denoiser(make_network(1)), discriminator, ClipsOnly(), ways, options)  # type: ignore[arg-type]  # has what is used
    assert torch.isfinite(losses.heads(batch)[0])


def test_images_are_judged_beside_the_clips_and_change_no_other_term(
    kit: Kit,
    make_network: MakeNetwork,
    data: LatentClips,
    ways: Trajectories,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    discriminator = make_discriminator(kit, head_width=8, seed=0)
    encode, judged = kit.denoiser.encode, []

    def spy(sample: Tensor, *arguments: Tensor) -> list[Tensor]:
        judged.append(tuple(sample.shape[:2]))
        return encode(sample, *arguments)

    monkeypatch.setattr(kit.denoiser, "encode", spy)
    joint = AdversarialOptions(image_ratio=0.3, adversarial_weight=0.7)
    found, totals = [], []
    for options in (joint, dataclasses.replace(joint, image_heads=False)):
        student = make_network(1)
        nn.init.normal_(student.conv_out.weight, generator=torch.Generator().manual_seed(0), std=0.1)
        losses = AdversarialLosses(kit.with_denoiser(student), discriminator, data, ways, options)
        again = Batch(indices=batch.indices, generator=torch.Generator().manual_seed(0), step=0, device=batch.device)
        total, terms = losses.generator(again)
        found.append(terms)
        totals.append(total.item())
        losses.heads(batch)
    images = found[0].pop("image_loss")
    assert {name: value.item() for name, value in found[0].items()} == {
        name: value.item() for name, value in found[1].items()
    }
    assert images.item() != 0.0
    assert totals[0] - totals[1] == pytest.approx(0.3 * 0.7 * images.item(), rel=1e-3)
    clips = [(4, 8), (4, 8), (1, 8)]  # real, generated, wrongly captioned
    assert judged == [(4, 8), (2, 1), *clips, (2, 1), (2, 1), (4, 8), *clips]


@pytest.mark.parametrize("start", ["real", "trajectory"])
def test_the_generator_makes_whole_clips_where_all_steps_judge_images(
    kit: Kit, data: LatentClips, ways: Trajectories, batch: Batch, start: Any
) -> None:
    student = Straight()
    discriminator = make_discriminator(kit, head_width=8, seed=0)
    options = AdversarialOptions(generator_input=start, image_ratio=1.0)
    losses = AdversarialLosses(kit.with_denoiser(student), discriminator, data, ways, options)
    losses.heads(batch)
    losses.generator(batch)[1]["image_loss"].backward()
    assert set(student.frames) == {8}
    assert student.one.grad is not None
    assert student.one.grad != 0


class Constant(nn.Module):
    """A denoiser whose velocity is a weight plus the mean of its caption's first feature."""

    def __init__(self, value: float, *, text: float = 0.0) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.text = text

    def forward(self, sample: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002  # the protocol's signature
        return torch.zeros_like(sample) + self.value + self.text * tokens[:, :, 0].mean(dim=1).reshape(-1, 1, 1, 1, 1)


class Straight(nn.Module):
    """The exact denoiser of data that is zero; keeps the times it was asked at, and whether for a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.calls: list[tuple[int, bool]] = []
        self.frames: list[int] = []

    def forward(self, sample: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002  # the protocol's signature
        self.calls.append((round(float(timestep[0])), torch.is_grad_enabled()))
        self.frames.append(sample.shape[1])
        return self.one * sample / (timestep.reshape(-1, 1, 1, 1, 1) / 1000)


@pytest.mark.parametrize("sampler", ["euler", "renoise"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("reconstruction", ["flow", "pseudo_huber"])
def test_reconstruction_asks_for_the_real_clip_and_the_teachers_guidance(
    kit: Kit, data: LatentClips, ways: Trajectories, batch: Batch, sampler: Any, guidance: float, reconstruction: Any
) -> None:
    options = AdversarialOptions(
        adversarial_weight=0.0,
        anchor_weight=0.0,
        reconstruction_weight=1.0,
        reconstruction=reconstruction,
        reconstruction_guidance=guidance,
        sampler=sampler,
        image_ratio=0.0,
        huber_width=0.1,
    )
    student, teacher = Straight(), SimpleNamespace(encoder=Constant(3.0, text=1.0))
    still = dataclasses.replace(data, latents=torch.zeros_like(data.latents))
    losses = AdversarialLosses(kit.with_denoiser(student), teacher, still, ways, options)  # type: ignore[arg-type]  # has what is used
    found = losses.generator(batch)[0].item()
    with torch.no_grad():
        with_text = kit.captions(data.fetch_text(batch.indices)).tokens[:, :, 0].mean(dim=1)
        empty = kit.captions(kit.captions.empty_text(1)).tokens[:, :, 0].mean()
    away = (guidance - 1.0) * (with_text - empty)  # the student leads back to zero, where the clips are
    wanted = away.square() if reconstruction == "flow" else ((0.25 * away).square() + 0.01).sqrt() - 0.1
    assert found == pytest.approx(wanted.mean().item(), rel=1e-3, abs=1e-6)
    assert student.calls == [(500, False), (250, True)]


def test_the_clip_that_is_judged_is_two_steps_of_the_sampler_away(
    kit: Kit, data: LatentClips, ways: Trajectories, batch: Batch
) -> None:
    student = Straight()
    options = AdversarialOptions(anchor_weight=0.0, reconstruction_weight=0.0, image_ratio=0.0)
    discriminator = make_discriminator(kit, head_width=8, seed=0)
    AdversarialLosses(kit.with_denoiser(student), discriminator, data, ways, options).generator(batch)
    assert student.calls == [(500, False), (250, True)]


def test_halving_a_straight_way_asks_for_the_same_velocity(kit: Kit, data: LatentClips, batch: Batch) -> None:
    teacher = kit.with_denoiser(Constant(2.0))
    same = HalvingLoss(student=teacher, teacher=teacher, data=data, steps=4, guidance=3.0, huber_width=0.1)
    other = dataclasses.replace(same, student=kit.with_denoiser(Constant(0.0)))
    assert same(batch)[0].item() == pytest.approx(0.0, abs=1e-6)
    assert other(batch)[0].item() == pytest.approx(math.sqrt(4.0 + 0.01) - 0.1, rel=1e-4)


def test_the_first_halving_folds_guidance_in(kit: Kit, data: LatentClips, batch: Batch) -> None:
    teacher = kit.with_denoiser(Constant(0.0, text=1.0))
    loss = HalvingLoss(student=kit.with_denoiser(Constant(0.0)), teacher=teacher, data=data, steps=4, guidance=3.0,
                       huber_width=1e-6)  # fmt: skip
    with torch.no_grad():
        captions = kit.captions(data.fetch_text(batch.indices)).tokens[:, :, 0].mean(dim=1)
        empty = kit.captions(kit.captions.empty_text(1)).tokens[:, :, 0].mean()
    wanted = (empty + 3.0 * (captions - empty)).abs().mean().item()
    assert loss(batch)[0].item() == pytest.approx(wanted, rel=1e-3)


def test_steps_are_halved_down_to_the_last() -> None:
    assert ProgressiveOptions().student_steps == (16, 8, 4)
    with pytest.raises(ValueError, match="halves 24 steps and never comes to 4"):
        ProgressiveOptions(teacher_steps=24)


def test_progressive_distillation_trains_every_halving_and_resumes(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path, kill_at: KillAt
) -> None:
    options = ProgressiveOptions(loop=LOOP, teacher_steps=8, final_steps=2)
    student, other = (kit.with_denoiser(make_network(1)) for _ in range(2))
    first = distil_progressively(student, kit, data, options=options, folder=tmp_path / "p", streams=streams)
    assert first.stage == "progressive"
    assert (tmp_path / "p/steps-4/stage.json").is_file()
    again = distil_progressively(
        other, kit, data, options=options, folder=tmp_path / "p", streams=streams, progress=kill_at(0)
    )
    assert again.reused
    assert all(
        torch.equal(value, other.denoiser.state_dict()[name]) for name, value in student.denoiser.state_dict().items()
    )


def test_consistency_is_kept_by_straight_ways(kit: Kit, data: LatentClips, batch: Batch) -> None:
    # Along a straight way every point predicts the same end, so nothing is left to learn.
    straight = kit.with_denoiser(Constant(1.5))
    loss = ConsistencyLoss(straight, straight, straight.denoiser, data, ConsistencyOptions())
    assert loss(batch)[0].item() == pytest.approx(0.0, abs=1e-6)


def test_the_target_network_follows_once_a_step(kit: Kit, data: LatentClips, batch: Batch) -> None:
    student, target = Constant(1.0), Constant(0.0)
    teacher = kit.with_denoiser(Constant(0.0))
    options = ConsistencyOptions(target_decay=0.9)
    loss = ConsistencyLoss(kit.with_denoiser(student), teacher, target, data, options)
    seen = []
    for step in (0, 1, 1, 2):
        loss(Batch(indices=batch.indices, generator=batch.generator, step=step, device=batch.device))
        seen.append(target.value.item())
    assert seen == pytest.approx([0.0, 0.1, 0.1, 0.19])


def test_killed_consistency_distillation_resumes_to_the_bit(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path, kill_at: KillAt
) -> None:
    options = ConsistencyOptions(loop=LOOP)

    def distil(folder: str, progress: Progress | None = None) -> nn.Module:
        student = kit.with_denoiser(make_network(1))
        place = tmp_path / folder / "c"
        distil_consistency(student, kit, data, options=options, folder=place, streams=streams, progress=progress)
        return student.denoiser

    whole = distil("whole")
    with pytest.raises(InterruptedError):
        distil("broken", kill_at(1))
    resumed = distil("broken")
    assert (tmp_path / "broken/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
