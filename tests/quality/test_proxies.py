"""Training-free proxies: against closed forms on small networks, finite and repeatable on the toy space's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import search_spaces
from nas.core.scenario import Scenario
from nas.models.build import example_inputs
from nas.quality.held_out_loss import HeldOutBatch
from nas.quality.proxies import PROXIES, ProxyQuality, gradient_norm, make_proxy, synflow, untrained_network

SPACE = search_spaces.get("tiny")
SCENARIO = Scenario(frames=4, height=32, width=32, denoising_steps=4, precision="float32")
MIXED = SPACE.from_options([1, 6, 11, 18, 0])


class Linear(nn.Module):
    """Channels through one or two matrices; time and text are not used."""

    def __init__(self, *matrices: Tensor) -> None:
        super().__init__()
        self.matrices = nn.ParameterList(matrices)

    def forward(self, sample: Tensor, _time: Tensor, _text: Tensor) -> Tensor:
        for matrix in self.matrices:
            sample = torch.einsum("oc,btchw->btohw", matrix, sample)
        return sample


class Deaf(nn.Module):
    """Its output is what is wanted whatever its weight is, so that nothing pulls at the weight."""

    def __init__(self, wanted: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.wanted = wanted

    def forward(self, _sample: Tensor, _time: Tensor, _text: Tensor) -> Tensor:
        return self.wanted + 0.0 * self.weight.sum()


@pytest.fixture
def batch() -> HeldOutBatch:
    sample, time, text = example_inputs(SPACE, SCENARIO, batch=3)
    target = torch.randn(sample.shape, generator=torch.Generator().manual_seed(5))
    return HeldOutBatch(noisy=sample, target=target, times=time / 1000, tokens=text, num_clips=3)


def test_gradient_norm_of_one_weight_is_its_derivative(batch: HeldOutBatch) -> None:
    network = Linear(0.5 * torch.eye(16))
    rest = 0.5 * batch.noisy - batch.target
    derivative = 2 * torch.einsum("btohw,btchw->oc", rest, batch.noisy) / rest.numel()
    assert gradient_norm(network, batch) == pytest.approx(float(derivative.norm()), rel=1e-4)


def test_gradient_norm_is_0_where_nothing_can_be_learned(batch: HeldOutBatch) -> None:
    assert gradient_norm(Deaf(batch.target), batch) == 0.0


def test_gradient_norm_forgets_earlier_gradients(batch: HeldOutBatch) -> None:
    network = Linear(0.5 * torch.eye(16))
    assert gradient_norm(network, batch) == gradient_norm(network, batch)


def test_synflow_of_two_matrices_counts_every_way_through_them_twice() -> None:
    first, second = torch.randn(5, 16), torch.randn(7, 5)
    ways = float((second.abs() @ first.abs()).sum()) * 4 * 2 * 3 * 3  # frames, clips, pixels
    flow = synflow(Linear(first, second), torch.zeros(2, 4, 16, 3, 3), torch.zeros(2, 12, 64))
    assert flow == pytest.approx(math.log1p(2 * ways), rel=1e-6)


def test_synflow_ignores_signs_and_leaves_the_network_as_it_was() -> None:
    network = untrained_network(SPACE, MIXED, seed=0)
    sample, _, text = example_inputs(SPACE, SCENARIO)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = synflow(network, sample, text)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        for weight in network.parameters():
            weight.neg_()
    assert synflow(network, sample, text) == pytest.approx(plain, rel=1e-9)


def test_synflow_is_0_where_nothing_gets_through() -> None:
    assert synflow(Linear(torch.zeros(16, 16)), torch.zeros(1, 4, 16, 3, 3), torch.zeros(1, 12, 64)) == 0.0


def test_synflow_grows_with_every_layer() -> None:
    proxy = make_proxy("synflow", SPACE, scenario=SCENARIO, start=None)
    scores = [proxy.estimate(SPACE.from_options(row)).score for row in ([0] * 5, [5, 0, 0, 0, 0], [5, 5, 0, 0, 0])]
    assert scores[0] < scores[1] < scores[2]


@pytest.mark.parametrize("name", ["flops", "parameters", "synflow"])
def test_proxies_are_labelled_finite_and_repeatable(name: str) -> None:
    proxy = make_proxy(name, SPACE, scenario=SCENARIO, start=None)
    torch.manual_seed(3)
    first = proxy.estimate(MIXED)
    torch.manual_seed(4)
    assert proxy.estimate(MIXED) == first
    assert (first.origin, first.estimator, first.standard_error) == ("proxy", f"{name} (proxy)", None)


def test_gradient_norm_is_repeatable_and_uses_the_backbone(batch: HeldOutBatch) -> None:
    backbone = untrained_network(SPACE, SPACE.smallest(), seed=9)

    def score(weights: nn.Module | None) -> float:
        proxy = ProxyQuality("grad_norm", SPACE, lambda network: gradient_norm(network, batch), backbone=weights)
        return proxy.estimate(MIXED).score

    assert score(backbone) == score(backbone)
    assert score(backbone) != score(None)


def test_parameters_are_those_of_the_network() -> None:
    proxy = make_proxy("parameters", SPACE, scenario=SCENARIO, start=None)
    built = sum(weight.numel() for weight in untrained_network(SPACE, MIXED, seed=0).parameters())
    assert proxy.estimate(MIXED).score == pytest.approx(built / 1e6)


def test_unknown_proxy_is_named() -> None:
    with pytest.raises(ValueError, match=f"unknown proxy 'naswot'.*known are {', '.join(PROXIES)}"):
        make_proxy("naswot", SPACE, scenario=SCENARIO, start=None)
