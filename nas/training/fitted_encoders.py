"""Encoders that need no pretrained weights: the patch codec fitted to the clips, captions by their own words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from nas.core.errors import InputError
from nas.models.caption import CaptionEncoder
from nas.training.codec import fit_codec_to
from nas.training.encoders import LearnedEncoders
from nas.training.stage import make_kit
from nas.training.video_files import UnreadableClipError

if TYPE_CHECKING:
    from nas.training.sources import ClipSource
    from search_spaces.backbone import BackboneSpec

# Enough patches for the components to settle: 64 clips of 8 frames of 32 px have 8,192 patches of 8 px.
_FITTED_CLIPS = 64


def procedural_encoders(backbone: BackboneSpec, *, seed: int) -> LearnedEncoders:
    """Encoders of the procedural clips for a backbone: what a fresh kit of the toy task starts with."""
    kit = make_kit(
        nn.Identity(),
        text_width=backbone.text_width,
        text_tokens=backbone.text_tokens,
        latent_channels=backbone.latent_channels,
        patch=backbone.latent_downsampling,
        seed=seed,
    )
    if not isinstance(kit.captions, CaptionEncoder):
        raise TypeError(f"a fresh kit has a caption encoder, got {type(kit.captions).__name__}")
    return LearnedEncoders(kit.own_codec, kit.captions)


def source_encoders(source: ClipSource, backbone: BackboneSpec, *, seed: int) -> LearnedEncoders:
    """Encoders for any clips: components of their patches, and fixed random vectors for the words of their captions.

    Args:
        source: The clips; some of them, evenly spread, are read to fit the codec.
        backbone: Gives patch, channels, text width and the number of tokens, more where a caption has more words.
        seed: Of the words' vectors.

    Raises:
        InputError: None of the clips read can be used.
    """
    captions = source.captions()
    words = sorted({word for caption in captions for word in caption.lower().split()})
    longest = max((len(caption.split()) for caption in captions), default=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = CaptionEncoder(
            vocabulary=words, width=backbone.text_width, num_tokens=max(longest, backbone.text_tokens)
        )
    patch = backbone.latent_downsampling
    codec = fit_codec_to(_some_frames(source, patch=patch), patch=patch, channels=backbone.latent_channels)
    return LearnedEncoders(codec, encoder)


def _some_frames(source: ClipSource, *, patch: int) -> np.ndarray:
    total = source.num_videos + source.num_images
    frames, reason = [], ""
    for place in np.unique(np.linspace(0, total - 1, min(total, _FITTED_CLIPS)).astype(int)):
        try:
            clip = source.read(int(place))
        except UnreadableClipError as error:
            reason = reason or f"{source.name(int(place))}: {error}"
        else:
            frames.append(clip.video)
    if not frames:
        raise InputError(f"none of {min(total, _FITTED_CLIPS)} clips read can be used; {reason}")
    video = np.concatenate(frames)[None]
    if video.shape[-1] % patch:
        raise InputError(
            f"clips of {video.shape[-1]} pixels cannot be encoded: a latent cell is {patch} x {patch}",
            hint=f"choose a size that is a multiple of {patch}",
        )
    return video
