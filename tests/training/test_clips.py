"""Clips show what their captions say, and the splits share no caption."""

from __future__ import annotations

import numpy as np
import pytest

from nas.training.clips import (
    COLOURS,
    VOCABULARY,
    all_attributes,
    coverage,
    draw_attributes,
    make_clips,
    render_by_index,
)
from nas.training.judge import score_clips


def test_splits_share_no_caption_and_cover_all_together() -> None:
    train, held_out = set(all_attributes("train").captions()), set(all_attributes("held_out").captions())
    assert (len(train), len(held_out), len(train & held_out)) == (144, 18, 0)


def test_each_value_of_each_attribute_is_held_out_equally_often() -> None:
    held_out = all_attributes("held_out")
    counts = [np.bincount(values).tolist() for values in (held_out.colour, held_out.shape, held_out.motion)]
    assert counts == [[3] * 6, [6] * 3, [2] * 9]


def test_captions_use_only_the_vocabulary() -> None:
    captions = (*all_attributes("train").captions(), *all_attributes("held_out").captions())
    assert {word for caption in captions for word in caption.split()} == set(VOCABULARY)


def test_equal_seeds_give_equal_clips_and_other_seeds_do_not() -> None:
    first, again, other = (make_clips(8, seed=seed).video for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_split_changes_sizes_and_starts_of_equal_seeds() -> None:
    assert not np.array_equal(make_clips(4, seed=0).video, make_clips(4, seed=0, split="held_out").video)


def test_every_shape_covers_the_area_asked_for() -> None:
    shape = np.arange(3)
    covered = coverage(shape, np.full(3, 100.0), np.full((3, 1, 2), 16.0), size=32).sum(axis=(1, 2, 3))
    assert covered == pytest.approx([100.0] * 3, rel=0.03)


def test_shape_centre_of_mass_is_where_it_was_put() -> None:
    cover = coverage(np.arange(3), np.full(3, 100.0), np.tile([14.0, 17.0], (3, 1, 1)), size=32)[:, 0]
    position = np.arange(32) + 0.5
    x = (cover.sum(axis=1) * position).sum(axis=1) / cover.sum(axis=(1, 2))
    y = (cover.sum(axis=2) * position).sum(axis=1) / cover.sum(axis=(1, 2))
    assert np.stack([x, y], axis=1) == pytest.approx(np.tile([14.0, 17.0], (3, 1)), abs=0.1)


def test_centre_pixel_has_the_colour_of_the_caption() -> None:
    clips = make_clips(64, seed=2)
    wanted = np.array(list(COLOURS.values()))[clips.attributes.colour] * 255
    distance = np.abs(clips.video.astype(float) - wanted[:, None, :, None, None]).sum(axis=2)
    assert distance.min(axis=(2, 3)).max() < 3.0


def test_no_shape_leaves_the_frame() -> None:
    video = make_clips(512, seed=5).video.astype(float)
    background = np.median(video, axis=(3, 4), keepdims=True)
    painted = np.abs(video - background).max(axis=2).sum(axis=(2, 3))
    assert np.abs(painted / painted.mean(axis=1, keepdims=True) - 1).max() < 0.04


def test_whole_passes_show_every_held_out_caption_equally_often() -> None:
    drawn = draw_attributes(36, rng=np.random.default_rng(0), split="held_out")
    captions = drawn.captions()
    assert {captions.count(caption) for caption in captions} == {2}


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        make_clips(0, seed=0)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'train' or 'held_out', got 'test'"):
        all_attributes("test")  # type: ignore[arg-type]  # the point of the test


def test_clips_by_index_do_not_depend_on_their_neighbours() -> None:
    together, alone = render_by_index([4, 10**9, 7], seed=3), render_by_index([10**9], seed=3)
    assert np.array_equal(together.video[1], alone.video[0])
    assert together.captions[1] == alone.captions[0]


def test_clips_by_index_show_what_their_captions_say() -> None:
    clips = render_by_index(range(72), seed=0, split="held_out")
    assert score_clips(clips.video, clips.attributes)["mean"] >= 0.99


def test_clips_by_index_cover_their_split_evenly() -> None:
    captions = render_by_index(range(1440), seed=1, frames=1).captions
    counts = np.array([captions.count(caption) for caption in all_attributes("train").captions()])
    assert counts.sum() == 1440
    # 144 captions with ten expected each: chi-square with 143 degrees of freedom is below 210 in 99.97 % of draws.
    assert ((counts - 10) ** 2 / 10).sum() < 210


def test_clips_by_index_differ_by_seed_and_split() -> None:
    first = render_by_index([0], seed=0).video
    assert not np.array_equal(first, render_by_index([0], seed=1).video)
    assert not np.array_equal(first, render_by_index([0], seed=0, split="held_out").video)
