"""Rounded weights are what coremltools would store."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas.models.quantised import linear, palettised, quantise_


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [8, 4])
def test_linear_steps_are_those_of_coremltools(bits: int) -> None:
    from coremltools.optimize import _utils

    weight = weights(6, 5, 3, 3)
    data, scale, _ = _utils.quantize_weight(weight.numpy(), (1, 2, 3), bits, True, "LINEAR_SYMMETRIC", np.int8)
    expected = data * scale.reshape(-1, 1, 1, 1)
    assert np.allclose(linear(weight, bits=bits).numpy(), expected, atol=1e-6)


@given(st.integers(2, 8), st.integers(0, 20))
def test_a_palette_has_as_many_values_as_its_bits_allow(bits: int, seed: int) -> None:
    weight = weights(16, 40, seed=seed)
    rounded = palettised(weight, bits=bits)
    assert len(rounded.unique()) <= 2**bits
    # Panter and Dite's limit for a normal variable and many values is 2.72 / 4**bits of the variance.
    assert (rounded - weight).square().mean() / weight.var() < 3.5 / 4**bits


def test_a_palette_loses_about_as_little_as_the_best_one() -> None:
    from sklearn.cluster import KMeans

    weight = weights(8, 64)
    best = KMeans(n_clusters=16, n_init=10, random_state=0).fit(weight.reshape(-1, 1).numpy()).inertia_
    assert float((palettised(weight, bits=4) - weight).square().sum()) < 1.1 * best


def test_tensors_of_few_values_keep_them() -> None:
    weight = torch.tensor([[0.0, 1.0], [1.0, 3.0]])
    assert torch.equal(palettised(weight, bits=2), weight)


def test_only_large_weights_of_convolutions_and_linear_layers_are_rounded() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.GroupNorm(1, 64), nn.Linear(8, 8))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert quantise_(network, bits=4, form="palettised") == 1
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"0.weight"}


def test_sixteen_bits_leave_a_network_as_it_is() -> None:
    network = nn.Linear(64, 64)
    before = network.weight.clone()
    assert quantise_(network, bits=16, form="linear") == 0
    assert torch.equal(network.weight, before)
