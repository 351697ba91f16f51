"""Video and image files to frames and back: PyAV for video and GIF, pillow for images; both imported when used.

Frames are taken from the start of a file at the wanted rate: frame k is what a player shows k / fps seconds after the
first frame. They are scaled until the wanted square is covered, and cropped to its middle.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import UnavailableError
from nas.core.files import write_bytes_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

VIDEO_SUFFIXES: tuple[str, ...] = (".avi", ".gif", ".mkv", ".mov", ".mp4", ".webm")
IMAGE_SUFFIXES: tuple[str, ...] = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
# Constant rate factor of x264: 18 is the lower end of what its guide calls sane, close to no visible loss.
_QUALITY = "18"
_VIEWED_PX = 256
logger = logging.getLogger(__name__)


class UnreadableClipError(ValueError):
    """One file cannot be used; the message says why, and the caller skips and counts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFormat:
    """What clips are made of files: ``frames`` frames of ``size`` x ``size`` pixels, ``fps`` a second."""

    frames: int
    size: int
    fps: float

    def __post_init__(self) -> None:
        if self.frames < 1 or self.size < 1 or not self.fps > 0:
            raise ValueError(f"clips need frames, size and fps above 0, got {self.frames}, {self.size} and {self.fps}")


def read_image(path: Path, *, size: int) -> NDArray[np.uint8]:
    """An image as a one-frame clip (1, 3, H, W).

    Raises:
        UnreadableClipError: The file is no image that pillow reads.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return _fit(upright, size=size)[None]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableClipError(f"no readable image: {error}") from error


def read_video(path: Path, wanted: ClipFormat) -> NDArray[np.uint8]:
    """The first frames of a video or GIF as a clip (T, 3, H, W).

    Raises:
        UnreadableClipError: The file is no video, is damaged or too short.
        UnavailableError: PyAV is not installed.
    """
    av = _av()
    taken: list[NDArray[np.uint8]] = []
    shown: tuple[float, Any] | None = None
    end = 0.0
    try:
        for frame, since in _timed_frames(av, path):
            while shown is not None and len(taken) < wanted.frames and len(taken) / wanted.fps < since - 1e-6:
                taken.append(_upright(shown[1], size=wanted.size))
            if len(taken) == wanted.frames:
                return np.stack(taken)
            shown, end = (since, frame), since + _duration(frame, default=1 / wanted.fps)
        while shown is not None and len(taken) < wanted.frames and len(taken) / wanted.fps < end - 1e-6:
            taken.append(_upright(shown[1], size=wanted.size))
    except (av.FFmpegError, OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error  # without the path, so that equal reasons are counted together
        raise UnreadableClipError(f"no readable video: {what}") from error
    if len(taken) < wanted.frames:
        needed = wanted.frames / wanted.fps
        raise UnreadableClipError(
            f"too short: lasts {end:.2f} s, {wanted.frames} frames at {wanted.fps:g} a second need {needed:.2f} s"
        )
    return np.stack(taken)


def write_gif(path: Path, frames: NDArray[np.uint8], *, frame_ms: float) -> None:
    """Write frames (T, 3, H, W) as an endless animated GIF, atomically.

    Raises:
        UnavailableError: The disk is full or the folder cannot be written.
    """
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames.transpose(0, 2, 3, 1)]
    buffer = io.BytesIO()
    # A GIF counts time in hundredths of a second.
    duration = max(10, round(frame_ms / 10) * 10)
    images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    write_bytes_atomically(path, buffer.getvalue())


def write_mp4(path: Path, frames: NDArray[np.uint8], *, fps: float) -> None:
    """Write frames (T, 3, H, W) as MP4 (H.264, 4:2:0), atomically.

    An odd last row or column is repeated, which the format needs.

    Raises:
        UnavailableError: PyAV is not installed, or the file cannot be written.
    """
    from fractions import Fraction

    av = _av()
    height, width = frames.shape[2:]
    padded = np.pad(frames, ((0, 0), (0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    name = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    if name != "libx264":
        logger.warning("this PyAV has no libx264; MP4 files are written as MPEG-4 part 2")
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = container.add_stream(name, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = padded.shape[3], padded.shape[2], "yuv420p"
        stream.options = {"crf": _QUALITY} if name == "libx264" else {"qscale": "2"}
        for frame in padded.transpose(0, 2, 3, 1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    write_bytes_atomically(path, buffer.getvalue())


def write_clip(path: Path, frames: NDArray[np.uint8], *, fps: float, factor: int | None = None) -> None:
    """Write frames (T, 3, H, W) as GIF or MP4 by the path's ending.

    Pixels are repeated ``factor`` times; without it small frames are enlarged until they are 256 wide.

    Raises:
        ValueError: The path ends otherwise.
        UnavailableError: See ``write_mp4``.
    """
    shown = enlarge(frames, factor or max(1, -(-_VIEWED_PX // frames.shape[-1])))
    if path.suffix.lower() == ".gif":
        write_gif(path, shown, frame_ms=1000.0 / fps)
    elif path.suffix.lower() == ".mp4":
        write_mp4(path, shown, fps=fps)
    else:
        raise ValueError(f"{path}: clips are written as .gif or .mp4")


def enlarge(frames: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Frames (..., H, W) with every pixel repeated ``factor`` times in both directions."""
    return frames.repeat(factor, axis=-2).repeat(factor, axis=-1)


def _timed_frames(av: Any, path: Path) -> Iterator[tuple[Any, float]]:
    """Frames of the first video stream with their seconds since the first."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("the file has no video stream")
        first: float | None = None
        rate = container.streams.video[0].average_rate or 1
        for index, frame in enumerate(container.decode(video=0)):
            now = index / float(rate) if frame.time is None else float(frame.time)
            first = now if first is None else first
            yield frame, now - first


def _duration(frame: Any, *, default: float) -> float:
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return default


def _upright(frame: Any, *, size: int) -> NDArray[np.uint8]:
    image = frame.to_image()
    return _fit(image.rotate(frame.rotation, expand=True) if frame.rotation else image, size=size)


def _fit(image: Any, *, size: int) -> NDArray[np.uint8]:
    """The middle square of a pillow image, scaled with antialiasing: (3, size, size)."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.asarray(square, dtype=np.uint8).transpose(2, 0, 1)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise UnavailableError("video files need PyAV, which is not installed", hint="pip install av") from error
    return av


def suffixes_text(suffixes: Sequence[str]) -> str:
    """File name endings for a message."""
    return ", ".join(suffix.removeprefix(".") for suffix in suffixes)
