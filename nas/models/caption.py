"""Learned caption encoder: whole words, no pretrained text model."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from nas.core.errors import CheckpointError
from nas.models.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PADDING = 0


class CaptionFeatures(NamedTuple):
    """What a denoiser sees of captions: ``tokens`` (B, N, D) for cross-attention and ``pooled`` (B, D)."""

    tokens: Tensor
    pooled: Tensor


class CaptionEncoder(nn.Module):
    """Embeds each word and its position; the empty caption, all padding, stands for "no text" in guidance.

    Shapes: B batch, N tokens, D width.

    Args:
        vocabulary: Known words; word ``i`` has the id ``i + 1``, 0 is padding.
        width: D, the text width of the search space.
        num_tokens: N; longer captions are refused, shorter ones padded.
    """

    def __init__(self, *, vocabulary: Sequence[str], width: int, num_tokens: int) -> None:
        super().__init__()
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("caption vocabulary repeats a word")
        self.vocabulary = tuple(vocabulary)
        self.num_tokens = num_tokens
        self.width = width
        self._ids = {word: index for index, word in enumerate(self.vocabulary, start=1)}
        self.words = nn.Embedding(len(self.vocabulary) + 1, width)
        self.positions = nn.Parameter(0.1 * torch.randn(num_tokens, width))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, width)

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Word ids (B, N) of captions; an empty caption is all padding.

        Raises:
            ValueError: A word is unknown or a caption is too long.
        """
        ids = torch.full((len(captions), self.num_tokens), PADDING, dtype=torch.long)
        for row, caption in enumerate(captions):
            words = caption.lower().split()
            if len(words) > self.num_tokens:
                raise ValueError(f"caption {caption!r} has {len(words)} words, allowed are {self.num_tokens}")
            for column, word in enumerate(words):
                ids[row, column] = self._word_id(word, caption)
        return ids

    def forward(self, ids: Tensor) -> CaptionFeatures:
        """Features of word ids (B, N)."""
        tokens = self.norm(self.words(ids) + self.positions)
        real = (ids != PADDING).to(tokens.dtype).unsqueeze(-1)
        pooled = (tokens * real).sum(dim=1) / real.sum(dim=1).clamp_min(1.0)
        return CaptionFeatures(tokens=tokens, pooled=self.pool(pooled))

    def encode(self, captions: Sequence[str]) -> CaptionFeatures:
        """Features of captions, on the encoder's device."""
        features: CaptionFeatures = self(self.tokenize(captions).to(self.positions.device))
        return features

    def save(self, path: Path) -> None:
        """Write weights and vocabulary as one safetensors file, atomically."""
        metadata = {"kind": "caption_encoder", "vocabulary": json.dumps(self.vocabulary)}
        write_tensors(path, self.state_dict(), metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> CaptionEncoder:
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: The file is missing, damaged, or no caption encoder.
        """
        tensors, metadata = read_tensors(path)
        if metadata.get("kind") != "caption_encoder" or "positions" not in tensors:
            raise CheckpointError(f"{path}: is not a caption encoder: holds {sorted(tensors)}")
        num_tokens, width = tensors["positions"].shape
        encoder = cls(vocabulary=json.loads(metadata["vocabulary"]), width=width, num_tokens=num_tokens)
        try:
            encoder.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: does not fit a caption encoder: {error}") from error
        return encoder

    def _word_id(self, word: str, caption: str) -> int:
        if word in self._ids:
            return self._ids[word]
        near = difflib.get_close_matches(word, self.vocabulary, n=1)
        hint = f", did you mean {near[0]!r}" if near else ""
        raise ValueError(f"caption {caption!r}: unknown word {word!r}{hint}; known words are {sorted(self.vocabulary)}")
