from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

import search_spaces
from nas.core.errors import TrainingError
from nas.core.rng import RandomStreams
from nas.quality.held_out_loss import supernet_quality
from nas.quality.options import ShortTrainingOptions
from nas.quality.short_training import ShortTraining, fresh_network, shared_start, trained_start
from nas.quality.supernet import make_supernet

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = ShortTrainingOptions(steps=3, batch_size=4, backbone_steps=6, clips=18, held_out_clips=18)
SPACE = search_spaces.get("tiny")
OTHER = (1, 0, 0, 0, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbone")


@pytest.fixture(scope="module")
def estimator(folder: Path) -> ShortTraining:
    start = trained_start(SPACE, OPTIONS, folder=folder, streams=RandomStreams(1))
    return ShortTraining(SPACE, start, OPTIONS.loop)


def test_same_architecture_gets_the_same_score_on_any_worker(estimator: ShortTraining) -> None:
    torch.manual_seed(99)
    first = estimator.estimate(SPACE.from_options(OTHER))
    estimator.estimate(SPACE.smallest())
    torch.manual_seed(7)

    assert estimator.estimate(SPACE.from_options(OTHER)) == first


def test_estimator_reaches_a_worker_unchanged(estimator: ShortTraining) -> None:
    sent = pickle.loads(pickle.dumps(estimator))  # as an executor sends it

    assert sent.estimate(SPACE.from_options(OTHER)) == estimator.estimate(SPACE.from_options(OTHER))


def test_a_second_run_reads_the_backbone(estimator: ShortTraining, folder: Path) -> None:
    before = (folder / "stage.json").read_bytes()
    start = trained_start(SPACE, OPTIONS, folder=folder, streams=RandomStreams(1))

    assert (folder / "stage.json").read_bytes() == before
    first, again = estimator._start.kit.denoiser.state_dict(), start.kit.denoiser.state_dict()
    assert all(torch.equal(first[name], value) for name, value in again.items())


def test_training_lowers_the_held_out_loss(estimator: ShortTraining) -> None:
    short = estimator.estimate(SPACE.from_options(OTHER))
    loop = replace(OPTIONS, steps=20).loop
    longer = ShortTraining(SPACE, estimator._start, loop).estimate(SPACE.from_options(OTHER))

    assert longer.score > short.score + 2 * (longer.standard_error or 0.0)
    assert dict(longer.metrics)["held_out_loss"] == -longer.score
    assert longer.fidelity == "20 steps alone, 18 held-out clips at 3 times"


def test_a_teacher_is_what_candidates_start_from(estimator: ShortTraining) -> None:
    kit = estimator._start.kit
    start = shared_start(kit, OPTIONS, data=estimator._start.data, seed=1, is_teacher=True)
    quality = ShortTraining(SPACE, start, OPTIONS.loop).estimate(SPACE.from_options(OTHER))

    assert quality.fidelity.startswith("3 steps distilled")
    assert quality.score != estimator.estimate(SPACE.from_options(OTHER)).score


def test_inherited_weights_are_where_training_starts(estimator: ShortTraining) -> None:
    kit = make_supernet(SPACE, seed=0)
    torch.manual_seed(1)
    for name, parameter in kit.denoiser.named_parameters():
        if ".proj_out." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    start = shared_start(kit, OPTIONS, data=estimator._start.data, seed=1)
    hardly = replace(OPTIONS.loop, learning_rate=1e-9)
    quality = ShortTraining(SPACE, start, hardly).estimate(SPACE.from_options(OTHER))
    inherited = supernet_quality(kit, seed=1, trained_steps=0, num_clips=18).estimate(SPACE.from_options(OTHER))

    assert quality.score == pytest.approx(inherited.score, rel=1e-4)
    assert quality.fidelity.startswith("3 steps from inherited weights")


def test_training_the_temporal_layers_leaves_the_backbone_as_it_was(estimator: ShortTraining) -> None:
    frozen = ShortTraining(SPACE, estimator._start, OPTIONS.loop, layers="temporal")
    network = frozen.trained(SPACE.from_options(OTHER))
    backbone = estimator._start.kit.denoiser.state_dict()
    fresh = fresh_network(SPACE, SPACE.from_options(OTHER), seed=estimator._start.seed).state_dict()
    mine = network.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in backbone.items())
    assert any(not torch.equal(mine[name], fresh[name]) for name in mine if name.startswith("temporal_layers."))
    assert frozen.fidelity.startswith("3 steps of temporal layers alone")


def test_the_empty_network_has_no_temporal_layers_to_train(estimator: ShortTraining) -> None:
    frozen = ShortTraining(SPACE, estimator._start, OPTIONS.loop, layers="temporal")
    network, backbone = frozen.trained(SPACE.smallest()), estimator._start.kit.denoiser
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in network.state_dict().items())


def test_divergence_is_an_error_of_the_toolkit(estimator: ShortTraining) -> None:
    wild = ShortTraining(SPACE, estimator._start, replace(OPTIONS.loop, learning_rate=1e30, warmup_steps=0))

    with pytest.raises(TrainingError, match="not finite"):
        wild.estimate(SPACE.from_options(OTHER))
