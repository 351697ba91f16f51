"""The GPU's form: the network as it was trained, with every attention in one call over a batch of one.

GEGLU is two projections here too, because the tensor of both is where the memory of a UNet of this kind peaks.

diffusers is imported inside a function: only its classes are compared, none is extended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from nas.export.lowering.network import sharing_copy

if TYPE_CHECKING:
    from diffusers.models.activations import GEGLU
    from diffusers.models.attention_processor import Attention

    from nas.export.lowering.network import Rewriting


class GpuRewriting:
    """Keeps linear layers, group norms and three-dimensional convolutions, which the GPU runs; see ``Rewriting``."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.fused: dict[str, type[nn.Module]] = {}

    def text(self, tokens: Tensor) -> Tensor:
        """Text (1, N, D) as it is."""
        return tokens

    def time(self, embedding: nn.Module) -> nn.Module:
        """The two layers behind the sinusoid."""
        return sharing_copy(embedding)

    def norm(self, norm: nn.GroupNorm) -> nn.Module:
        """The same norm."""
        return sharing_copy(norm)

    def resnet(self, block: nn.Module) -> nn.Module:
        """The same block."""
        return sharing_copy(block)

    def transformer(self, transformer: nn.Module) -> nn.Module:
        """Diffusers' transformer with other attention processors and GEGLUs."""
        return _Spatial(_rewritten(transformer))

    def temporal(self, layer: nn.Module) -> nn.Module:
        """The same layer with other attention processors and GEGLUs."""
        return _Temporal(_rewritten(layer))


class FoldedProcessor:
    """Attention as one call over a batch of one: rows of the batch are laid beside the heads.

    Core ML's fused attention on the GPU gave wrong results for a batch of ten or more (coremltools issue 2650), and
    that of frames is frames, that of temporal attention is pixels. Rows and heads are alike to it, so folding them is a
    view. Where rows share one text their queries are laid side by side, as in ``nas.models.temporal``.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_unused: Any,
    ) -> Tensor:
        """Attend ``hidden_states`` (R, L, C) to itself, or to the one text ``encoder_hidden_states`` (1, N, D)."""
        rows, length, width = hidden_states.shape
        if encoder_hidden_states is not None:
            hidden_states = hidden_states.reshape(1, rows * length, width)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch, queries, _ = hidden_states.shape
        query, key, value = (
            layer(source).reshape(batch, -1, attn.heads, width // attn.heads).transpose(1, 2).flatten(0, 1).unsqueeze(0)
            for layer, source in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )  # (1, batch * heads, tokens, width / heads)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.reshape(batch, attn.heads, queries, -1).transpose(1, 2).reshape(rows, length, width)
        out, _dropout = cast("nn.ModuleList", attn.to_out)
        return cast("Tensor", out(mixed))


class _Spatial(nn.Module):
    """A spatial transformer as ``LoweredUNet`` calls it."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, video: Tensor, text: Tensor) -> Tensor:
        return cast("Tensor", self.transformer(video, text, return_dict=False)[0])


class _Temporal(nn.Module):
    """A temporal layer as ``LoweredUNet`` calls it: frames without the clip's axis."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, video: Tensor, text: Tensor) -> Tensor:
        return cast("Tensor", self.layer(video.unsqueeze(0), text)).reshape(video.shape)


class _TwoProjections(nn.Module):
    """GEGLU with value and gate as two linear layers: no tensor of both is ever made."""

    def __init__(self, gated: GEGLU) -> None:
        super().__init__()
        half = gated.proj.out_features // 2
        self.value, self.gate = _rows(gated.proj, slice(half)), _rows(gated.proj, slice(half, None))

    def forward(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self.value(tokens) * nn.functional.gelu(self.gate(tokens)))


def _rows(layer: nn.Linear, rows: slice) -> nn.Linear:
    """Some outputs of a linear layer, without copying its weights."""
    weight, bias = layer.weight.detach()[rows], layer.bias.detach()[rows]
    part = nn.Linear(layer.in_features, len(bias), device="meta")
    part.weight = nn.Parameter(weight, requires_grad=False)
    part.bias = nn.Parameter(bias, requires_grad=False)
    return part


def _rewritten(module: nn.Module) -> nn.Module:
    from diffusers.models.attention import FeedForward
    from diffusers.models.attention_processor import Attention

    copied = sharing_copy(module)
    for part in list(copied.modules()):
        if isinstance(part, Attention):
            part.set_processor(cast("Any", FoldedProcessor()))
        if isinstance(part, FeedForward):
            part.net[0] = _TwoProjections(cast("GEGLU", part.net[0]))
    return copied


if TYPE_CHECKING:
    _meets: type[Rewriting] = GpuRewriting
