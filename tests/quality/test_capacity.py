"""The proxy says that it is one, needs no torch, grows with every layer and does so with diminishing returns."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

import search_spaces
from nas.core.scenario import Scenario
from nas.quality.capacity import TemporalCapacity, temporal_flops

SPACE = search_spaces.get("tiny")
SCENARIO = Scenario(frames=8, height=32, width=32, denoising_steps=4)


@pytest.fixture(scope="module")
def proxy() -> TemporalCapacity:
    return TemporalCapacity(SPACE, SCENARIO)


def option(slot: str, **wanted: str | float) -> int:
    rows = SPACE.options(slot)
    return next(
        index
        for index, row in enumerate(rows)
        if all(row.get(f"{slot}.{key}") == value for key, value in wanted.items())
    )


def test_name_says_that_it_is_a_proxy(proxy: TemporalCapacity) -> None:
    quality = proxy.estimate(SPACE.largest())
    assert "proxy" in quality.estimator
    assert "training-free" in quality.fidelity
    assert quality.standard_error is None


def test_empty_network_scores_zero(proxy: TemporalCapacity) -> None:
    assert proxy.estimate(SPACE.smallest()).score == 0.0


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("index", [1, 5, 12, 20])
def test_adding_a_layer_raises_the_score(proxy: TemporalCapacity, position: int, index: int) -> None:
    options = [0] * 5
    options[(position + 1) % 5] = 3
    before = proxy.estimate(SPACE.from_options(options)).score
    options[position] = index
    assert proxy.estimate(SPACE.from_options(options)).score > before


def test_a_wider_layer_scores_less_than_its_flops_grow(proxy: TemporalCapacity) -> None:
    scores, flops = [], []
    for ratio in (0.5, 1.0):
        options = [option("down0.0", kind="conv3d", width_ratio=ratio), 0, 0, 0, 0]
        architecture = SPACE.from_options(options)
        scores.append(proxy.estimate(architecture).score)
        flops.append(sum(temporal_flops(SPACE.workload(architecture, SCENARIO)).values()))
    assert 1.0 < scores[1] / scores[0] < flops[1] / flops[0]


def test_score_is_the_stated_formula(proxy: TemporalCapacity) -> None:
    architecture = SPACE.from_options([3, 0, 7, 0, 0])
    unit = SPACE.workload(SPACE.smallest(), SCENARIO).flops / 5
    whole = SPACE.workload(architecture, SCENARIO)
    first, second = (
        whole.flops - SPACE.workload(SPACE.from_options(options), SCENARIO).flops
        for options in ([0, 0, 7, 0, 0], [3, 0, 0, 0, 0])
    )
    wanted = math.log2(1 + first / unit) + math.log2(1 + second / unit)
    assert proxy.estimate(architecture).score == pytest.approx(wanted)


def test_needs_no_torch() -> None:
    code = "import sys, nas.quality.capacity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
