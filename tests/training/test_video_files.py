"""Video and image files: which frames are taken, how they are cropped, what cannot be read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from nas.core.errors import UnavailableError
from nas.training.video_files import (
    ClipFormat,
    UnreadableClipError,
    enlarge,
    read_image,
    read_video,
    write_gif,
    write_mp4,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def ramp(frames: int, *, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    """Frame k is grey of 20 k."""
    levels = (np.arange(frames) * 20).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, 3, height, width)).copy()


def levels(clip: NDArray[np.uint8]) -> list[int]:
    return [round(float(frame.mean()) / 20) for frame in clip]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif"])
@pytest.mark.parametrize(
    ("fps", "expected"), [(10.0, [0, 1, 2, 3]), (5.0, [0, 2, 4, 6]), (20.0, [0, 0, 1, 1]), (8.0, [0, 1, 2, 3])]
)
def test_frame_k_is_what_a_player_shows_at_its_time(tmp_path: Path, name: str, fps: float, expected: list[int]) -> None:
    path = tmp_path / name
    if name.endswith("mp4"):
        write_mp4(path, ramp(10), fps=10)
    else:
        write_gif(path, ramp(10), frame_ms=100)
    assert levels(read_video(path, ClipFormat(frames=4, size=32, fps=fps))) == expected


def test_frames_are_scaled_and_cropped_to_the_middle_square(tmp_path: Path) -> None:
    frames = ramp(3, height=32, width=96)
    frames[..., :32], frames[..., 32:64], frames[..., 64:] = 0, 200, 100
    write_mp4(tmp_path / "wide.mp4", frames, fps=10)
    clip = read_video(tmp_path / "wide.mp4", ClipFormat(frames=3, size=16, fps=10))
    assert clip.shape == (3, 3, 16, 16)
    assert abs(clip[..., 2:-2].astype(float) - 200).max() < 12  # compression


def test_a_clip_that_is_too_short_says_by_how_much(tmp_path: Path) -> None:
    write_mp4(tmp_path / "short.mp4", ramp(5), fps=10)
    with pytest.raises(UnreadableClipError, match=r"too short: lasts 0.50 s, 8 frames at 10 a second need 0.80 s"):
        read_video(tmp_path / "short.mp4", ClipFormat(frames=8, size=32, fps=10))


def test_a_truncated_or_foreign_video_is_unreadable(tmp_path: Path) -> None:
    write_mp4(tmp_path / "whole.mp4", ramp(10), fps=10)
    (tmp_path / "half.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:700])
    (tmp_path / "text.webm").write_text("no video")
    (tmp_path / "empty.gif").write_bytes(b"")
    for name in ("half.mp4", "text.webm", "empty.gif"):
        with pytest.raises(UnreadableClipError, match="no readable video"):
            read_video(tmp_path / name, ClipFormat(frames=2, size=32, fps=10))


def test_an_image_is_a_clip_of_one_frame_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20), (0, 0, 0))
    picture.paste((255, 0, 0), (10, 0, 20, 20))  # left half of the middle square
    exif = picture.getexif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "picture.png", exif=exif)
    clip = read_image(tmp_path / "picture.png", size=10)
    assert clip.shape == (1, 3, 10, 10)
    assert clip[0, 0, :, -4:].min() > 200
    assert clip[0, 0, :, :4].max() < 60


def test_a_damaged_image_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    with pytest.raises(UnreadableClipError, match="no readable image"):
        read_image(tmp_path / "bad.png", size=8)


def test_odd_sizes_are_written_too(tmp_path: Path) -> None:
    write_mp4(tmp_path / "odd.mp4", ramp(3, height=33, width=31), fps=10)
    assert levels(read_video(tmp_path / "odd.mp4", ClipFormat(frames=3, size=31, fps=10))) == [0, 1, 2]


def test_enlarging_repeats_pixels() -> None:
    assert enlarge(np.array([[[[1, 2]]]], dtype=np.uint8), 2).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


def test_without_pyav_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UnavailableError, match="need PyAV, which is not installed") as caught:
        read_video(tmp_path / "any.mp4", ClipFormat(frames=1, size=8, fps=1))
    assert caught.value.hint == "pip install av"


def test_formats_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0, got 0, 32 and 8"):
        ClipFormat(frames=0, size=32, fps=8)
