"""Teacher-feature alignment finds planted likeness: a layer that can be the teacher's, and one that cannot be there."""

from __future__ import annotations

import pytest
import torch

import search_spaces
from nas.core.scenario import Scenario
from nas.models.build import example_inputs
from nas.quality.alignment import FeatureAlignment, layer_videos, removal_loss
from nas.quality.held_out_loss import HeldOutBatch, clip_losses
from nas.quality.proxies import untrained_network

SPACE = search_spaces.get("tiny")
SCENARIO = Scenario(frames=8, height=32, width=32, denoising_steps=4, precision="float32")
CONV1D, CONV3D, ATTENTION = 3, 6, 10
TAUGHT = (CONV1D, CONV3D, ATTENTION, CONV1D, CONV3D)


@pytest.fixture(scope="module")
def batch() -> HeldOutBatch:
    sample, time, text = example_inputs(SPACE, SCENARIO, batch=6)
    return HeldOutBatch(noisy=sample, target=sample.flip(1), times=time / 1000, tokens=text, num_clips=6)


@pytest.fixture(scope="module")
def alignment(batch: HeldOutBatch) -> FeatureAlignment:
    """Aligned to a teacher of several kinds whose first layer has the inner weights of the untrained candidates'."""
    torch.set_num_threads(1)
    teacher = untrained_network(SPACE, SPACE.from_options(TAUGHT), seed=1).eval()
    found = FeatureAlignment(SPACE, teacher, batch, seed=0)
    layer, planted = teacher.temporal_layer("down0.0"), found._layer("down0.0", CONV1D)
    assert layer is not None
    assert planted is not None
    weights = {name: value for name, value in planted.state_dict().items() if not name.startswith("proj_out")}
    layer.load_state_dict(weights, strict=False)
    return FeatureAlignment(SPACE, teacher, batch, seed=0)


def test_a_layer_like_the_teachers_explains_all_of_it(alignment: FeatureAlignment) -> None:
    assert alignment.alignment("down0.0", CONV1D) == pytest.approx(1.0, abs=0.02)


def test_other_layers_explain_less_and_an_empty_slot_nothing(alignment: FeatureAlignment) -> None:
    others = [alignment.alignment("down0.0", option) for option in range(23) if option != CONV1D]
    assert max(others) < alignment.alignment("down0.0", CONV1D)
    assert others[0] == 0.0


def test_score_is_the_sum_of_alignments_times_what_removal_costs(alignment: FeatureAlignment) -> None:
    options = (CONV1D, 0, ATTENTION, 2, 0)
    quality = alignment.estimate(SPACE.from_options(options))
    parts = [
        alignment.worth[slot] * alignment.alignment(slot, option)
        for slot, option in zip(SPACE.slots(), options, strict=True)
    ]
    assert quality.score == pytest.approx(sum(parts))
    assert quality.origin == "proxy"
    assert alignment.estimate(SPACE.from_options(options)) == quality


def test_videos_of_a_layer_are_its_inputs_and_outputs(batch: HeldOutBatch) -> None:
    network = untrained_network(SPACE, SPACE.from_options((0, CONV3D, 0, 0, 0)), seed=2).eval()
    videos = layer_videos(network, batch)
    layer = network.temporal_layer("down1.0")
    assert list(videos) == ["down1.0"]
    assert layer is not None
    assert torch.allclose(layer(videos["down1.0"][0], batch.tokens), videos["down1.0"][1], atol=1e-6)


def test_removal_leaves_the_network_whole(batch: HeldOutBatch) -> None:
    network = untrained_network(SPACE, SPACE.from_options((0, CONV3D, 0, 0, CONV1D)), seed=2).eval()
    whole = float(clip_losses(network, batch).mean())
    without = removal_loss(network, "up1.0", batch)
    assert float(clip_losses(network, batch).mean()) == whole
    assert without != whole


def test_a_teacher_without_a_layer_somewhere_is_refused(batch: HeldOutBatch) -> None:
    teacher = untrained_network(SPACE, SPACE.from_options((0, CONV3D, 0, CONV1D, CONV1D)), seed=2).eval()
    with pytest.raises(ValueError, match=r"it has none in down0\.0, mid\.0"):
        FeatureAlignment(SPACE, teacher, batch)
