"""Text encoders as components: a CLIP text model, and the toy task's encoder of whole words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.export.component import Component, InputPort, OutputPort

if TYPE_CHECKING:
    from nas.models.caption import CaptionEncoder

NAME, IDS, STATES = "text_encoder", "input_ids", "encoder_hidden_states"
# Added to scores of later words: far below any score, and inside float16, where -inf would make NaN.
MASKED = -4e4
# Softmax and products one by one run on the Neural Engine; the fused operation does not.
AttentionForm = Literal["decomposed", "fused"]


class ClipTextStates(nn.Module):
    """The last hidden state of a ``transformers.CLIPTextModel``, from its own layers.

    The library's forward makes its mask from the shapes of the call; here it is a constant, which a phone can read.

    Args:
        model: The model; its layers are shared.
        attention: How attention is computed; the same numbers either way.
    """

    mask: Tensor

    def __init__(self, model: Any, *, attention: AttentionForm = "fused") -> None:
        super().__init__()
        parts = getattr(model, "text_model", model)  # transformers 4 keeps the layers one level further down
        self.num_heads = model.config.num_attention_heads
        self.attention = attention
        self.tokens = parts.embeddings.token_embedding
        self.positions = parts.embeddings.position_embedding.weight
        self.layers = parts.encoder.layers
        self.norm = parts.final_layer_norm
        length = len(self.positions)
        self.register_buffer("mask", torch.full((length, length), MASKED).triu(1), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """States (B, N, D) of token ids (B, N)."""
        states = self.tokens(ids) + self.positions
        for layer in self.layers:
            states = states + self._attend(layer.self_attn, layer.layer_norm1(states))
            states = states + layer.mlp(layer.layer_norm2(states))
        normed: Tensor = self.norm(states)
        return normed

    def _attend(self, layer: Any, states: Tensor) -> Tensor:
        batch, length, width = states.shape
        queries, keys, values = (
            projection(states).view(batch, length, self.num_heads, -1).transpose(1, 2)
            for projection in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        mixed = attend(queries, keys, values, form=self.attention, mask=self.mask)
        result: Tensor = layer.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return result


class WordStates(nn.Module):
    """The tokens of a ``CaptionEncoder``; its pooled text is for training only.

    Args:
        encoder: The encoder; its weights are shared.
    """

    def __init__(self, encoder: CaptionEncoder) -> None:
        super().__init__()
        self.words = encoder.words
        self.positions = encoder.positions
        self.norm = encoder.norm

    def forward(self, ids: Tensor) -> Tensor:
        """Tokens (B, N, D) of word ids (B, N)."""
        tokens: Tensor = self.norm(self.words(ids) + self.positions)
        return tokens


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, form: AttentionForm, mask: Tensor | None = None) -> Tensor:
    """Attention over (B, heads, N, D) with ``mask`` (N, N) added to the scores."""
    if form == "fused":
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    return (scores if mask is None else scores + mask).softmax(dim=-1) @ values


def clip_component(model: Any, ids: Tensor, *, attention: AttentionForm = "fused") -> Component:
    """Return a CLIP text model as a component for one caption.

    Args:
        model: A ``transformers.CLIPTextModel``, float32 on the CPU.
        ids: Token ids (1, N) of a caption to try it on, as its tokenizer gives them.
        attention: See ``ClipTextStates``.
    """
    module = ClipTextStates(model, attention=attention).eval()

    def reference(tokens: Tensor) -> Tensor:
        states: Tensor = model(tokens.long()).last_hidden_state
        return states

    description = f"CLIP text model: {model.config.num_hidden_layers} layers of width {model.config.hidden_size}."
    return _component(module, ids, len(module.positions), description=description, reference=reference)


def word_component(encoder: CaptionEncoder, caption: str) -> Component:
    """Return a caption encoder as a component for one caption; ``caption`` is one to try it on.

    Raises:
        ValueError: The caption has an unknown word.
    """
    ids = encoder.tokenize([caption])

    def reference(tokens: Tensor) -> Tensor:
        features: Tensor = encoder(tokens.long()).tokens
        return features

    description = f"Caption encoder: {len(encoder.vocabulary)} whole words of width {encoder.width}."
    return _component(WordStates(encoder).eval(), ids, encoder.num_tokens, description=description, reference=reference)


def _component(module: nn.Module, ids: Tensor, length: int, *, description: str, reference: Any) -> Component:
    if ids.shape != (1, length):
        raise ValueError(f"a caption has {length} tokens, got ids of {tuple(ids.shape)}")
    return Component(
        name=NAME,
        module=module,
        inputs=(InputPort(name=IDS, shape=(1, length), dtype="int32", text="Token ids of one caption, padded."),),
        outputs=(OutputPort(name=STATES, text="Text tokens (1, tokens, width), as the denoiser takes them."),),
        description=description,
        examples={IDS: ids.to(torch.int32)},
        examples_text="the ids of a caption",
        reference=reference,
    )
