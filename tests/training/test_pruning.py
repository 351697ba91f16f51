"""Pruning: importance by removal, greedy and exact choice, robust training, and distillation of what is left."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from nas.core.errors import BudgetError
from nas.core.protocols import Progress
from nas.models.pruned import build_pruned, build_source
from nas.training.data import make_latent_clips
from nas.training.importance import RemovalLoss
from nas.training.noise import TIME_SCALE
from nas.training.options import DistillationOptions, ImportanceOptions, LoopOptions, NoiseOptions, RobustOptions
from nas.training.pruning import distil_pruned, draw_removal, train_robustly
from nas.training.pruning_choice import (
    Limit,
    LossRise,
    PruningProblem,
    added_rise,
    choose_exactly,
    choose_greedily,
    exchange,
    score_units,
)
from nas.training.teacher_targets import Drawn, FixedDraws
from search_spaces.pruning import (
    SourceUNet,
    full_layout,
    layout_cost,
    layout_without,
    may_remove,
    parameter_table,
    removable_units,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from nas.core.rng import RandomStreams
    from nas.training.codec import PatchCodec
    from nas.training.data import LatentClips
    from nas.training.stage import Kit

KillAt = Callable[[int], Progress]
LOOP = LoopOptions(steps=6, batch_size=4, warmup_steps=2, checkpoint_every=2, log_every=1)
IMAGES = NoiseOptions(image_ratio=1.0)


def make_source(**changes: object) -> SourceUNet:
    """Two levels of equal width, one of them with transformers: 16 units."""
    fields: dict[str, object] = {
        "name": "toy",
        "channels": (16, 16),
        "attention_levels": (1,),
        "latent_channels": 16,
        "latent_downsampling": 8,
        "text_width": 64,
        "text_tokens": 12,
        "norm_groups": 8,
        "attention_heads": 2,
        "time_width": 32,
        "width_multiple": 8,
    }
    return SourceUNet(**(fields | changes))  # type: ignore[arg-type]


SOURCE = make_source()


def losses(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


@pytest.fixture
def teacher(kit: Kit) -> Kit:
    torch.manual_seed(0)
    network = build_source(SOURCE)
    nn.init.normal_(network.conv_out.weight, std=0.2)
    return kit.with_denoiser(network)


# One block on the way down, two on the way up: few enough removals to try them all.
SMALL = make_source(blocks=1)


def table(
    source: SourceUNet, values: dict[str, float], rest: float = 5.0, middle: float = 1.0
) -> dict[int, dict[str, float]]:
    """The same costs at every depth but for the middle, which is dearer where a level is gone."""
    blocks = {unit.name: values[unit.name] for unit in removable_units(source) if unit.kind != "level"}
    blocks |= {name: 1.0 for name in parameter_table(source)[2] if name not in {*blocks, "rest"}}
    return {
        2: {"rest": rest, **blocks},
        1: {
            "rest": rest / 2,
            **{
                name: value + (middle if name.startswith("mid") else 0.0)
                for name, value in blocks.items()
                if not name.startswith(("down_blocks.1", "up_blocks.0"))
            },
        },
    }


def random_case(seed: int) -> tuple[PruningProblem, dict[str, LossRise]]:
    rng = random.Random(seed)
    names = [unit.name for unit in removable_units(SMALL)]
    costs = table(SMALL, {name: rng.uniform(0.5, 3.0) for name in names})
    whole = layout_cost(SMALL, full_layout(SMALL), costs)
    limits = [Limit(name="latency_ms", table=costs, most=rng.uniform(0.4, 0.9) * whole)]
    if seed % 2:
        parameters = parameter_table(SMALL)
        most = rng.uniform(0.6, 0.95) * layout_cost(SMALL, full_layout(SMALL), parameters)
        limits.append(Limit(name="parameters", table=parameters, most=most))
    scores = {name: LossRise(mean=rng.uniform(-0.1, 1.0), standard_error=0.0) for name in names}
    return PruningProblem(source=SMALL, limits=tuple(limits)), scores


def additive(source: SourceUNet, scores: dict[str, LossRise]) -> Callable[[Collection[str]], LossRise]:
    return lambda removed: LossRise(mean=added_rise(source, scores, removed), standard_error=0.0)


def every_removal() -> list[frozenset[str]]:
    """All sets that leave a network, by brute force."""
    found = {frozenset[str]()}
    stack = [frozenset[str]()]
    while stack:
        removed = stack.pop()
        reached = {removed | {unit.name} for unit in may_remove(SMALL, removed)} - found
        found |= reached
        stack += reached
    return sorted(found, key=sorted)


@pytest.fixture(scope="module")
def removals() -> list[frozenset[str]]:
    return every_removal()


@pytest.mark.parametrize("seed", range(6))
def test_exact_choice_is_that_of_brute_force(seed: int, removals: list[frozenset[str]]) -> None:
    problem, scores = random_case(seed)
    measure = additive(SMALL, scores)
    feasible = [removed for removed in removals if not problem.excess(removed)]
    best = min(measure(removed).mean for removed in feasible)
    found = choose_exactly(problem, scores, measure)
    assert not problem.excess(found.removed)
    assert found.added_rises == pytest.approx(best)
    layout_without(SMALL, found.removed)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_choice_meets_the_limits_and_is_no_better_than_the_exact_one(seed: int) -> None:
    problem, scores = random_case(seed)
    measure = additive(SMALL, scores)
    found = choose_greedily(problem, measure)
    assert not problem.excess(found.removed)
    assert found.rise.mean >= choose_exactly(problem, scores, measure).rise.mean - 1e-9


def test_greedy_choice_removes_the_least_rise_per_millisecond_first() -> None:
    names = [unit.name for unit in removable_units(SOURCE)]
    blocks = {name: float(".resnets." in name) for name in names}
    costs = table(SOURCE, {**blocks, "up_blocks.1.resnets.1": 4.0})
    rises = dict.fromkeys(names, 1.0) | {"up_blocks.1.resnets.1": 2.0, "level.1": 100.0}
    whole = layout_cost(SOURCE, full_layout(SOURCE), costs)
    problem = PruningProblem(source=SOURCE, limits=(Limit(name="latency_ms", table=costs, most=whole - 3.0),))
    scores = {name: LossRise(mean=value, standard_error=0.0) for name, value in rises.items()}
    assert choose_greedily(problem, additive(SOURCE, scores)).removed == {
        "up_blocks.1.resnets.1"
    }  # 2 / 4 ms beats 1 / 1 ms


def test_greedy_choice_measures_again_after_every_removal() -> None:
    # Two blocks are cheap to lose alone and ruinous together: additive scores cannot know.
    names = [unit.name for unit in removable_units(SOURCE)]
    # Transformers cost nothing, so that every block saves the same.
    costs = table(SOURCE, {name: float(".resnets." in name) for name in names})
    whole = layout_cost(SOURCE, full_layout(SOURCE), costs)
    problem = PruningProblem(source=SOURCE, limits=(Limit(name="latency_ms", table=costs, most=whole - 2.0),))
    pair = {"up_blocks.1.resnets.0", "up_blocks.1.resnets.1"}
    scores = {name: LossRise(mean=0.1 if name in pair else 0.5, standard_error=0.0) for name in names}
    scores["level.1"] = LossRise(mean=100.0, standard_error=0.0)

    def measure(removed: Collection[str]) -> LossRise:
        return LossRise(mean=added_rise(SOURCE, scores, removed) + 9.0 * (pair <= set(removed)), standard_error=0.0)

    exact = choose_exactly(problem, scores, measure)
    assert exact.removed == pair
    assert exact.rise.mean == pytest.approx(9.2)
    assert exact.added_rises == pytest.approx(0.2)
    assert choose_greedily(problem, measure).rise.mean == pytest.approx(0.6)
    better = exchange(problem, exact, scores, measure, tries=3)
    assert better.rise.mean == pytest.approx(0.6)
    assert not problem.excess(better.removed)


def test_limits_that_nothing_meets_name_the_nearest_miss() -> None:
    costs = table(SOURCE, dict.fromkeys((unit.name for unit in removable_units(SOURCE)), 1.0), rest=50.0)
    problem = PruningProblem(source=SOURCE, limits=(Limit(name="latency_ms", table=costs, most=10.0),))
    zero = additive(
        SOURCE, dict.fromkeys((unit.name for unit in removable_units(SOURCE)), LossRise(mean=0, standard_error=0))
    )
    with pytest.raises(BudgetError, match=r"the smallest network has latency_ms 29 \(limit 10\)"):
        choose_greedily(problem, zero)


def test_a_choice_within_the_limits_already_removes_nothing() -> None:
    costs = table(SOURCE, dict.fromkeys((unit.name for unit in removable_units(SOURCE)), 1.0))
    problem = PruningProblem(source=SOURCE, limits=(Limit(name="latency_ms", table=costs, most=1e9),))
    measure = additive(SOURCE, {unit.name: LossRise(mean=1.0, standard_error=0.0) for unit in removable_units(SOURCE)})
    assert choose_greedily(problem, measure).removed == frozenset()


# -- on networks -------------------------------------------------------------------------------------------------------


def make_loss(teacher: Kit, data: LatentClips, streams: RandomStreams, journal: Path | None = None) -> RemovalLoss:
    return RemovalLoss(
        teacher.denoiser, teacher, SOURCE, data, options=ImportanceOptions(batches=3, batch_size=8), noise=IMAGES,
        streams=streams, journal=journal, fingerprint="here",
    )  # fmt: skip


def test_rise_is_that_of_the_network_built_without_the_units(
    teacher: Kit, data: LatentClips, streams: RandomStreams
) -> None:
    removed = {"down_blocks.0.resnets.1", "up_blocks.1.resnets.2", "mid_block.attentions.0"}
    rise = make_loss(teacher, data, streams)(removed)
    pruned = build_pruned(teacher.denoiser, SOURCE, layout_without(SOURCE, removed), name="pruned").eval()
    draws = FixedDraws(data=data, captions=teacher.captions, options=IMAGES, per_clip=1, streams=streams)
    by_hand = []
    for clips in torch.arange(24).split(8):
        noisy = draws.make(Drawn(clips=clips, draws=torch.zeros_like(clips), images=True), torch.device("cpu"))
        arguments = (noisy.noisy, noisy.times * TIME_SCALE, teacher.captions(noisy.text).tokens)
        with torch.no_grad():
            one, features = pruned.forward_with_features(*arguments)
            two, wanted = teacher.denoiser.forward_with_features(*arguments)
        pairs = [(one, two)] + [(mine, theirs) for mine, theirs in zip(features, wanted, strict=True)]
        ratios = [((a - b) ** 2).mean(dim=(1, 2, 3, 4)) / (b**2).mean(dim=(1, 2, 3, 4)) for a, b in pairs]
        by_hand.append((ratios[0] + torch.stack(ratios[1:]).mean(dim=0)).mean().item())
    assert rise.mean == pytest.approx(sum(by_hand) / 3, rel=1e-4)
    assert rise.standard_error == pytest.approx(torch.tensor(by_hand).std().item() / 3**0.5, rel=1e-3)


def test_nothing_removed_raises_nothing(teacher: Kit, data: LatentClips, streams: RandomStreams) -> None:
    rise = make_loss(teacher, data, streams)(frozenset())
    assert (rise.mean, rise.standard_error) == (0.0, 0.0)


def test_measured_removals_are_read_back(
    teacher: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    journal = tmp_path / "removals.jsonl"
    scores = score_units(SOURCE, make_loss(teacher, data, streams, journal))
    assert set(scores) == {unit.name for unit in removable_units(SOURCE)}
    again = make_loss(teacher, data, streams, journal)
    again._network.forward_with_features = None  # type: ignore[assignment]  # any call would fail
    assert score_units(SOURCE, again) == scores
    lines = journal.read_text().splitlines()
    assert len(lines) == len(scores) + 1


@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_units_are_left_out_at_the_stated_rate(ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_removal(SOURCE, ratio=ratio, generator=generator) for _ in range(400)]
    for removed in drawn:
        layout_without(SOURCE, removed)
    share = sum("down_blocks.0.resnets.1" in removed for removed in drawn) / 400
    # The last block of a stage stays, so a block of two goes a little less often than drawn.
    assert ratio * (1 - ratio) - 0.08 < share < ratio + 0.08 or ratio == share == 0.0


def test_killed_robust_training_resumes_to_the_same_losses(
    teacher: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path, kill_at: KillAt
) -> None:
    options = RobustOptions(loop=LOOP, skip_ratio=0.3)

    def train(folder: Path, progress: Progress | None = None) -> None:
        student = build_pruned(teacher.denoiser, SOURCE, full_layout(SOURCE), name="student")
        train_robustly(teacher.with_denoiser(student), teacher, SOURCE, data, options=options,
                       folder=folder / "robust", streams=streams, progress=progress)  # fmt: skip

    train(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(tmp_path / "broken", kill_at(5))
    train(tmp_path / "broken")
    assert losses(tmp_path / "broken" / "metrics.jsonl") == losses(tmp_path / "whole" / "metrics.jsonl")


def test_robust_training_makes_removals_cheaper(
    teacher: Kit, codec: PatchCodec, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    held_out = make_latent_clips(24, codec=codec, captions=teacher.captions, seed=9, split="held_out")
    student = build_pruned(teacher.denoiser, SOURCE, full_layout(SOURCE), name="student")
    options = RobustOptions(
        loop=LoopOptions(steps=30, batch_size=16, warmup_steps=4), skip_ratio=0.3, task_weight=0.0, feature_weight=1.0
    )
    units = ("down_blocks.0.resnets.1", "up_blocks.1.resnets.1", "up_blocks.1.resnets.2")
    before = make_loss(teacher, held_out, streams)
    train_robustly(teacher.with_denoiser(student), teacher, SOURCE, data, options=options,
                   folder=tmp_path / "robust", streams=streams)  # fmt: skip
    after = RemovalLoss(
        student, teacher, SOURCE, held_out, options=ImportanceOptions(batches=3, batch_size=8), noise=IMAGES,
        streams=streams,
    )  # fmt: skip
    rises = [sum(loss({unit}).mean for unit in units) for loss in (before, after)]
    assert rises[1] < 0.7 * rises[0]


def test_pruned_network_is_distilled_towards_the_whole_one(
    teacher: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    layout = layout_without(SOURCE, {"up_blocks.1.resnets.1", "up_blocks.1.resnets.2", "level.1"})
    pruned = build_pruned(teacher.denoiser, SOURCE, layout, name="pruned")
    options = DistillationOptions(
        loop=LoopOptions(steps=40, batch_size=16, warmup_steps=2, log_every=10), noise=IMAGES, start_from_teacher=False
    )
    distil_pruned(teacher.with_denoiser(pruned), teacher, data, options=options, folder=tmp_path / "d", streams=streams)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["output_loss"] < 0.9 * rows[0]["output_loss"]


def test_pruned_network_does_not_start_by_names_that_mean_other_blocks(
    teacher: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="start_from_teacher must be false"):
        distil_pruned(teacher, teacher, data, options=DistillationOptions(), folder=tmp_path, streams=streams)
