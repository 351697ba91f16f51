"""Definitions of the search benchmark's problems, against enumeration."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from search_measured import TabulatedProblem, devices, make_measured
from search_problems import KINDS, fingerprint, make_synthetic, share
from search_trainings import TrainedProblem

from nas.core.evaluation import Quality

if TYPE_CHECKING:
    from nas.core.architecture import Architecture

DEVBENCH = Path(os.environ.get("NAS_DEVBENCH", "no-such-folder"))


def grid_volume(points: np.ndarray, reference: tuple[float, ...]) -> float:
    """Hypervolume by cutting space at every coordinate and adding up the cells that some point dominates."""
    cuts = [np.unique([*column[column < corner], corner]) for column, corner in zip(points.T, reference, strict=True)]
    volume = 0.0
    for cell in product(*(range(len(cut) - 1) for cut in cuts)):
        low = np.array([cut[index] for cut, index in zip(cuts, cell, strict=True)])
        high = np.array([cut[index + 1] for cut, index in zip(cuts, cell, strict=True)])
        volume += float(np.prod(high - low)) * bool((points <= low).all(axis=1).any())
    return volume


def every(sizes: tuple[int, ...]) -> np.ndarray:
    return np.array(list(product(*map(range, sizes))))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_volume_of_a_small_synthetic_problem_is_that_of_all_its_architectures(name: str) -> None:
    problem = make_synthetic(name, 3, num_slots=4, num_options=3)

    points = problem.points(every(problem.sizes))

    assert len(points) > 1
    assert problem.volume == pytest.approx(grid_volume(points, problem.reference), rel=1e-9)


def test_every_architecture_has_the_whole_share_and_the_empty_one_none() -> None:
    problem = make_synthetic("interacting, unrelated", 1, num_slots=4, num_options=3)

    assert share(problem, every(problem.sizes).tolist()) == pytest.approx(1.0, rel=1e-9)
    assert share(problem, [(0, 0, 0, 0)]) == 0.0


def test_architectures_over_a_limit_add_nothing() -> None:
    problem = make_synthetic("interacting, related", 1, num_slots=5, num_options=4)
    options = every(problem.sizes)
    over = options[(problem.excess(options) > 0).any(axis=1)]

    assert 0 < len(over) < len(options)
    assert share(problem, over.tolist()) == 0.0


def test_judged_quality_is_exact_without_noise_and_repeatable_with_it() -> None:
    exact, noisy = (make_synthetic(name, 0, num_slots=4) for name in ("additive, related", "noisy, related"))
    row = (1, 2, 3, 4)

    assert exact.judged(row) == exact.quality.total(np.array([row]))[0]
    assert noisy.judged(row) == noisy.judged(row) != noisy.quality.total(np.array([row]))[0]


def test_another_seed_is_another_problem() -> None:
    first, again, other = (make_synthetic("additive, related", seed, num_slots=4) for seed in (0, 0, 1))

    assert fingerprint(first) == fingerprint(again) != fingerprint(other)


def three_networks() -> TabulatedProblem:
    return TabulatedProblem(
        name="anb/test",
        seed=0,
        options=np.array([[0, 0], [1, 1], [0, 2]]),
        latency_ms=np.array([1.0, 2.0, 4.0]),
        accuracy=np.array([20.0, 60.0, 50.0]),
        quality_corner=10.0,
        sizes=(2, 3),
    )


def test_volume_of_listed_networks_by_hand() -> None:
    problem = three_networks()

    # (1 ms, 20 %) and (2 ms, 60 %) up to (4 ms, 10 %): 3 x 10 plus 2 x 40.
    assert problem.volume == pytest.approx(110.0)
    assert problem.front.tolist() == [[0, 0], [1, 1]]
    assert share(problem, [(0, 0)]) == pytest.approx(30 / 110)
    assert problem.tight_reference == pytest.approx((2.1, -16.0))


def test_a_network_that_is_not_listed_costs_the_most_and_is_replaced_by_the_nearest() -> None:
    problem = three_networks()
    options = np.array([[1, 1], [1, 2]])

    assert problem.objectives(options)[:, 0].tolist() == [2.0, 4.0]
    assert problem.excess(options)[:, 0].tolist() == [-1.0, 1.0]
    assert problem.judged((1, 2)) == 10.0
    assert problem.nearest((1, 2)) == (1, 1)
    assert problem.nearest((0, 2)) == (0, 2)


def test_cells_without_a_path_are_not_listed(nb201_folder: Path) -> None:
    import pandas as pd

    archs = pd.read_parquet(nb201_folder / "nb201_archs.parquet")
    codes = archs[["e01", "e02", "e12", "e03", "e13", "e23"]].to_numpy()
    paths = codes[:, 3] > 0
    paths |= (codes[:, 0] > 0) & (codes[:, 4] > 0)
    paths |= (codes[:, 1] > 0) & (codes[:, 5] > 0)
    paths |= (codes[:, 0] > 0) & (codes[:, 2] > 0) & (codes[:, 5] > 0)

    problem = make_measured("nb201/beta", 0, nb201_folder)

    assert len(problem.options) == paths.sum() < len(archs)
    assert devices("nb201", nb201_folder) == ["alpha_1", "alpha_32", "beta", "gamma"]


@pytest.mark.data
@pytest.mark.skipif(not DEVBENCH.is_dir(), reason="NAS_DEVBENCH names no folder with the public tables")
def test_published_cells_have_a_known_front() -> None:
    problem = make_measured("nb201/pixel3", 0, DEVBENCH)
    figures = np.stack([problem.latency_ms, -problem.accuracy], axis=1)
    beaten = [(figures <= one).all(axis=1) & (figures < one).any(axis=1) for one in problem.points(problem.front)]

    assert problem.options.shape == (15_284, 6)
    assert not np.any(beaten)
    assert share(problem, problem.front.tolist()) == pytest.approx(1.0, rel=1e-12)


def test_trained_architectures_are_kept_for_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    class Estimator:
        def estimate(self, architecture: Architecture) -> Quality:
            trained.append(architecture.digest)
            return Quality(score=float(len(trained)), estimator="test", fidelity="test")

    monkeypatch.setattr(TrainedProblem, "_estimator", Estimator())
    first, second = (TrainedProblem(name="tiny", seed=seed, folder=tmp_path) for seed in (0, 1))
    rows = [(0,) * 5, (1, 0, 2, 0, 1), (3, 3, 0, 0, 0)]

    scores = [first.judged(row) for row in rows]

    assert [second.judged(row) for row in rows] == scores == [1.0, 2.0, 3.0]
    assert len(trained) == 3
    assert share(second, rows) == pytest.approx(1.0)
    assert share(second, rows[:2]) < 1.0
