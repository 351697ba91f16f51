"""Architecture → torch module, block spec → torch module with example inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from nas.core.schema import to_data
from nas.models.temporal import TemporalAttention, TemporalConv, build_temporal_layer
from nas.models.unet import NORM_EPS, VideoUNet, make_resnet, make_spatial_attention
from search_spaces.layers import BLOCK_KINDS, TEMPORAL_KINDS, block_inputs

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.core.scenario import Scenario
    from nas.core.workload import BlockSpec
    from search_spaces.temporal import TemporalSpace

__all__ = ["build_block", "build_denoiser", "build_temporal_layer", "example_inputs"]

EXAMPLE_SEED = 0


def build_denoiser(
    space: TemporalSpace,
    architecture: Architecture,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> VideoUNet:
    """Build the network of an architecture with fresh weights, drawn from torch's global generator.

    Device ``meta`` gives shapes without memory.

    Raises:
        ArchitectureError: The architecture is not of this space.
    """
    space.validate(architecture)
    with torch.device(device):
        model = VideoUNet(
            space=architecture.space, choices=dict(architecture.choices), backbone=to_data(space.backbone)
        )
    return model.to(dtype)


def example_inputs(
    space: TemporalSpace,
    scenario: Scenario,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of ``VideoUNet.forward`` in a scenario: latents (B, T, C, H, W), time (B,), text (B, N, D).

    The same numbers at every call; time is float32 whatever ``dtype`` is.

    Raises:
        ConfigError: The scenario does not fit the space's backbone.
    """
    backbone = space.backbone
    height, width = backbone.latent_size(scenario)
    return (
        _random((batch, scenario.frames, backbone.latent_channels, height, width), dtype, device),
        torch.full((batch,), 500.0, device=device),
        _random((batch, backbone.text_tokens, backbone.text_width), dtype, device),
    )


def build_block(
    spec: BlockSpec, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Build one block of a workload and its example inputs for one clip: ``module(*inputs)`` is the block's work.

    All blocks of a workload together are the whole network, parameter for parameter. Temporal layers are not at their
    zero start here, because a compiler might see through it.

    Raises:
        ValueError: The kind is unknown.
    """
    with torch.device(device):
        module = _module(spec).to(dtype).eval()
        if isinstance(module, (TemporalAttention, TemporalConv)):
            module.proj_out.reset_parameters()
    inputs = {port: _random(shape, dtype, device) for port, shape in block_inputs(spec).items()}
    if "timestep" in inputs:
        inputs["timestep"] = torch.full((1,), 500.0, device=device)
    if spec.kind in TEMPORAL_KINDS:
        inputs["video"] = inputs["video"].unsqueeze(0)  # (1, T, C, H, W)
    return module, tuple(inputs.values())


class _TimeBlock(nn.Module):
    def __init__(self, channels: int, time_width: int) -> None:
        super().__init__()
        self.time_proj = Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(channels, time_width)

    def forward(self, timestep: Tensor) -> Tensor:
        waves = self.time_proj(timestep).to(self.time_embedding.linear_1.weight.dtype)
        return cast("Tensor", self.time_embedding(waves))


class _SkipResnet(nn.Module):
    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.resnet = resnet

    def forward(self, video: Tensor, skip: Tensor, time: Tensor) -> Tensor:
        return cast("Tensor", self.resnet(torch.cat([video, skip], dim=1), time))


class _SpatialAttention(nn.Module):
    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, video: Tensor, text: Tensor) -> Tensor:
        return cast("Tensor", self.transformer(video, text, return_dict=False)[0])


def _module(spec: BlockSpec) -> nn.Module:
    if spec.kind in TEMPORAL_KINDS:
        return build_temporal_layer(spec)
    match spec.kind:
        case "conv_in":
            return nn.Conv2d(spec["in_channels"], spec["out_channels"], 3, padding=1)
        case "conv_out":
            norm = nn.GroupNorm(spec["groups"], spec["in_channels"], eps=NORM_EPS)
            return nn.Sequential(norm, nn.SiLU(), nn.Conv2d(spec["in_channels"], spec["out_channels"], 3, padding=1))
        case "time_embedding":
            return _TimeBlock(spec["channels"], spec["time_width"])
        case "resnet":
            total = spec["in_channels"] + spec["skip_channels"]
            resnet = make_resnet(total, spec["out_channels"], time_width=spec["time_width"], groups=spec["groups"])
            return _SkipResnet(resnet) if spec["skip_channels"] else resnet
        case "spatial_attention":
            return _SpatialAttention(
                make_spatial_attention(
                    spec["channels"], heads=spec["heads"], groups=spec["groups"], text_width=spec["text_width"]
                )
            )
        case "downsample":
            return Downsample2D(spec["channels"], use_conv=True, name="op")
        case "upsample":
            return Upsample2D(spec["channels"], use_conv=True)
    raise ValueError(f"unknown block kind {spec.kind!r}; known are {', '.join(BLOCK_KINDS)}")


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: str | torch.device) -> Tensor:
    if torch.device(device).type == "meta":
        return torch.empty(shape, dtype=dtype, device="meta")
    generator = torch.Generator().manual_seed(EXAMPLE_SEED)
    return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)
