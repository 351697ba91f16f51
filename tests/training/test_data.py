"""Sources of clips: what a batch holds, and that an endless source repeats nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nas.training.data import ProceduralClips, fetch_jointly
from nas.training.loop import Batch

if TYPE_CHECKING:
    from nas.training.data import LatentClips
    from nas.training.stage import Kit


def fresh(kit: Kit, *, seed: int = 0) -> ProceduralClips:
    return ProceduralClips(count=10**6, codec=kit.codec, captions=kit.captions, seed=seed)


def test_fresh_clips_depend_on_seed_and_index_only(kit: Kit) -> None:
    there, back = torch.tensor([5, 999_999]), torch.tensor([999_999, 5])
    assert torch.equal(fresh(kit).fetch(there).latents, fresh(kit).fetch(back).latents.flip(0))
    assert not torch.equal(fresh(kit).fetch(there).latents, fresh(kit, seed=1).fetch(there).latents)


def test_fresh_clips_have_the_latents_and_text_of_their_kit(kit: Kit) -> None:
    data, indices = fresh(kit), torch.arange(3)
    latents, text = data.fetch(indices)
    assert latents.shape == (3, *kit.latent_shape)
    assert torch.equal(text, data.fetch_text(indices))
    assert kit.captions(text).tokens.shape == (3, 12, 64)


def test_other_seeds_and_counts_have_another_description(kit: Kit) -> None:
    described = {
        ProceduralClips(count=count, codec=kit.codec, captions=kit.captions, seed=seed).description
        for count in (8, 9)
        for seed in (0, 1)
    }
    assert len(described) == 4


def test_share_of_image_batches_is_the_ratio(data: LatentClips) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = Batch(indices=torch.arange(2), generator=generator, step=0, device=torch.device("cpu"))
    frames = [fetch_jointly(data, batch, image_ratio=0.25).latents.shape[1] for _ in range(400)]
    assert set(frames) == {1, 8}
    assert 0.19 < frames.count(1) / 400 < 0.31  # three standard errors
