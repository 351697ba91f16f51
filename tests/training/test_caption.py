"""Captions become word ids and features; the empty caption stands apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from nas.core.errors import CheckpointError
from nas.models.caption import CaptionEncoder, StoredCaptions, load_text_encoder
from nas.training.clips import VOCABULARY, all_attributes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def encoder() -> CaptionEncoder:
    torch.manual_seed(0)
    return CaptionEncoder(vocabulary=VOCABULARY, width=64, num_tokens=12)


def test_every_caption_has_its_own_ids_and_pads_with_zero(encoder: CaptionEncoder) -> None:
    ids = encoder.tokenize((*all_attributes("train").captions(), *all_attributes("held_out").captions()))
    assert ids.shape == (162, 12)
    assert len(ids.unique(dim=0)) == 162
    assert ids[:, 6:].max() == 0


def test_empty_caption_is_all_padding_and_pools_to_the_bias(encoder: CaptionEncoder) -> None:
    assert encoder.tokenize([""]).tolist() == [[0] * 12]
    assert torch.allclose(encoder.encode([""]).pooled[0], encoder.pool.bias)


def test_features_have_the_stated_shapes_and_learn(encoder: CaptionEncoder) -> None:
    features = encoder.encode(["a red circle standing still", ""])
    assert (features.tokens.shape, features.pooled.shape) == ((2, 12, 64), (2, 64))
    features.pooled.sum().backward()
    assert encoder.words.weight.grad.abs().sum() > 0


def test_unknown_word_is_named_with_the_nearest(encoder: CaptionEncoder) -> None:
    with pytest.raises(ValueError, match="unknown word 'cirle', did you mean 'circle'"):
        encoder.tokenize(["a red cirle"])


def test_too_long_caption_is_refused(encoder: CaptionEncoder) -> None:
    with pytest.raises(ValueError, match="has 13 words, allowed are 12"):
        encoder.tokenize(["red " * 13])


def test_saved_encoder_comes_back_with_its_vocabulary(encoder: CaptionEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "caption_encoder.safetensors")
    again = CaptionEncoder.load(tmp_path / "caption_encoder.safetensors")
    captions = ["a blue square moving up quickly", ""]
    assert again.vocabulary == encoder.vocabulary
    assert torch.equal(again.encode(captions).tokens, encoder.encode(captions).tokens)


def test_codec_file_is_not_taken_for_an_encoder(tmp_path: Path) -> None:
    from nas.training.codec import PatchCodec

    PatchCodec(patch=2, channels=4).save(tmp_path / "codec.safetensors")
    with pytest.raises(CheckpointError, match="is not a caption encoder: holds"):
        CaptionEncoder.load(tmp_path / "codec.safetensors")


def test_stored_captions_split_tokens_and_pooled_text() -> None:
    text = torch.randn(2, 4, 8)
    features = StoredCaptions(empty=torch.zeros(4, 8))(text)
    assert torch.equal(torch.cat([features.tokens, features.pooled[:, None]], dim=1), text)


def test_stored_captions_know_the_empty_caption_only() -> None:
    stored = StoredCaptions(empty=torch.ones(4, 8))
    assert torch.equal(stored.tokenize(["", ""]), torch.ones(2, 4, 8))
    with pytest.raises(ValueError, match="'a red circle' cannot be encoded: only embeddings were stored"):
        stored.tokenize(["a red circle"])


def test_stored_captions_refuse_rows_of_another_width() -> None:
    with pytest.raises(ValueError, match=r"text rows are \(4, 6\), the empty caption's is \(4, 8\)"):
        StoredCaptions(empty=torch.zeros(4, 8))(torch.zeros(2, 4, 6))


def test_text_encoder_file_gives_back_its_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    StoredCaptions(empty=torch.arange(8.0).reshape(4, 2)).save(path)
    assert torch.equal(load_text_encoder(path).empty_text(1)[0], torch.arange(8.0).reshape(4, 2))
    CaptionEncoder(vocabulary=("a",), width=4, num_tokens=2).save(path)
    assert isinstance(load_text_encoder(path), CaptionEncoder)
