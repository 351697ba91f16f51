"""The codec keeps what the judge reads, and is the projection that principal components promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from nas.core.errors import CheckpointError
from nas.training.clips import make_clips
from nas.training.codec import PatchCodec, fit_codec
from nas.training.judge import score_clips

if TYPE_CHECKING:
    from pathlib import Path


def test_latents_have_the_stated_size_and_shape(codec: PatchCodec) -> None:
    latents = codec.encode_clips(make_clips(128, seed=1).video)
    assert latents.shape == (128, 8, 16, 4, 4)
    assert latents.square().mean().sqrt().item() == pytest.approx(0.5, abs=0.02)


def test_judge_reads_reconstructed_held_out_clips(codec: PatchCodec) -> None:
    clips = make_clips(180, seed=3, split="held_out")
    scores = score_clips(codec.decode_clips(codec.encode_clips(clips.video)), clips.attributes)
    assert scores["colour"] == scores["direction"] == 1.0
    assert scores["shape"] > 0.93


def test_reconstruction_equals_scikit_learns_principal_components(codec: PatchCodec) -> None:
    def patches(video: np.ndarray) -> np.ndarray:
        split = (video.astype(np.float64) / 127.5 - 1).reshape(-1, 8, 3, 4, 8, 4, 8)
        return split.transpose(0, 1, 3, 5, 2, 4, 6).reshape(-1, 192)

    model = PCA(n_components=16, svd_solver="full").fit(patches(make_clips(256, seed=0).video))
    other = make_clips(16, seed=9).video
    wanted = model.inverse_transform(model.transform(patches(other))).clip(-1, 1)
    found = patches((codec.decode(codec.encode_clips(other)).numpy() + 1) * 127.5)
    assert found == pytest.approx(wanted, abs=1e-3)


def test_equal_arguments_give_equal_codecs(codec: PatchCodec) -> None:
    again = fit_codec(patch=8, channels=16, seed=0, num_clips=256)
    assert torch.equal(codec.components, again.components)


def test_saved_codec_comes_back(codec: PatchCodec, tmp_path: Path) -> None:
    codec.save(tmp_path / "codec.safetensors")
    again = PatchCodec.load(tmp_path / "codec.safetensors")
    assert (again.patch, again.channels) == (8, 16)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in codec.state_dict().items())


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "codec.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match=r"codec\.safetensors: cannot be read as safetensors"):
        PatchCodec.load(path)


def test_too_many_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 12 channels, got 13"):
        fit_codec(patch=2, channels=13, seed=0)
