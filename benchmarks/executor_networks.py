"""Networks that the executor must compute: random ones of both spaces, diffusers' UNet and decoders, a text model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import search_spaces
from nas.core.scenario import Scenario
from nas.export.component import Component, InputPort, OutputPort, denoiser_component
from nas.models.build import build_denoiser
from search_spaces.operators import sample
from search_spaces.temporal import TemporalSpace

if TYPE_CHECKING:
    from nas.export.lowering import Lowering
    from search_spaces.backbone import BackboneSpec

TOY = Scenario(frames=8, height=32, width=32, denoising_steps=4)
NARROW = Scenario(frames=4, height=64, width=64, denoising_steps=4)


class TextModel(nn.Module):
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
        """States (B, N, C) of token numbers (B, N)."""
        hidden = self.words(tokens.long()) + self.position.weight
        for block in self.blocks:
            normed, attention = block["norm1"](hidden), block["attention"]
            q, k, v = (attention[name](normed).unflatten(-1, (4, 8)).transpose(1, 2) for name in ("q", "k", "v"))
            scores = (q @ k.transpose(-1, -2)) * 8**-0.5 + self.mask
            hidden = hidden + attention["out"]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
            raised = block["up"](block["norm2"](hidden))
            hidden = hidden + block["down"](raised * torch.sigmoid(1.702 * raised))
        states: Tensor = self.last(hidden)
        return states


class Called(nn.Module):
    """A network by way of one function, so that it takes tensors and returns one."""

    def __init__(self, network: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the function makes of the network and its inputs."""
        return self.call(self.network, *inputs)


def unet() -> nn.Module:
    """A small ``UNet2DConditionModel``."""
    from diffusers import UNet2DConditionModel

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
    """The decoder of a small ``AutoencoderTiny``."""
    from diffusers import AutoencoderTiny

    decoder: nn.Module = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    ).decoder
    return decoder


def decoder() -> nn.Module:
    """The decoder of a small ``AutoencoderKL``."""
    from diffusers import AutoencoderKL

    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        sample_size=16,
    )
    return Called(network, lambda net, latents: net.decode(latents, return_dict=False)[0])


def noise(*shape: int) -> Tensor:
    """Standard normal numbers, exact in float16, the same for every call of a rank."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).half().float()


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A network that is of no space: how to build it and what it takes."""

    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]


OTHERS = {
    "diffusers UNet2DConditionModel": Other(
        make=unet, inputs=(noise(1, 4, 8, 8), torch.tensor([20.0]), noise(1, 5, 16))
    ),
    "diffusers AutoencoderTiny decoder": Other(make=tiny_decoder, inputs=(noise(1, 4, 4, 4),)),
    "diffusers AutoencoderKL decoder": Other(make=decoder, inputs=(noise(1, 4, 8, 8),)),
    "CLIP text model": Other(make=TextModel, inputs=(torch.arange(16, dtype=torch.int32)[None] * 31,)),
}


def other_component(name: str) -> Component:
    """Return one of ``OTHERS`` with random weights."""
    chosen = OTHERS[name]
    torch.manual_seed(0)
    module = trained(chosen.make())
    ports = [
        InputPort(
            name=f"input_{place}",
            shape=tuple(item.shape),
            dtype="float16" if item.is_floating_point() else "int32",
            text=f"Input {place}.",
        )
        for place, item in enumerate(chosen.inputs)
    ]
    return Component(
        name="network",
        module=module,
        inputs=tuple(ports),
        outputs=(OutputPort(name="result", text="Result."),),
        examples={f"input_{place}": item for place, item in enumerate(chosen.inputs)},
    )


def trained(module: Any) -> Any:
    """Return a network as after training: no norm at one, no bias at zero, nothing for a conversion to fold away."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return module.eval()


def scaled_backbone(divisor: int, *, text_width: int, text_tokens: int, groups: int, heads: int) -> BackboneSpec:
    """Return the backbone of ``snapgen_v`` with every width divided by ``divisor``."""
    full = search_spaces.get("snapgen_v").backbone
    stages = tuple(
        replace(
            stage,
            blocks=tuple(
                replace(
                    block,
                    in_channels=block.in_channels // divisor,
                    skip_channels=block.skip_channels // divisor,
                    out_channels=block.out_channels // divisor,
                )
                for block in stage.blocks
            ),
        )
        for stage in full.stages
    )
    return replace(
        full,
        name=f"{full.name}/{divisor}",
        stages=stages,
        norm_groups=groups,
        attention_heads=heads,
        text_width=text_width,
        text_tokens=text_tokens,
        time_width=full.time_width // divisor,
        width_multiple=8,
    )


def narrow_space(divisor: int = 10) -> TemporalSpace:
    """Return ``snapgen_v`` with channels of 32, 64 and 128 (at ten), the same slots, kinds and depths."""
    full = search_spaces.get("snapgen_v")
    backbone = scaled_backbone(divisor, text_width=32, text_tokens=8, groups=8, heads=4)
    return TemporalSpace(
        f"{full.name}-narrow",
        1,
        backbone,
        width_ratios=(0.25, 0.5, 1.0),
        kernels=(3, 5),
        heads=(2, 4),
        depths=(1, 2),
    )


def random_component(
    space: TemporalSpace, scenario: Scenario, seed: int, *, lowering: Lowering = "gpu"
) -> tuple[Component, tuple[str, ...]]:
    """Return a random network of a space in one of its forms, with random weights, and its temporal kinds."""
    architecture = sample(space, Random(seed))
    torch.manual_seed(seed)
    denoiser = trained(build_denoiser(space, architecture))
    kinds = sorted({str(value) for name, value in dict(architecture.choices).items() if name.endswith(".kind")})
    return denoiser_component(denoiser, scenario, lowering=lowering), tuple(kinds)
