"""Small networks and data shared by the training tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import search_spaces
from nas.core.rng import RandomStreams
from nas.models.build import build_denoiser
from nas.training.data import LatentClips, make_latent_clips
from nas.training.stage import Kit

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.models.unet import VideoUNet
from nas.models.caption import CaptionEncoder
from nas.training.clips import VOCABULARY
from nas.training.codec import PatchCodec, fit_codec


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_network() -> Callable[[int], VideoUNet]:
    """A network of ``tiny`` with one attention and one convolution, weights by seed."""
    space = search_spaces.get("tiny")
    kinds = {"down1.0": "self_attention_1d", "up0.0": "conv3d"}
    options = [
        [option[f"{slot}.kind"] for option in space.options(slot)].index(kinds.get(slot, "none"))
        for slot in space.slots()
    ]

    def make(seed: int) -> VideoUNet:
        torch.manual_seed(seed)
        return build_denoiser(space, space.from_options(options))

    return make


@pytest.fixture(scope="session")
def codec() -> PatchCodec:
    return fit_codec(patch=8, channels=16, seed=0, num_clips=256)


@pytest.fixture
def fresh_kit(make_network: Callable[[int], VideoUNet], codec: PatchCodec) -> Callable[[], Kit]:
    """Makes kits with equal fresh weights."""

    def make() -> Kit:
        network = make_network(0)
        captions = CaptionEncoder(vocabulary=VOCABULARY, width=64, num_tokens=12)
        return Kit(denoiser=network, captions=captions, codec=codec, latent_shape=(8, 16, 4, 4))

    return make


@pytest.fixture
def kit(fresh_kit: Callable[[], Kit]) -> Kit:
    return fresh_kit()


@pytest.fixture
def data(kit: Kit) -> LatentClips:
    return make_latent_clips(32, codec=kit.codec, captions=kit.captions, seed=1)


@pytest.fixture
def streams() -> RandomStreams:
    return RandomStreams(5)


class Killer:
    """A progress that dies when a step is reported, as a killed process would: nothing more is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, done: int, total: int, message: str = "") -> None:  # noqa: ARG002  # the protocol's signature
        if done == self.step:
            raise InterruptedError


@pytest.fixture
def kill_at() -> Callable[[int], Killer]:
    return Killer
