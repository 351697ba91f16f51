"""What of a scenario the supernet judges itself: steps by sampling, bits by rounding; the rest is stated."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import torch

import search_spaces
from nas.core.scenario import ScenarioPoint
from nas.quality.held_out_loss import SupernetQuality, supernet_quality
from nas.quality.in_scenario import ScenarioQuality
from nas.quality.supernet import Supernet, make_supernet
from nas.training.data import make_latent_clips
from nas.training.sampling import sample_euler
from search_spaces.joint import JointSpace, ScenarioValues

if TYPE_CHECKING:
    from nas.training.stage import Kit

TINY = search_spaces.get("tiny")


@pytest.fixture(scope="module")
def kit() -> Kit:
    """A supernet whose layers are no longer identities, so that paths differ."""
    torch.set_num_threads(1)
    kit = make_supernet(TINY, seed=0)
    torch.manual_seed(1)
    for name, parameter in kit.denoiser.named_parameters():
        if ".proj_out." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    kit.denoiser.eval()
    return kit


@pytest.fixture(scope="module")
def judge(kit: Kit) -> SupernetQuality:
    return supernet_quality(kit, seed=0, trained_steps=0, num_clips=18, most_steps=2)


def test_fewer_steps_lie_further_from_the_reference(judge: SupernetQuality) -> None:
    architecture = TINY.largest()
    errors = [
        dict(judge.estimate_at(architecture, ScenarioPoint(denoising_steps=steps)).metrics)["sampling_error"]
        for steps in (1, 2)
    ]
    assert errors[0] > errors[1] > 0


def test_the_sampling_error_is_the_distance_of_sampled_clips(kit: Kit, judge: SupernetQuality) -> None:
    architecture = TINY.from_options([3, 0, 5, 0, 1])
    point = ScenarioPoint(denoising_steps=2)
    quality = judge.estimate_at(architecture, point)
    network = cast("Supernet", kit.denoiser).extract(architecture).eval()
    clips = make_latent_clips(18, codec=kit.codec, captions=kit.captions, seed=0, split="held_out")
    tokens = kit.captions(clips.token_ids).tokens[::2]
    noise = torch.randn(9, *kit.latent_shape, generator=torch.Generator().manual_seed(1))
    few, many = (sample_euler(network, noise, tokens, empty=tokens[:1], steps=steps) for steps in (2, 8))
    distance = float((few - many).square().mean())
    assert quality.score == pytest.approx(judge.estimate(architecture).score - distance, abs=1e-5)


def test_fewer_bits_lose_more(judge: SupernetQuality) -> None:
    architecture = TINY.largest()
    plain = judge.estimate(architecture).score
    moved = [abs(judge.estimate_at(architecture, ScenarioPoint(weight_bits=bits)).score - plain) for bits in (16, 8, 4)]
    assert moved[0] == pytest.approx(0.0, abs=1e-6)
    assert moved[1] < moved[2]


def test_more_steps_than_the_reference_is_made_for_are_refused(judge: SupernetQuality) -> None:
    with pytest.raises(ValueError, match="up to 2 steps, got 8"):
        judge.estimate_at(TINY.smallest(), ScenarioPoint(denoising_steps=8))


def test_in_a_scenario_the_stated_worth_is_added_and_shown(judge: SupernetQuality) -> None:
    space = JointSpace(TINY, ScenarioValues(denoising_steps=(1, 2), frames=(8, 16)))
    quality = ScenarioQuality(space, judge, worth={"frames": (0.0, 0.25)})
    inner, point = TINY.smallest(), ScenarioPoint(denoising_steps=2, frames=16)
    found = quality.estimate(space.join(inner, point))
    assert found.score == pytest.approx(judge.estimate_at(inner, point).score + 0.25)
    assert dict(found.metrics)["stated_worth_of_frames"] == 0.25
    assert "worth of frames stated by the user" in found.fidelity


def test_values_worth_the_same_are_not_called_stated(judge: SupernetQuality) -> None:
    space = JointSpace(TINY, ScenarioValues(frames=(8, 16), size=((16, 16), (32, 32))))
    quality = ScenarioQuality(space, judge, worth={"frames": (0.0, 0.25), "size": (0.0, 0.0)})
    assert "; worth of frames stated by the user; every value of size counts the same" in quality.fidelity


def test_what_the_estimator_judges_cannot_be_stated_as_well(judge: SupernetQuality) -> None:
    space = JointSpace(TINY, ScenarioValues(denoising_steps=(2, 4)))
    with pytest.raises(ValueError, match="worth of 'denoising_steps' does not fit"):
        ScenarioQuality(space, judge, worth={"denoising_steps": (0.0, 1.0)})
