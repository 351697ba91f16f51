"""The base stage: what image batches and dropped captions teach, the noise convention, the guided reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from nas.training.evaluation import evaluate_row
from nas.training.loop import Batch
from nas.training.options import EvaluationOptions, LoopOptions, NoiseOptions, TeacherOptions
from nas.training.teacher import draw_noisy, train_teacher

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.rng import RandomStreams
    from nas.training.data import LatentClips
    from nas.training.stage import Kit

LOOP = LoopOptions(steps=3, batch_size=4, warmup_steps=1, weight_decay=0.0, ema_decay=0.0)


def changed_weights(
    kit: Kit, data: LatentClips, noise: NoiseOptions, folder: Path, streams: RandomStreams
) -> dict[str, bool]:
    modules = {"denoiser": kit.denoiser, "captions": kit.captions}
    torch.nn.init.normal_(kit.denoiser.conv_out.weight, std=0.1)
    before = {
        f"{name}.{key}": value.clone() for name, module in modules.items() for key, value in module.state_dict().items()
    }
    train_teacher(kit, data, options=TeacherOptions(loop=LOOP, noise=noise), folder=folder / "t", streams=streams)
    return {
        f"{name}.{key}": not torch.equal(value, before[f"{name}.{key}"])
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


@pytest.mark.parametrize("image_ratio", [0.0, 1.0])
def test_temporal_layers_learn_from_clips_and_not_from_images(
    kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path, image_ratio: float
) -> None:
    changed = changed_weights(kit, data, NoiseOptions(image_ratio=image_ratio), tmp_path, streams)
    temporal = [value for key, value in changed.items() if ".temporal_layers." in key and "proj_out" in key]
    assert temporal
    assert set(temporal) == {image_ratio == 0.0}
    assert changed["denoiser.conv_in.weight"]


@pytest.mark.parametrize("text_dropout", [0.0, 1.0])
def test_words_are_learned_from_captions_that_are_not_dropped(
    kit: Kit, data: LatentClips, streams: RandomStreams, tmp_path: Path, text_dropout: float
) -> None:
    words = kit.captions.words.weight.detach().clone()
    changed = changed_weights(kit, data, NoiseOptions(text_dropout=text_dropout), tmp_path, streams)
    assert changed["captions.words.weight"]  # the empty caption is learned in either case
    after = kit.captions.words.weight
    assert torch.equal(after[1:], words[1:]) == (text_dropout == 1.0)


def test_noisy_batches_keep_the_stated_convention(kit: Kit, data: LatentClips) -> None:
    batch = Batch(
        indices=torch.arange(16), generator=torch.Generator().manual_seed(0), step=0, device=torch.device("cpu")
    )
    drawn = draw_noisy(data, batch, NoiseOptions(image_ratio=0.0), captions=kit.captions)
    times = drawn.times.reshape(-1, 1, 1, 1, 1)
    assert torch.equal(drawn.clean, data.latents[:16])
    # x_t - t v = x_0 and x_t + (1 - t) v = e, whatever was drawn.
    assert torch.allclose(drawn.noisy - times * drawn.target, drawn.clean, atol=1e-5)
    assert torch.allclose(drawn.noisy + (1.0 - times) * drawn.target, drawn.noise, atol=1e-5)


def test_reference_is_25_guided_steps_of_two_calls_each(kit: Kit, tmp_path: Path) -> None:
    options = EvaluationOptions()
    assert (options.steps, options.guidance) == (25, 3.0)
    kit.denoiser.eval()
    sizes: list[int] = []
    kit.denoiser.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    row = evaluate_row(
        kit, name="teacher", stage="teacher", steps=options.steps, guidance=options.guidance, num_clips=18, seed=0,
        folder=tmp_path, clip="samples/x.gif",
    )  # fmt: skip
    assert row.calls == 50
    assert sizes == [2 * 18] * 25 + [2 * 6] * 25  # the judged clips, then the samples to look at
