"""Text for the denoiser: a learned encoder of whole words, and embeddings that a text model made beforehand.

Both meet ``TextEncoder``: trainers hand it rows of text as the data gave them and ask it for rows of the empty caption.
"""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

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


class TextEncoder(Protocol):
    """What every stage needs of captions; an ``nn.Module`` with these two methods more."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    def __call__(self, text: Tensor, /) -> CaptionFeatures:
        """Features of text rows, (B, ...) as ``TrainingClips.fetch`` gives them."""

    def empty_text(self, count: int) -> Tensor:
        """``count`` text rows of the empty caption, for dropout and guidance."""

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Text rows of sentences."""

    def save(self, path: Path) -> None:
        """Write everything as one safetensors file, atomically."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As ``nn.Module``."""

    def eval(self) -> Self:
        """As ``nn.Module``."""


class WordTokenizer:
    """Ids of whole words.

    Args:
        vocabulary: Known words; word ``i`` has the id ``i + 1``, 0 is padding.
        num_tokens: Length of a row; longer captions are refused, shorter ones padded.

    Raises:
        ValueError: The vocabulary repeats a word.
    """

    def __init__(self, *, vocabulary: Sequence[str], num_tokens: int) -> None:
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("caption vocabulary repeats a word")
        self.vocabulary = tuple(vocabulary)
        self.num_tokens = num_tokens
        self._ids = {word: index for index, word in enumerate(self.vocabulary, start=1)}

    def __call__(self, captions: Sequence[str]) -> Tensor:
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

    def _word_id(self, word: str, caption: str) -> int:
        if word in self._ids:
            return self._ids[word]
        near = difflib.get_close_matches(word, self.vocabulary, n=1)
        hint = f", did you mean {near[0]!r}" if near else ""
        raise ValueError(f"caption {caption!r}: unknown word {word!r}{hint}; known words are {sorted(self.vocabulary)}")


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
        self._tokenizer = WordTokenizer(vocabulary=vocabulary, num_tokens=num_tokens)
        self.vocabulary = self._tokenizer.vocabulary
        self.num_tokens = num_tokens
        self.width = width
        self.words = nn.Embedding(len(self.vocabulary) + 1, width)
        self.positions = nn.Parameter(0.1 * torch.randn(num_tokens, width))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, width)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.positions.device

    def empty_text(self, count: int) -> Tensor:
        """Word ids (B, N) of the empty caption: all padding."""
        return torch.full((count, self.num_tokens), PADDING, dtype=torch.long, device=self.device)

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Word ids (B, N) of captions; an empty caption is all padding.

        Raises:
            ValueError: A word is unknown or a caption is too long.
        """
        return self._tokenizer(captions)

    def forward(self, ids: Tensor) -> CaptionFeatures:
        """Features of word ids (B, N)."""
        tokens = self.norm(self.words(ids) + self.positions)
        real = (ids != PADDING).to(tokens.dtype).unsqueeze(-1)
        pooled = (tokens * real).sum(dim=1) / real.sum(dim=1).clamp_min(1.0)
        return CaptionFeatures(tokens=tokens, pooled=self.pool(pooled))

    def encode(self, captions: Sequence[str]) -> CaptionFeatures:
        """Features of captions, on the encoder's device."""
        features: CaptionFeatures = self(self.tokenize(captions).to(self.device))
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


class StoredCaptions(nn.Module):
    """Passes on embeddings that a text model made before training; has no weights to train.

    A text row is (N + 1, D): the N tokens for cross-attention, then the pooled text.

    Args:
        empty: Row of the empty caption, (N + 1, D).
    """

    empty: Tensor

    def __init__(self, *, empty: Tensor) -> None:
        super().__init__()
        if empty.dim() != 2 or len(empty) < 2:
            raise ValueError(f"row of the empty caption must be (tokens + 1, width), got {tuple(empty.shape)}")
        self.register_buffer("empty", empty.float())

    @property
    def device(self) -> torch.device:
        """Where the row of the empty caption is."""
        return self.empty.device

    def forward(self, text: Tensor) -> CaptionFeatures:
        """Split rows (B, N + 1, D) into tokens and pooled text.

        Raises:
            ValueError: Rows are of another shape than that of the empty caption.
        """
        if text.shape[1:] != self.empty.shape:
            raise ValueError(f"text rows are {tuple(text.shape[1:])}, the empty caption's is {tuple(self.empty.shape)}")
        return CaptionFeatures(tokens=text[:, :-1], pooled=text[:, -1])

    def empty_text(self, count: int) -> Tensor:
        """Rows (B, N + 1, D) of the empty caption."""
        return self.empty.expand(count, -1, -1)

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Rows (B, N + 1, D) of empty captions.

        Raises:
            ValueError: Any other caption is given: the text model that made the embeddings is not part of this.
        """
        for caption in captions:
            if caption:
                raise ValueError(f"caption {caption!r} cannot be encoded: only embeddings were stored, no text model")
        return self.empty_text(len(captions))

    def save(self, path: Path) -> None:
        """Write the row of the empty caption as safetensors, atomically."""
        write_tensors(path, {"empty": self.empty}, metadata={"kind": "stored_captions"})

    @classmethod
    def load(cls, path: Path) -> StoredCaptions:
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: The file is missing, damaged, or holds something else.
        """
        tensors, metadata = read_tensors(path)
        if metadata.get("kind") != "stored_captions" or set(tensors) != {"empty"}:
            raise CheckpointError(f"{path}: is not the text of stored captions: holds {sorted(tensors)}")
        return cls(empty=tensors["empty"])


def load_text_encoder(path: Path) -> CaptionEncoder | StoredCaptions:
    """Read a caption encoder or stored captions, whichever ``path`` holds.

    Raises:
        CheckpointError: The file is missing, damaged, or neither.
    """
    _, metadata = read_tensors(path)
    if metadata.get("kind") == "stored_captions":
        return StoredCaptions.load(path)
    return CaptionEncoder.load(path)
