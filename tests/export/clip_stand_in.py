"""A CLIP text model of torch's own layers, laid out as transformers lays out its own: needs no transformers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

WORDS, LENGTH, WIDTH, HEADS = 40, 12, 64, 4


class QuickGelu(nn.Module):
    def forward(self, tensor: Tensor) -> Tensor:
        return tensor * torch.sigmoid(1.702 * tensor)


class StandIn:
    """``parts`` is what ``ClipTextStates`` reads; calling it computes the states by ``nn.TransformerEncoderLayer``."""

    def __init__(self, *, num_layers: int = 2, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.config = SimpleNamespace(num_attention_heads=HEADS, num_hidden_layers=num_layers, hidden_size=WIDTH)
        self.token_embedding = nn.Embedding(WORDS, WIDTH)
        self.position_embedding = nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                WIDTH, HEADS, 2 * WIDTH, dropout=0.0, activation=QuickGelu(), batch_first=True, norm_first=True
            ).eval()
            for _ in range(num_layers)
        )
        self.final_layer_norm = nn.LayerNorm(WIDTH)
        with torch.no_grad():
            for module in (self.layers, self.final_layer_norm):
                for parameter in module.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.05)
        self.embeddings = SimpleNamespace(
            token_embedding=self.token_embedding, position_embedding=self.position_embedding
        )
        self.encoder = SimpleNamespace(layers=nn.ModuleList(_laid_out(layer) for layer in self.layers))

    def __call__(self, ids: Tensor) -> Any:
        states = self.token_embedding(ids) + self.position_embedding.weight
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        for layer in self.layers:
            states = layer(states, src_mask=mask, is_causal=True)
        return SimpleNamespace(last_hidden_state=self.final_layer_norm(states))


def _laid_out(layer: Any) -> nn.Module:
    out = nn.Module()
    out.layer_norm1, out.layer_norm2 = layer.norm1, layer.norm2
    out.self_attn = nn.Module()
    weights, biases = layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3)
    for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
        projection = nn.Linear(WIDTH, WIDTH)
        projection.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
        setattr(out.self_attn, name, projection)
    out.self_attn.out_proj = layer.self_attn.out_proj
    out.mlp = nn.Sequential(layer.linear1, QuickGelu(), layer.linear2)
    return out
