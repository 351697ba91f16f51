"""Distances between clip sets agree with closed forms; the classifier sees motion and tells real from degraded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from nas.core.errors import CheckpointError
from nas.training.clip_features import ClipReference, clip_reference
from nas.training.clips import ClipSet, make_clips
from nas.training.evaluation import METRICS, measure
from nas.training.frechet import diversity, frechet_distance, moments, projected_quantiles, sliced_wasserstein

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 8


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> ClipReference:
    return clip_reference(tmp_path_factory.mktemp("reference") / "clips.safetensors", steps=STEPS)


@pytest.fixture(scope="module")
def real() -> ClipSet:
    return make_clips(180, seed=3, split="held_out")


def test_frechet_distance_of_diagonal_normals_is_the_closed_form() -> None:
    # For commuting covariances: |m - n|^2 + sum (sqrt(c) - sqrt(d))^2.
    mean, other = np.array([0.0, 1.0]), np.array([3.0, 1.0])
    distance = frechet_distance(mean, np.diag([4.0, 1.0]), other, np.diag([1.0, 9.0]))
    assert distance == pytest.approx(9.0 + 1.0 + 4.0)


def test_frechet_distance_agrees_with_the_square_root_of_scipy() -> None:
    import scipy.linalg

    rng = np.random.default_rng(0)
    one, two = (rng.standard_normal((50, 5)) @ rng.standard_normal((5, 5)) for _ in range(2))
    (mean, first), (other, second) = moments(one), moments(two)
    root = scipy.linalg.sqrtm(first @ second).real
    wanted = ((mean - other) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(mean, first, other, second) == pytest.approx(wanted, rel=1e-6)


def test_frechet_distance_bears_a_singular_covariance() -> None:
    flat = np.diag([1.0, 0.0])
    assert frechet_distance(np.zeros(2), flat, np.zeros(2), flat) == pytest.approx(0.0, abs=1e-9)


def test_moments_of_one_row_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        moments(np.zeros((1, 3)))


def test_sliced_wasserstein_of_a_shift_is_its_mean_over_directions() -> None:
    video = np.random.default_rng(0).integers(0, 100, size=(64, 2, 3, 4, 4)).astype(np.uint8)
    moved = (video + 51).astype(np.uint8)  # 0.2 brighter everywhere
    directions = np.random.default_rng(0).standard_normal((96, 128), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    wanted = 0.2 * np.sqrt((directions.sum(axis=0) ** 2).mean())
    found = sliced_wasserstein(projected_quantiles(video), projected_quantiles(moved))
    assert found == pytest.approx(wanted, rel=1e-3)


def test_diversity_is_the_difference_between_clips_of_one_group() -> None:
    video = np.zeros((4, 1, 3, 2, 2), dtype=np.uint8)
    video[1] = 51  # differs from clip 0 by 0.2 everywhere; clips 2 and 3 are alike
    assert diversity(video, np.array([0, 0, 1, 1])) == pytest.approx(np.sqrt((0.04 + 0.0) / 2))
    assert diversity(video, np.arange(4)) == 0.0


def test_real_clips_are_near_the_noise_floor_and_degraded_clips_are_not(
    reference: ClipReference, real: ClipSet
) -> None:
    rng = np.random.default_rng(0)
    floor = reference.distances(real.video, real.attributes)
    noisy = np.clip(real.video + rng.normal(0.0, 40.0, real.video.shape), 0, 255).astype(np.uint8)
    dark = (real.video // 2).astype(np.uint8)
    for video in (noisy, dark):
        degraded = reference.distances(video, real.attributes)
        assert degraded["frechet"] > 4 * floor["frechet"]
    assert reference.distances(dark, real.attributes)["sliced_wasserstein"] > 2 * floor["sliced_wasserstein"]


def test_the_features_see_the_order_of_frames(reference: ClipReference, real: ClipSet) -> None:
    floor = reference.distances(real.video, real.attributes)["frechet"]
    order = np.random.default_rng(0).permutation(8)
    assert reference.distances(real.video[:, order], real.attributes)["frechet"] > 1.5 * floor


def test_the_classifier_is_a_function_of_its_arguments_and_kept(tmp_path: Path, real: ClipSet) -> None:
    first = clip_reference(tmp_path / "one", steps=2)
    read, again = clip_reference(tmp_path / "one", steps=2), clip_reference(tmp_path / "two", steps=2)
    assert read.distances(real.video, real.attributes) == first.distances(real.video, real.attributes)
    assert again.distances(real.video, real.attributes) == first.distances(real.video, real.attributes)
    with pytest.raises(CheckpointError, match=r"holds .*'steps': '2'.* wanted is .*'steps': '3'"):
        clip_reference(tmp_path / "one", steps=3)


def test_every_metric_says_which_way_is_better(reference: ClipReference, real: ClipSet) -> None:
    assert set(measure(real.video, real.attributes, reference=reference)) == set(METRICS)
