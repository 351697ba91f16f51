"""Decoders as components: an image VAE frame by frame, and the toy task's linear codec. Scaling is inside."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.export.component import Component, InputPort, OutputPort
from nas.export.text_encoder import attend

if TYPE_CHECKING:
    from nas.export.text_encoder import AttentionForm

NAME, LATENTS, PIXELS = "decoder", "latents", "pixels"


class VaeFrames(nn.Module):
    """Pixels in 0-1 of scaled latents, through an ``AutoencoderKL`` or ``AutoencoderTiny``.

    Args:
        vae: The autoencoder; not changed, and its decoder shared where nothing of it is replaced.
        attention: How the attention of an ``AutoencoderKL``'s middle is computed; the same numbers either way.
    """

    def __init__(self, vae: Any, *, attention: AttentionForm = "fused") -> None:
        super().__init__()
        self.decoder = vae.decoder if attention == "fused" else copy.deepcopy(vae.decoder)
        self.tiny = type(vae).__name__ == "AutoencoderTiny"
        self.post_quant_conv = None if self.tiny else vae.post_quant_conv
        self.scale = 1.0 / vae.config.scaling_factor
        self.shift = vae.config.shift_factor or 0.0
        if attention == "decomposed":
            for part in self.decoder.modules():
                if hasattr(part, "set_processor"):
                    part.set_processor(_PlainAttention())

    def forward(self, latents: Tensor) -> Tensor:
        """Frames (N, 3, H, W) of latents (N, C, h, w) as the denoiser gives them."""
        plain = latents * self.scale + self.shift
        if self.post_quant_conv is not None:
            plain = self.post_quant_conv(plain)
        if self.tiny:  # its own range, 0-1, before diffusers stretches it to -1..1
            squashed = torch.tanh(plain / 3) * 3
            pixels: Tensor = self.decoder.layers(squashed)
            return pixels.clamp(0.0, 1.0)
        return _unit(self.decoder(plain))


class PatchFrames(nn.Module):
    """Pixels in 0-1 of a linear patch codec: one 1 x 1 convolution, then patches laid out.

    Args:
        components: (C, 3 P P), a patch for each latent channel.
        scale: (C,), what latents were multiplied with.
        mean: (3 P P,), the mean patch.
        patch: Side P of a patch in pixels.
    """

    def __init__(self, *, components: Tensor, scale: Tensor, mean: Tensor, patch: int) -> None:
        super().__init__()
        self.patch = patch
        weight = (components / scale[:, None]).T
        self.weight = nn.Parameter(weight[:, :, None, None].contiguous(), requires_grad=False)
        self.bias = nn.Parameter(mean.clone(), requires_grad=False)

    def forward(self, latents: Tensor) -> Tensor:
        """Frames (N, 3, H, W) of latents (N, C, h, w)."""
        return _unit(F.pixel_shuffle(F.conv2d(latents, self.weight, self.bias), self.patch))


class _PlainAttention:
    """diffusers' attention over pixels with one head a group, by products and a softmax."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,  # noqa: ARG002  # diffusers names it at every call
        attention_mask: None = None,  # noqa: ARG002  # the same
        temb: None = None,  # noqa: ARG002  # the same
    ) -> Tensor:
        batch, channels, height, width = hidden_states.shape
        tokens = hidden_states.flatten(2)
        if attn.group_norm is not None:
            tokens = attn.group_norm(tokens)
        tokens = tokens.transpose(1, 2)
        queries, keys, values = (
            projection(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = attend(queries, keys, values, form="decomposed").transpose(1, 2).flatten(2)
        out = attn.to_out[0](mixed).transpose(1, 2).reshape(batch, channels, height, width)
        joined: Tensor = out + hidden_states if attn.residual_connection else out
        return joined / attn.rescale_output_factor


def vae_component(
    vae: Any, *, frames: int, latent_size: tuple[int, int], attention: AttentionForm = "fused"
) -> Component:
    """Return a VAE's decoder as a component for ``frames`` frames a call.

    Args:
        vae: An ``AutoencoderKL`` or ``AutoencoderTiny``, float32 on the CPU.
        frames: Frames that one call decodes, as a batch.
        latent_size: Height and width of the latents.
        attention: See ``VaeFrames``.
    """
    config = vae.config

    def reference(latents: Tensor) -> Tensor:
        shifted = latents / config.scaling_factor + (config.shift_factor or 0.0)
        return _unit(vae.decode(shifted).sample)

    description = f"{type(vae).__name__} decoder, latents scaled by {config.scaling_factor:g} inside."
    shape = (frames, config.latent_channels, *latent_size)
    return _component(VaeFrames(vae, attention=attention).eval(), shape, description=description, reference=reference)


def patch_component(
    *,
    components: Tensor,
    scale: Tensor,
    mean: Tensor,
    patch: int,
    frames: int,
    latent_size: tuple[int, int],
) -> Component:
    """Return a linear patch codec's decoder as a component for ``frames`` frames a call; see ``PatchFrames``."""
    module = PatchFrames(components=components, scale=scale, mean=mean, patch=patch).eval()
    description = f"Linear decoder of {patch} x {patch} px patches."
    return _component(module, (frames, len(components), *latent_size), description=description)


def _component(module: nn.Module, shape: tuple[int, ...], *, description: str, reference: Any = None) -> Component:
    return Component(
        name=NAME,
        module=module,
        inputs=(InputPort(name=LATENTS, shape=shape, text="Latents (frames, channels, height, width) at time 0."),),
        outputs=(OutputPort(name=PIXELS, text="Pixels in 0-1 (frames, 3, height, width)."),),
        description=description,
        reference=reference,
    )


def _unit(pixels: Tensor) -> Tensor:
    # Clamped first: coremltools would fold the scaling into the last convolution, whose weights are then not stored.
    return pixels.clamp(-1.0, 1.0) * 0.5 + 0.5
