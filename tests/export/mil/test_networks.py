"""Whole networks of the kind a video pipeline needs, converted small and computed beside torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from nas.export.mil import compare_outputs, execute, missing_operations, read_program
from nas.export.shims import repaired_coremltools

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Text(nn.Module):
    """CLIP's text model: causal, quick GELU, last norm before the output (Radford et al. 2021, section 2.4)."""

    def __init__(self, words: int = 500, width: int = 32, length: int = 16) -> None:
        super().__init__()
        self.words, self.position = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "attention": nn.ModuleDict({name: nn.Linear(width, width) for name in ("q", "k", "v", "out")}),
                    "norm2": nn.LayerNorm(width),
                    "up": nn.Linear(width, 4 * width),
                    "down": nn.Linear(4 * width, width),
                }
            )
            for _ in range(2)
        )
        self.last = nn.LayerNorm(width)
        # As Core ML wants it: a large number, not minus infinity.
        self.register_buffer("mask", torch.full((length, length), -4e4).triu(1))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.words(tokens.long()) + self.position.weight
        for block in self.blocks:
            normed, attention = block["norm1"](hidden), block["attention"]
            q, k, v = (attention[name](normed).unflatten(-1, (4, 8)).transpose(1, 2) for name in ("q", "k", "v"))
            scores = (q @ k.transpose(-1, -2)) * 8**-0.5 + self.mask
            hidden = hidden + attention["out"]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
            raised = block["up"](block["norm2"](hidden))
            hidden = hidden + block["down"](raised * torch.sigmoid(1.702 * raised))
        return self.last(hidden)


class Called(nn.Module):
    """A network by way of one function, so that it takes tensors and returns one."""

    def __init__(self, network: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(self.network, *inputs)


@dataclass(frozen=True)
class Network:
    """How to build one and what it takes."""

    make: Any
    inputs: tuple[Tensor, ...]


def unet() -> nn.Module:
    network = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    return Called(network, lambda net, latents, time, text: net(latents, time, text, return_dict=False)[0])


def tiny_decoder() -> nn.Module:
    return AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).decoder


def decoder() -> nn.Module:
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        sample_size=16,
    )
    return Called(network, lambda net, latents: net.decode(latents, return_dict=False)[0])


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).half().float()


NETWORKS = {
    "diffusers UNet2DConditionModel": Network(unet, (noise(1, 4, 8, 8), torch.tensor([20.0]), noise(1, 5, 16))),
    "diffusers AutoencoderTiny decoder": Network(tiny_decoder, (noise(1, 4, 4, 4),)),
    "diffusers AutoencoderKL decoder": Network(decoder, (noise(1, 4, 8, 8),)),
    "CLIP text model": Network(Text, (torch.arange(16, dtype=torch.int32)[None] * 31,)),
}


def converted(network: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> Path:
    """Save ``network`` in float16, traced as coremltools asks for it."""
    with repaired_coremltools() as coremltools, torch.no_grad():
        ports = [
            coremltools.TensorType(
                name=f"input_{place}",
                shape=tuple(item.shape),
                dtype=np.float16 if item.is_floating_point() else np.int32,
            )
            for place, item in enumerate(inputs)
        ]
        model = coremltools.convert(
            torch.jit.trace(network, inputs, check_trace=False),
            convert_to="mlprogram",
            inputs=ports,
            outputs=[coremltools.TensorType(name="result", dtype=np.float16)],
            minimum_deployment_target=coremltools.target.iOS18,
            skip_model_load=True,
        )
        model.save(str(path))
    return path


@pytest.mark.filterwarnings("ignore")  # the tracer's, about shapes that become constants
@pytest.mark.parametrize("name", NETWORKS)
def test_network_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    chosen = NETWORKS[name]
    torch.manual_seed(0)
    network = chosen.make().eval()
    with torch.no_grad():
        for parameter in network.parameters():  # no norm at one: its affine part would be folded away
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        for parameter in network.parameters():  # as the package stores them
            parameter.copy_(parameter.half())
        expected = {"result": network(*chosen.inputs)}
    program = read_program(converted(network, chosen.inputs, tmp_path / "network.mlpackage"))
    inputs = {f"input_{place}": item for place, item in enumerate(chosen.inputs)}
    assert missing_operations(program) == ()
    (single,) = compare_outputs(expected, execute(program, inputs))
    (half,) = compare_outputs(expected, execute(program, inputs, precision="float16"))
    assert single.max_relative < 1e-3
    assert half.max_relative < 1e-2
