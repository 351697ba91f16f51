"""Shards: what is encoded comes back, a killed run ends in the same bytes, and every damaged file is named."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

import search_spaces
from nas.core.errors import InputError
from nas.core.files import JsonLines
from nas.training.clips import render_by_index
from nas.training.encoders import LearnedEncoders, load_encoders
from nas.training.fitted_encoders import source_encoders
from nas.training.folders import scan_folder
from nas.training.options import LoopOptions, TeacherOptions
from nas.training.shard_writer import ShardOptions, encode_shards
from nas.training.shards import INDEX, ShardedClips, clip_rows, read_index, verify_digests
from nas.training.sources import FolderSource, ProceduralSource
from nas.training.stage import Kit, load_kit
from nas.training.teacher import train_teacher
from nas.training.video_files import ClipFormat, write_gif, write_mp4

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nas.core.rng import RandomStreams
    from tests.training.conftest import Killer

SOURCE = ProceduralSource(count=10, seed=3, frames=8, size=32)
FLOAT32 = ShardOptions(clips_per_shard=4, dtype="float32", batch_size=3)


@pytest.fixture
def encoders(kit: Kit) -> LearnedEncoders:
    return LearnedEncoders(kit.codec, kit.captions)


@pytest.fixture
def shards(encoders: LearnedEncoders, tmp_path: Path) -> Path:
    """Ten procedural clips in three shards."""
    encode_shards(tmp_path / "shards", SOURCE, encoders, options=FLOAT32)
    return tmp_path / "shards"


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the encoders', whose metadata safetensors writes in random order."""
    own = ("codec.safetensors", "caption_encoder.safetensors")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in own}


def test_clips_come_back_in_any_order_as_they_were_encoded(shards: Path, encoders: LearnedEncoders) -> None:
    data = ShardedClips(shards, verify=True)
    wanted = render_by_index([9, 0, 4, 9], seed=3)
    latents, text = data.fetch(torch.tensor([9, 0, 4, 9]))
    assert torch.equal(latents, encoders.encode_video(wanted.video))
    features = data.captions()(text)
    assert torch.allclose(features.tokens, encoders.captions.encode(wanted.captions).tokens, atol=1e-6)
    assert torch.allclose(features.pooled, encoders.captions.encode(wanted.captions).pooled, atol=1e-6)
    assert torch.equal(data.fetch_text(torch.tensor([4])), text[2:3])


def test_empty_caption_is_that_of_the_encoder(shards: Path, encoders: LearnedEncoders) -> None:
    captions = ShardedClips(shards).captions()
    assert torch.allclose(captions(captions.empty_text(2)).tokens[1], encoders.captions.encode([""]).tokens[0])


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_narrow_formats_keep_their_precision(
    encoders: LearnedEncoders, tmp_path: Path, dtype: str, error: float
) -> None:
    options = ShardOptions(dtype=dtype)  # type: ignore[arg-type]  # parametrised
    encode_shards(tmp_path / "shards", SOURCE, encoders, options=options)
    latents = ShardedClips(tmp_path / "shards").fetch(torch.arange(10)).latents
    exact = encoders.encode_video(render_by_index(range(10), seed=3).video)
    assert latents.dtype == torch.float32
    assert 0 < (latents - exact).abs().max() < error * exact.abs().max()


def test_a_killed_run_ends_in_the_same_bytes_and_keeps_finished_shards(
    shards: Path, encoders: LearnedEncoders, tmp_path: Path, kill_at: Callable[[int], Killer]
) -> None:
    folder = tmp_path / "killed"
    with pytest.raises(InterruptedError):
        encode_shards(folder, SOURCE, encoders, options=FLOAT32, progress=kill_at(8))
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("clips-*.safetensors")}
    assert set(kept) == {"clips-00000.safetensors", "clips-00001.safetensors"}
    (folder / ".clips-00002.safetensors.77.abc").write_bytes(b"half")  # what a kill inside a write leaves
    encode_shards(folder, SOURCE, encoders, options=FLOAT32)
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
    assert contents(folder) == contents(shards)


def test_shares_fill_one_folder_to_the_same_bytes(shards: Path, encoders: LearnedEncoders, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    second, first = (
        encode_shards(folder, SOURCE, encoders, options=replace(FLOAT32, share=(share, 2))) for share in (2, 1)
    )
    assert second is None
    assert first == read_index(shards)
    assert contents(folder) == contents(shards)


def test_a_finished_folder_is_returned_at_once(shards: Path, encoders: LearnedEncoders) -> None:
    before = contents(shards)
    assert encode_shards(shards, SOURCE, encoders, options=FLOAT32) == read_index(shards)
    assert contents(shards) == before


def test_other_settings_in_the_same_folder_are_refused_by_name(shards: Path, encoders: LearnedEncoders) -> None:
    other = ShardOptions(clips_per_shard=4, dtype="float16", batch_size=3)
    with pytest.raises(InputError, match=r"plan.json: the folder was begun with another dtype"):
        encode_shards(shards, SOURCE, encoders, options=other)


def test_a_folder_with_other_files_is_refused(encoders: LearnedEncoders, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds other files"):
        encode_shards(tmp_path, SOURCE, encoders, options=FLOAT32)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("harm", "verify", "message"),
    [
        (lambda path: path.unlink(), False, r"clips-00001.safetensors: missing; the index names it"),
        (_cut, False, r"clips-00001.safetensors: damaged: it has \d+ bytes, the index says \d+"),
        (_flip, True, r"clips-00001.safetensors: damaged: its SHA-256 is"),
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), False, r"clips-00001.safetensors: cannot be read"),
    ],
)
def test_a_damaged_shard_is_named_before_training(
    shards: Path, harm: Callable[[Path], None], verify: bool, message: str
) -> None:
    harm(shards / "clips-00001.safetensors")
    with pytest.raises(InputError, match=message):
        ShardedClips(shards, verify=verify)


def test_a_shard_of_another_shape_than_the_index_is_named(shards: Path) -> None:
    body = json.loads((shards / INDEX).read_text())
    body["latent_shape"][1] = 4
    (shards / INDEX).write_text(json.dumps(body))
    with pytest.raises(InputError, match=r"clips-00000.safetensors: latents are 4 x 8 x 16 x 4 x 4 of float32, the in"):
        ShardedClips(shards)


def test_unfinished_or_foreign_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"index.json: does not exist; the folder holds no finished shards"):
        ShardedClips(tmp_path)


def test_mismatched_latents_and_text_are_named_together(shards: Path) -> None:
    data = ShardedClips(shards)
    data.require(latent_shape=(8, 16, 4, 4), text_width=64, network="tiny/1")
    with pytest.raises(
        InputError,
        match=r"latents are 8 x 16 x 4 x 4, large/1 makes 17 x 4 x 64 x 64 .*; text is 64 wide, large/1 takes 768",
    ):
        data.require(latent_shape=(17, 4, 64, 64), text_width=768, network="large/1")


def test_out_of_range_indices_are_refused(shards: Path) -> None:
    with pytest.raises(IndexError, match="there are 10"):
        ShardedClips(shards).fetch(torch.tensor([10]))


def test_an_unknown_word_is_named_with_its_clip_before_encoding(
    encoders: LearnedEncoders, tmp_path: Path, clip_folder: Path
) -> None:
    source = FolderSource(folder=scan_folder(clip_folder), format=ClipFormat(frames=4, size=16, fps=10))
    with pytest.raises(InputError, match=r"6 captions cannot be encoded: a.mp4: .*unknown word 'the'") as caught:
        encode_shards(tmp_path / "shards", source, encoders, options=FLOAT32)
    assert "encoder that knows these words" in str(caught.value.hint)
    assert not (tmp_path / "shards" / INDEX).exists()


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """Two good videos, a damaged one, a short one, one without a caption, and two pictures."""
    folder = tmp_path / "folder"
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 24), dtype=np.uint8)
    write_mp4(folder / "a.mp4", frames, fps=10)
    write_gif(folder / "b.gif", frames, frame_ms=100)
    (folder / "c.webm").write_bytes(b"damaged")
    write_mp4(folder / "d.mp4", frames[:2], fps=10)
    write_mp4(folder / "e.mp4", frames, fps=10)
    for name in ("y.png", "z.jpg"):
        Image.fromarray(frames[0].transpose(1, 2, 0)).save(folder / name)
    names = ("a.mp4", "b.gif", "c.webm", "d.mp4", "y.png", "z.jpg")
    rows = "".join(f"{name},the cat {index}\n" for index, name in enumerate(names))
    (folder / "captions.csv").write_text("file,caption\n" + rows)
    return folder


@pytest.fixture
def folder_shards(clip_folder: Path, tmp_path: Path) -> Path:
    source = FolderSource(folder=scan_folder(clip_folder), format=ClipFormat(frames=4, size=16, fps=10))
    own = source_encoders(source, search_spaces.get("tiny").backbone, seed=0)
    encode_shards(tmp_path / "shards", source, own, options=ShardOptions(clips_per_shard=2, workers=2))
    return tmp_path / "shards"


def test_unusable_files_are_left_out_and_listed_with_reasons(folder_shards: Path) -> None:
    rows = {row["clip"]: row["reason"] for row in JsonLines(folder_shards / "skipped.jsonl").read()}
    assert set(rows) == {"c.webm", "d.mp4", "e.mp4"}
    assert rows["c.webm"].startswith("no readable video")
    assert rows["d.mp4"].startswith("too short: lasts 0.20 s")
    assert rows["e.mp4"] == "no caption"
    assert read_index(folder_shards).num_skipped == 3


def test_files_without_caption_can_take_the_empty_one(clip_folder: Path, tmp_path: Path) -> None:
    source = FolderSource(
        folder=scan_folder(clip_folder), format=ClipFormat(frames=4, size=16, fps=10), missing_captions="empty"
    )
    own = source_encoders(source, search_spaces.get("tiny").backbone, seed=0)
    index = encode_shards(tmp_path / "shards", source, own, options=ShardOptions())
    assert ("clips", "e.mp4", "") in list(clip_rows(tmp_path / "shards", index))
    data = ShardedClips(tmp_path / "shards")
    assert torch.equal(data.fetch_text(torch.tensor([2])), data.captions().empty_text(1))


def test_latents_beyond_float16_name_the_clip_and_the_way_out(encoders: LearnedEncoders, tmp_path: Path) -> None:
    loud = LearnedEncoders(deepcopy(encoders.codec), encoders.captions)
    loud.codec.scale.mul_(1e7)
    with pytest.raises(InputError, match="00000000: its latents leave the range of float16") as caught:
        encode_shards(tmp_path / "shards", SOURCE, loud, options=ShardOptions())
    assert "bfloat16" in str(caught.value.hint)


def test_images_are_clips_of_one_frame_for_image_batches(folder_shards: Path) -> None:
    data = ShardedClips(folder_shards)
    assert [row[:2] for row in clip_rows(folder_shards, data.index)] == [
        ("clips", "a.mp4"),
        ("clips", "b.gif"),
        ("images", "y.png"),
        ("images", "z.jpg"),
    ]
    assert data.fetch(torch.arange(2)).latents.shape == (2, 4, 16, 2, 2)
    images = data.fetch_images(torch.arange(2), generator=torch.Generator().manual_seed(0))
    assert images.latents.shape == (2, 1, 16, 2, 2)
    decoded = load_encoders(folder_shards).codec.decode_clips(images.latents)  # type: ignore[attr-defined]  # learned
    assert decoded.shape == (2, 1, 3, 16, 16)


def test_nothing_usable_is_an_error_that_names_the_first_reason(clip_folder: Path, tmp_path: Path) -> None:
    source = FolderSource(folder=scan_folder(clip_folder), format=ClipFormat(frames=40, size=16, fps=10))
    own = source_encoders(source, search_spaces.get("tiny").backbone, seed=0)
    with pytest.raises(InputError, match=r"none of the clips could be used; the first, a.mp4: too short"):
        encode_shards(tmp_path / "shards", source, own, options=ShardOptions())


def test_a_size_that_cells_do_not_divide_is_refused(encoders: LearnedEncoders, tmp_path: Path) -> None:
    source = ProceduralSource(count=2, seed=0, frames=2, size=36)
    with pytest.raises(InputError, match="36 x 36 pixels cannot be encoded: a latent cell is 8 x 8") as caught:
        encode_shards(tmp_path / "shards", source, encoders, options=FLOAT32)
    assert "multiple of 8" in str(caught.value.hint)


def test_a_stage_trains_on_shards_and_its_folder_rebuilds(
    shards: Path, kit: Kit, streams: RandomStreams, tmp_path: Path
) -> None:
    data = ShardedClips(shards)
    sharded = Kit(denoiser=kit.denoiser, captions=data.captions(), codec=kit.codec, latent_shape=data.latent_shape)
    options = TeacherOptions(loop=LoopOptions(steps=3, batch_size=4, log_every=1))
    result = train_teacher(sharded, data, options=options, folder=tmp_path / "teacher", streams=streams)
    again = load_kit(tmp_path / "teacher")
    assert result.steps == 3
    assert torch.equal(again.captions.empty_text(1), data.captions().empty_text(1))


def test_digests_cover_the_empty_caption(shards: Path) -> None:
    _flip(shards / "empty.safetensors")
    with pytest.raises(InputError, match=r"empty.safetensors: damaged"):
        verify_digests(shards, read_index(shards))
