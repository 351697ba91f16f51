"""The judge reads real clips without fault and learns nothing from noise or shuffled frames."""

from __future__ import annotations

import numpy as np
import pytest

from nas.training.clips import ClipSet, make_clips
from nas.training.judge import judge_clips, score_clips


@pytest.fixture(scope="module")
def held_out() -> ClipSet:
    return make_clips(360, seed=11, split="held_out")


@pytest.mark.parametrize("attribute", ["colour", "shape", "direction", "motion", "mean"])
def test_real_held_out_clips_score_near_one(held_out: ClipSet, attribute: str) -> None:
    assert score_clips(held_out.video, held_out.attributes)[attribute] >= 0.99


def test_real_clips_move_along_a_line_and_do_not_flicker(held_out: ClipSet) -> None:
    scores = score_clips(held_out.video, held_out.attributes)
    assert scores["jitter"] < 0.1
    assert scores["flicker"] < 0.01


@pytest.mark.parametrize(
    ("attribute", "chance"), [("colour", 1 / 6), ("shape", 1 / 3), ("direction", 1 / 4), ("motion", 1 / 9)]
)
def test_noise_scores_no_better_than_chance(held_out: ClipSet, attribute: str, chance: float) -> None:
    noise = np.random.default_rng(0).uniform(size=held_out.video.shape).astype(np.float32)
    # Three standard deviations of a binomial of 320 moving clips above chance.
    limit = chance + 3 * np.sqrt(chance * (1 - chance) / 320)
    assert score_clips(noise, held_out.attributes)[attribute] <= limit


def test_shuffled_frames_keep_the_look_and_lose_the_motion(held_out: ClipSet) -> None:
    rng = np.random.default_rng(1)
    order = rng.permuted(np.tile(np.arange(8), (len(held_out.video), 1)), axis=1)
    shuffled = held_out.video[np.arange(len(order))[:, None], order]
    scores = score_clips(shuffled, held_out.attributes)
    assert scores["colour"] > 0.99
    assert scores["direction"] < 0.35
    assert scores["jitter"] > 1.0


def test_reversed_clips_show_the_opposite_direction(held_out: ClipSet) -> None:
    moving = held_out.attributes.direction >= 0
    verdict = judge_clips(held_out.video[moving][:, ::-1])
    opposite = np.array([1, 0, 3, 2])[held_out.attributes.direction[moving]]
    assert (verdict.direction == opposite).mean() > 0.99


def test_half_of_the_clips_of_another_caption_halves_the_score(held_out: ClipSet) -> None:
    video = held_out.video.copy()
    video[::2] = video[::2, :, ::-1]  # red becomes blue, yellow becomes cyan; green and magenta nearly stay
    changed = np.isin(held_out.attributes.colour[::2], [0, 2, 3, 5]).sum() / len(video)
    assert score_clips(video, held_out.attributes)["colour"] == pytest.approx(1 - changed, abs=0.01)


def test_empty_clips_show_nothing() -> None:
    verdict = judge_clips(np.full((2, 8, 3, 32, 32), 40, dtype=np.uint8))
    assert verdict.colour.tolist() == verdict.shape.tolist() == verdict.motion.tolist() == [-1, -1]


def test_a_blinking_clip_flickers(held_out: ClipSet) -> None:
    video = held_out.video[:8].astype(np.float32) / 255
    video[:, ::2] *= 0.6
    assert judge_clips(video).flicker_colour.mean() > 10 * judge_clips(held_out.video[:8]).flicker_colour.mean()


def test_clips_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, T, 3, H, W\), got \(2, 8, 32, 32, 3\)"):
        judge_clips(np.zeros((2, 8, 32, 32, 3), dtype=np.uint8))
