"""Training-free proxies: what an untrained candidate lets guess of its quality, in one pass or none.

Temporal layers are identities when fresh (their last projection is zero), which would hide all else they are made of.
So their last projection is drawn here as torch draws any other layer, the same for an architecture every time.
diffusers is imported where its blocks are looked for: it loads slowly.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from nas.core.evaluation import Quality
from nas.models.build import build_denoiser, example_inputs
from nas.models.temporal import TemporalAttention, TemporalConv
from nas.quality.capacity import NetworkSize
from nas.quality.held_out_loss import make_held_out_batch
from nas.training.distillation import copy_matching_weights
from nas.training.losses import flow_matching_loss
from nas.training.noise import TIME_SCALE

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers.models.activations import GEGLU

    from nas.core.architecture import Architecture
    from nas.core.protocols import QualityEstimator
    from nas.core.scenario import Scenario
    from nas.models.unet import VideoUNet
    from nas.quality.held_out_loss import HeldOutBatch
    from nas.quality.short_training import SharedStart
    from search_spaces.temporal import TemporalSpace

    Score = Callable[[nn.Module], float]


_GRADIENT_TIMES = (0.75,)  # where motion is decided, see MOTION_TIMES
NEED_CLIPS = ("feature_alignment", "grad_norm")
PROXIES = ("feature_alignment", "flops", "grad_norm", "parameters", "synflow")


def make_proxy(name: str, space: TemporalSpace, *, scenario: Scenario, start: SharedStart | None) -> QualityEstimator:
    """Return a proxy of ``PROXIES`` but ``feature_alignment``, which needs a teacher (``nas.quality.alignment``).

    Args:
        name: Which.
        space: What candidates are of.
        scenario: Conditions under which FLOPs are counted, and frames and size of ``synflow``'s input.
        start: Trained backbone and clips of ``grad_norm``.

    Raises:
        ValueError: The name is unknown, or ``grad_norm`` has no start.
    """
    if name in ("parameters", "flops"):
        return NetworkSize(space, scenario, measure="flops" if name == "flops" else "parameters")
    if name == "synflow":
        sample, _, tokens = example_inputs(space, scenario)
        return ProxyQuality(name, space, partial(synflow, sample=sample, tokens=tokens))
    if name == "grad_norm" and start is not None:
        batch = make_held_out_batch(start.held_out, start.kit.captions, seed=start.seed, times=_GRADIENT_TIMES)
        backbone = start.kit.denoiser
        return ProxyQuality(name, space, partial(gradient_norm, batch=batch), backbone=backbone, seed=start.seed)
    raise ValueError(f"unknown proxy {name!r}, or its start is missing; known are {', '.join(PROXIES)}")


class ProxyQuality:
    """Judges candidates by a figure of their untrained networks; PROXY, meets ``QualityEstimator``.

    Args:
        name: Of the proxy, for reports.
        space: What candidates are of.
        score: The figure of one network, higher for better.
        backbone: Network whose weights candidates take wherever name and shape agree; fresh ones when left out.
        seed: Of fresh weights.
    """

    def __init__(
        self, name: str, space: TemporalSpace, score: Score, *, backbone: nn.Module | None = None, seed: int = 0
    ) -> None:
        self.name = f"{name} (proxy)"
        self.fidelity = "untrained temporal layers" + ("" if backbone is None else " in a trained backbone")
        self._space = space
        self._score = score
        self._backbone = backbone
        self._seed = seed

    def estimate(self, architecture: Architecture) -> Quality:
        """Figure of one candidate; deterministic, hence no standard error."""
        network = untrained_network(self._space, architecture, seed=self._seed)
        if self._backbone is not None:
            copy_matching_weights(self._backbone, network)
        return Quality(score=self._score(network), estimator=self.name, fidelity=self.fidelity, origin="proxy")


def untrained_network(space: TemporalSpace, architecture: Architecture, *, seed: int) -> VideoUNet:
    """Build a network whose temporal layers are no identities; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_denoiser(space, architecture)
        for module in network.modules():
            if isinstance(module, (TemporalAttention, TemporalConv)):
                module.proj_out.reset_parameters()
    return network


def gradient_norm(network: nn.Module, batch: HeldOutBatch) -> float:
    """Sum over weight tensors of the norm of the flow-matching loss's gradient on one batch.

    Source:
        ``grad_norm`` of Abdelfattah et al. 2021, "Zero-cost proxies for lightweight NAS", arXiv 2101.08134.
    """
    network.requires_grad_(True).zero_grad()
    flow_matching_loss(network(batch.noisy, batch.times * TIME_SCALE, batch.tokens), batch.target).backward()
    return sum(float(weight.grad.norm()) for weight in network.parameters() if weight.grad is not None)


def synflow(network: nn.Module, sample: Tensor, tokens: Tensor) -> float:
    """Logarithm of the sum over weights of weight times gradient of the output's sum, without data.

    SynFlow is made for networks in which everything but the weights is a positive multiple: weights are replaced by
    their absolute values, inputs by ones. A UNet with attention has more: norms, which undo any scale, and frame
    positions, which have signs, are left out; SiLU and the gates of GEGLU count as factors of 1; queries and keys are
    0, so that attention is the mean of its values and no sign can turn. So norms, biases, queries, keys and gates count
    nothing. Sums are of double precision; 0 stands for a network that lets nothing through.

    Args:
        network: Any; a copy is changed.
        sample: Gives the shape (B, T, C, H, W) of the input.
        tokens: Gives the shape of the text.

    Source:
        Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow", arXiv
        2006.05467, as a score of networks after Abdelfattah et al. 2021, arXiv 2101.08134.
    """
    network = _linearised(copy.deepcopy(network)).double().requires_grad_(True)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.zero_() if name.endswith("bias") else weight.abs_()
    inputs = torch.ones_like(sample, dtype=torch.float64), torch.ones(len(sample)), torch.ones_like(tokens).double()
    network(*inputs).sum().backward()
    flow = sum(
        float((weight.detach() * weight.grad).sum()) for weight in network.parameters() if weight.grad is not None
    )
    return math.log1p(flow)


class _Identity(nn.Module):
    """Hands on its first argument."""

    def forward(self, value: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return value


class _Ungated(nn.Module):
    """GEGLU with gates of 1."""

    def __init__(self, gated: GEGLU) -> None:
        super().__init__()
        self.proj = gated.proj

    def forward(self, hidden: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return self.proj(hidden).chunk(2, dim=-1)[0]


def _linearised(network: nn.Module) -> nn.Module:
    from diffusers.models.activations import GEGLU
    from diffusers.models.attention_processor import Attention
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    for module in list(network.modules()):
        if isinstance(module, SinusoidalPositionalEmbedding):
            cast("Tensor", module.pe).zero_()
        if isinstance(module, Attention):
            nn.init.zeros_(module.to_q.weight)
            nn.init.zeros_(module.to_k.weight)
        for name, child in module.named_children():
            if isinstance(child, (nn.GroupNorm, nn.LayerNorm, nn.SiLU)):
                setattr(module, name, _Identity())
            elif isinstance(child, GEGLU):
                setattr(module, name, _Ungated(child))
    return network
