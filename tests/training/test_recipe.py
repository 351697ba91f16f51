"""The recipe runs every stage, writes what the report reads, goes on after a kill and returns at once when finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nas.core.errors import InputError
from nas.models.unet import VideoUNet
from nas.training.clips import make_clips
from nas.training.data import make_latent_clips
from nas.training.evaluation import (
    evaluate,
    evaluate_real,
    generate,
    held_out_attributes,
    read_evaluation,
    real_samples,
    sample_attributes,
    write_gif,
)
from nas.training.noise import FIXED_TIMES, few_step_times
from nas.training.options import (
    AdversarialOptions,
    CollectionOptions,
    DistillationOptions,
    EvaluationOptions,
    LoopOptions,
    RecipeOptions,
    TeacherOptions,
    TrajectoryOptions,
)
from nas.training.recipe import train_model

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.rng import RandomStreams
    from nas.training.data import LatentClips
    from nas.training.stage import Kit

MakeNetwork = Callable[[int], VideoUNet]
LOOP = LoopOptions(steps=2, batch_size=4, warmup_steps=1, checkpoint_every=1, log_every=1)
OPTIONS = RecipeOptions(
    teacher=TeacherOptions(loop=LOOP),
    distillation=DistillationOptions(loop=LOOP),
    collection=CollectionOptions(num_clips=4, substeps=1),
    trajectory=TrajectoryOptions(loop=LOOP),
    adversarial=AdversarialOptions(loop=LOOP, head_width=16),
    evaluation=EvaluationOptions(steps=2, num_clips=18, num_few_step_clips=18, feature_steps=0),
)


def test_recipe_writes_metrics_evaluation_and_samples_and_resumes(
    kit: Kit, make_network: MakeNetwork, data: LatentClips, streams: RandomStreams, tmp_path: Path
) -> None:
    student = make_network(1)
    first = train_model(kit, student, data, options=OPTIONS, folder=tmp_path, streams=streams)
    rows = json.loads((tmp_path / "evaluation.json").read_text())
    assert rows["schema"] == "nas/training_evaluation/1"
    assert [(row["stage"], row["steps"], row["calls"]) for row in rows["rows"]] == [
        ("real", 0, 0),
        ("teacher", 2, 4),
        ("distillation", 2, 4),
        ("distillation", 4, 4),
        ("trajectory", 4, 4),
        ("adversarial", 4, 4),
    ]
    assert all((tmp_path / row["clip"]).is_file() for row in rows["rows"])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [
        stage for stage in ("teacher", "distillation", "trajectory", "adversarial") for _ in range(2)
    ]
    (tmp_path / "adversarial" / "stage.json").unlink()
    other = make_network(2)
    again = train_model(kit, other, data, options=OPTIONS, folder=tmp_path, streams=streams)
    assert [stage.reused for stage in again.stages] == [True, True, True, False]
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in student.state_dict().items())
    assert again.rows == first.rows


def test_sampling_is_a_function_of_its_seed(kit: Kit) -> None:
    captions = sample_attributes().captions()
    one, two, other = (
        generate(kit, captions, steps=2, guidance=1.0, seed=seed, sampler="renoise") for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert one.shape == (6, 8, 3, 32, 32)


def test_untrained_network_scores_near_chance(kit: Kit) -> None:
    assert evaluate(kit, steps=1, guidance=1.0, num_clips=36, seed=0)["mean"] < 0.4


def test_real_clips_score_near_one() -> None:
    assert evaluate_real(num_clips=90, seed=4)["mean"] > 0.99


def test_held_out_captions_are_never_training_captions() -> None:
    held_out = set(held_out_attributes(36, seed=0).captions())
    assert held_out.isdisjoint(make_clips(1000, seed=0).captions)


def test_renoising_with_guidance_is_refused(kit: Kit) -> None:
    with pytest.raises(ValueError, match="works without guidance, got guidance 3"):
        generate(kit, ["a red circle standing still"], steps=4, guidance=3.0, seed=0, sampler="renoise")


def test_gif_shows_the_clips_side_by_side(tmp_path: Path) -> None:
    video = real_samples(seed=0)
    write_gif(tmp_path / "samples" / "real.gif", video)
    with Image.open(tmp_path / "samples" / "real.gif") as image:
        assert (image.n_frames, image.info["loop"]) == (8, 0)
        frame = np.asarray(image.convert("RGB")).astype(int)
    assert frame.shape == (3 * 34, 3 * (6 * 33 + 1), 3)
    shown = frame[1 * 3 + 1 : 33 * 3 : 3, 1 * 3 + 1 : 33 * 3 : 3]
    assert np.abs(shown - video[0, 0].transpose(1, 2, 0)).mean() < 12  # a GIF has 256 colours


def test_damaged_evaluation_is_named(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"schema": "nas/training_evaluation/9"}')
    with pytest.raises(InputError, match=r"evaluation\.json: schema is 'nas/training_evaluation/9'"):
        read_evaluation(tmp_path / "evaluation.json")


def test_a_student_is_trained_for_other_steps_frames_and_size(
    kit: Kit, make_network: MakeNetwork, streams: RandomStreams, tmp_path: Path
) -> None:
    kit = kit.with_clips(frames=4, size=48)
    data = make_latent_clips(8, codec=kit.codec, captions=kit.captions, seed=0, frames=4, size=48)
    assert data.latents.shape == (8, *kit.latent_shape) == (8, 4, 16, 6, 6)
    result = train_model(
        kit,
        make_network(1),
        data,
        options=OPTIONS,
        folder=tmp_path,
        streams=streams,
        times=few_step_times(3),
    )
    assert [(row.stage, row.steps) for row in result.rows[-2:]] == [("trajectory", 3), ("adversarial", 3)]
    states = load_file(tmp_path / "trajectories.safetensors")["states"]
    assert states.shape[1:] == (4, 4, 16, 6, 6)  # three steps and the end, of clips of four frames
    with Image.open(tmp_path / "samples/adversarial-3.gif") as clip:
        assert clip.n_frames == 4


def test_few_step_times_begin_at_noise_and_are_equally_spaced() -> None:
    assert few_step_times(4) == FIXED_TIMES
    assert few_step_times(2) == (1.0, 0.5)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        few_step_times(0)
