"""Descriptions without torch equal diffusers' networks: parameters and FLOPs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from latency_models.memory import memory_profile
from search_spaces.stable_diffusion import (
    SD15_UNET,
    SD21_UNET,
    SDXL_UNET,
    SNAPFUSION_UNET,
    UNetShape,
    text_encoder_workload,
    unet_workload,
    vae_decoder_workload,
)

if TYPE_CHECKING:
    from torch import nn

CROSS = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
CONFIGS: list[tuple[UNetShape, int, dict[str, Any]]] = [
    # The counts are those of the published checkpoints.
    (SD15_UNET, 859_520_964, {"cross_attention_dim": 768, "attention_head_dim": 8}),
    (
        SD21_UNET,
        865_910_724,
        {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    ),
    (
        SDXL_UNET,
        2_567_463_684,
        {
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "use_linear_projection": True,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("shape", "published", "config"), CONFIGS, ids=[shape.name for shape, _, _ in CONFIGS])
def test_unet_has_the_published_parameters_and_diffusers_agrees(
    shape: UNetShape, published: int, config: dict[str, Any]
) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        module = UNet2DConditionModel(sample_size=64, **config)
    workload = unet_workload(shape, batch=1, height=16, width=16)
    assert workload.parameters == published == count(module)


def test_sd15_unet_has_the_flops_that_torch_counts() -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        module = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        inputs = (torch.zeros(1, 4, 32, 32), torch.zeros(1, dtype=torch.long), torch.zeros(1, 77, 768))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(*inputs)
    assert unet_workload(SD15_UNET, batch=1, height=32, width=32).flops == counter.get_total_flops()


def test_snapfusion_unet_as_far_as_it_is_published_is_a_tenth_smaller_than_it_is_said_to_be() -> None:
    # 848 M, arXiv:2306.00980; its stage counts give 759 M, whatever the split of the deepest stage takes away.
    parameters = unet_workload(SNAPFUSION_UNET, batch=1, height=64, width=64).parameters
    assert parameters == pytest.approx(848e6, rel=0.11)


@pytest.mark.parametrize("size", [(1, 64, 64), (2, 128, 64)])
def test_decoder_has_diffusers_parameters_and_flops(size: tuple[int, int, int]) -> None:
    from diffusers.models.autoencoders.vae import Decoder

    frames, height, width = size
    with torch.device("meta"):
        module = Decoder(
            4, 3, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512), layers_per_block=2
        )
        latents = torch.zeros(frames, 4, height // 8, width // 8)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(latents)
    workload = vae_decoder_workload(*size)
    assert workload.parameters == count(module)
    assert workload.flops == counter.get_total_flops()


def test_halved_decoder_is_about_a_quarter_of_the_parameters() -> None:
    # SnapFusion, arXiv:2306.00980: 50 M to 13 M.
    half = vae_decoder_workload(1, 64, 64, channels=(64, 128, 256, 256))
    assert half.parameters == pytest.approx(12.5e6, rel=0.02)


def test_text_encoder_has_clip_parameters() -> None:
    # openai/clip-vit-large-patch14's text model: 12 layers of 12 w^2 + 13 w, two embeddings, the final norm.
    width = 768
    by_hand = 12 * (12 * width**2 + 13 * width) + (49408 + 77) * width + 2 * width
    assert text_encoder_workload().parameters == by_hand == 123_060_480


def test_workloads_are_wired_so_that_liveness_can_walk_them() -> None:
    for workload in (
        unet_workload(SNAPFUSION_UNET, batch=2, height=64, width=64),
        vae_decoder_workload(2, 64, 64),
        text_encoder_workload(batch=2),
    ):
        assert memory_profile(workload).peak_activation_bytes > 0


def test_picture_that_does_not_divide_into_latents_is_refused() -> None:
    with pytest.raises(ValueError, match="60 x 64 px do not divide into latents by 8"):
        vae_decoder_workload(1, 60, 64)
