"""Procedural captioned clips: one coloured shape that moves or stands still, with every attribute known.

Six colours, three shapes and nine motions (four directions, slow or quick, and still) give 162 captions. Eighteen of
them, one for each pair of colour and shape and each motion twice, are held out: no training clip shows them, so a
network judged on them must combine what it learned. Size, background, pace and start (within bounds) are random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Split = Literal["train", "held_out"]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.95, 0.10, 0.10),
    "green": (0.10, 0.85, 0.15),
    "blue": (0.15, 0.30, 1.00),
    "yellow": (1.00, 0.90, 0.10),
    "magenta": (0.95, 0.15, 0.90),
    "cyan": (0.10, 0.90, 0.95),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle")
# Unit steps (x to the right, y downwards).
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS: tuple[str, ...] = ("slowly", "quickly")
# Way between the first and the last frame, in pixels: mean of the uniform draw of +-5 %.
TRAVEL_PX: tuple[float, float] = (6.0, 14.0)
STILL = len(DIRECTIONS) * len(SPEEDS)  # index of the motion "still"; motion = direction + 4 * speed otherwise
MOTIONS: tuple[str, ...] = (*tuple(f"moving {where} {how}" for how in SPEEDS for where in DIRECTIONS), "standing still")
CLIP_FRAMES = 8
CLIP_SIZE = 32
VOCABULARY: tuple[str, ...] = (
    "a", *COLOURS, *SHAPES, "moving", *DIRECTIONS, *SPEEDS, "standing", "still"
)  # fmt: skip
# Square root of the shape's area in pixels; the largest triangle and the quickest way together stay inside 32 pixels.
SIZE_RANGE_PX: tuple[float, float] = (9.5, 11.0)
# Largest distance of the middle of the way from the middle of the frame, in each axis. Small on purpose: the place in
# the first and last frame then tells the direction. With starts all over the frame a teacher had learned no direction
# (0.23-0.27, chance 0.25) after 220-250 CPU seconds.
START_SPREAD_PX = 3.0
BACKGROUND_RANGE: tuple[float, float] = (0.05, 0.35)
_PACE_RANGE = (0.95, 1.05)
_TINT = 0.03
_MARGIN_PX = 0.25
_CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What N clips show; each array is (N,) of int64.

    ``direction`` is -1 for still clips; ``motion`` is direction + 4 * speed, or 8 for still.
    """

    colour: NDArray[np.int64]
    shape: NDArray[np.int64]
    motion: NDArray[np.int64]

    @property
    def direction(self) -> NDArray[np.int64]:
        """Index into ``DIRECTIONS``, -1 where the clip stands still."""
        return np.where(self.motion == STILL, -1, self.motion % len(DIRECTIONS))

    def captions(self) -> tuple[str, ...]:
        """One sentence a clip: ``a red circle moving left slowly``."""
        colours = tuple(COLOURS)
        rows = zip(self.colour, self.shape, self.motion, strict=True)
        return tuple(f"a {colours[colour]} {SHAPES[shape]} {MOTIONS[motion]}" for colour, shape, motion in rows)

    def __len__(self) -> int:
        return len(self.colour)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSet:
    """Clips with their attributes; ``video`` is (N, T, 3, H, W) of uint8."""

    video: NDArray[np.uint8]
    attributes: Attributes

    @property
    def captions(self) -> tuple[str, ...]:
        """One sentence a clip."""
        return self.attributes.captions()


def all_attributes(split: Split) -> Attributes:
    """Every combination of a split, once: 144 for training, 18 held out, in a fixed order."""
    if split not in ("train", "held_out"):
        raise ValueError(f"split must be 'train' or 'held_out', got {split!r}")
    colour, shape, motion = (
        axis.reshape(-1) for axis in np.meshgrid(np.arange(6), np.arange(3), np.arange(9), indexing="ij")
    )
    held_out = motion == _held_out_motion(colour, shape)
    keep = held_out if split == "held_out" else ~held_out
    return Attributes(colour=colour[keep], shape=shape[keep], motion=motion[keep])


def draw_attributes(count: int, *, rng: np.random.Generator, split: Split) -> Attributes:
    """Draw ``count`` captions: whole passes over the split's combinations, each in random order."""
    combinations = all_attributes(split)
    passes = -(-count // len(combinations))
    order = np.concatenate([rng.permutation(len(combinations)) for _ in range(max(passes, 1))])[:count]
    return Attributes(
        colour=combinations.colour[order], shape=combinations.shape[order], motion=combinations.motion[order]
    )


def make_clips(
    count: int, *, seed: int, split: Split = "train", frames: int = CLIP_FRAMES, size: int = CLIP_SIZE
) -> ClipSet:
    """Make ``count`` captioned clips of ``frames`` frames of ``size`` x ``size`` pixels; equal seeds give equal clips.

    Raises:
        ValueError: ``count`` is not positive, ``split`` is unknown, or the shapes do not fit ``size``.
    """
    if count < 1 or frames < 1:
        raise ValueError(f"count and frames must be at least 1, got {count} and {frames}")
    # The split is part of the seed, so that equal seeds do not give both splits the same sizes and starts.
    rng = np.random.default_rng([seed, split == "held_out"])
    return render_clips(draw_attributes(count, rng=rng, split=split), rng=rng, frames=frames, size=size)


def render_clips(
    attributes: Attributes, *, rng: np.random.Generator, frames: int = CLIP_FRAMES, size: int = CLIP_SIZE
) -> ClipSet:
    """Draw clips that show ``attributes`` with random size, background, start and pace.

    Raises:
        ValueError: The shapes and their way do not fit ``size``.
    """
    count, spread = len(attributes), START_SPREAD_PX * size / CLIP_SIZE
    looks = _Looks(
        side=rng.uniform(*SIZE_RANGE_PX, size=count),
        pace=rng.uniform(*_PACE_RANGE, size=count),
        offset=rng.uniform(-spread, spread, size=(count, 2)),
        grey=rng.uniform(*BACKGROUND_RANGE, size=(count, 1)),
        tint=rng.uniform(-_TINT, _TINT, size=(count, 3)),
        phase=None if frames > 1 else np.full(count, rng.uniform()),
    )
    return _paint(attributes, looks, frames=frames, size=size)


def render_by_index(
    indices: Sequence[int],
    *,
    seed: int,
    split: Split = "train",
    frames: int = CLIP_FRAMES,
    size: int = CLIP_SIZE,
) -> ClipSet:
    """Draw the clips with these numbers out of endlessly many: each number has a seed, caption and looks of its own.

    Raises:
        ValueError: The shapes and their way do not fit ``size``.
    """
    stream = [seed, split == "held_out"]
    unit = np.stack([np.random.default_rng([*stream, index]).random(10) for index in indices])
    combinations = all_attributes(split)
    rows = (unit[:, 0] * len(combinations)).astype(np.int64)
    attributes = Attributes(
        colour=combinations.colour[rows], shape=combinations.shape[rows], motion=combinations.motion[rows]
    )
    spread = START_SPREAD_PX * size / CLIP_SIZE
    looks = _Looks(
        side=_between(unit[:, 1], *SIZE_RANGE_PX),
        pace=_between(unit[:, 2], *_PACE_RANGE),
        offset=_between(unit[:, 3:5], -spread, spread),
        grey=_between(unit[:, 5:6], *BACKGROUND_RANGE),
        tint=_between(unit[:, 6:9], -_TINT, _TINT),
        phase=None if frames > 1 else unit[:, 9],
    )
    return _paint(attributes, looks, frames=frames, size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looks:
    """What is random about N clips beside their captions.

    ``side`` (N,) in pixels of a 32-pixel frame, ``pace`` (N,) scales the way, ``offset`` (N, 2) of the way's middle in
    pixels, ``grey`` (N, 1) and ``tint`` (N, 3) of the background, ``phase`` (N,) of a single frame along the way.
    """

    side: NDArray[np.float64]
    pace: NDArray[np.float64]
    offset: NDArray[np.float64]
    grey: NDArray[np.float64]
    tint: NDArray[np.float64]
    phase: NDArray[np.float64] | None


def _between(unit: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return low + (high - low) * unit


def _paint(attributes: Attributes, looks: _Looks, *, frames: int, size: int) -> ClipSet:
    count = len(attributes)
    scale = size / CLIP_SIZE
    side = looks.side * scale
    travel = np.array([*(TRAVEL_PX[0],) * 4, *(TRAVEL_PX[1],) * 4, 0.0])[attributes.motion] * scale
    travel = travel * looks.pace
    unit = np.array([*DIRECTIONS.values(), *DIRECTIONS.values(), (0, 0)], dtype=np.float64)[attributes.motion]
    way = unit * travel[:, None]  # (N, 2): x, y
    low, high = _extents(attributes.shape, side)
    first = low + _MARGIN_PX - np.minimum(way, 0.0)
    last = size - high - _MARGIN_PX - np.maximum(way, 0.0)
    if np.any(first > last):
        raise ValueError(f"shapes and their way do not fit {size} pixels")
    middle = size / 2 + looks.offset
    start = np.clip(middle - way / 2, first, last)
    background = np.clip(looks.grey + looks.tint, 0.0, 1.0).astype(np.float32)
    phase = np.linspace(0.0, 1.0, frames)[None] if looks.phase is None else looks.phase[:, None]
    centres = start[:, None, :] + phase[:, :, None] * way[:, None, :]  # (N, T, 2)
    paint = np.array(list(COLOURS.values()), dtype=np.float32)[attributes.colour]
    video = np.empty((count, frames, 3, size, size), dtype=np.uint8)
    for begin in range(0, count, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        cover = coverage(attributes.shape[part], side[part] ** 2, centres[part], size=size)[:, :, None]
        back = background[part, None, :, None, None]
        mixed = back + cover * (paint[part, None, :, None, None] - back)
        video[part] = np.rint(mixed * 255.0).astype(np.uint8)
    return ClipSet(video=video, attributes=attributes)


def coverage(
    shape: NDArray[np.int64], area: NDArray[np.floating], centres: NDArray[np.float64], *, size: int
) -> NDArray[np.float32]:
    """Share of every pixel that a shape covers, from its signed distance: (N, T, size, size) in 0-1.

    Args:
        shape: Index into ``SHAPES``, (N,).
        area: Area in square pixels, (N,) or (N, T); all shapes of one area have the same number of pixels.
        centres: Centres of mass (x, y) in pixels, (N, T, 2).
        size: Height and width of a frame.
    """
    position = np.arange(size, dtype=np.float32) + 0.5
    areas = np.broadcast_to(area.reshape(len(shape), -1), centres.shape[:2]).astype(np.float32)[..., None, None]
    x = position[None, None, None, :] - centres[..., 0].astype(np.float32)[..., None, None]
    y = position[None, None, :, None] - centres[..., 1].astype(np.float32)[..., None, None]
    result = np.empty((*centres.shape[:2], size, size), dtype=np.float32)
    for index in range(len(SHAPES)):
        rows = shape == index
        if rows.any():
            result[rows] = _inside(index, x[rows], y[rows], areas[rows])
    np.clip(result + 0.5, 0.0, 1.0, out=result)
    return result


def _inside(
    index: int, x: NDArray[np.floating], y: NDArray[np.floating], area: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Distance to the edge in pixels, positive inside."""
    if SHAPES[index] == "circle":
        return np.sqrt(area / np.pi) - np.sqrt(x * x + y * y)
    if SHAPES[index] == "square":
        return np.sqrt(area) / 2 - np.maximum(np.abs(x), np.abs(y))
    inradius = _triangle_side(area) / np.float32(2 * np.sqrt(3.0))
    slanted = np.abs(x) * np.float32(np.sqrt(3.0) / 2) - y / 2
    return inradius - np.maximum(slanted, y)


def _triangle_side(area: NDArray[np.floating]) -> NDArray[np.floating]:
    """Side of an equilateral triangle."""
    return np.sqrt(area * np.float32(4 / np.sqrt(3.0)))


def _extents(shape: NDArray[np.int64], side: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reach of a shape from its centre of mass to the left and top, and to the right and bottom: two (N, 2)."""
    circle, square = side / np.sqrt(np.pi), side / 2
    edge = side * np.sqrt(4 / np.sqrt(3.0))
    low = np.stack(
        [np.stack([circle, circle], -1), np.stack([square, square], -1), np.stack([edge / 2, edge / np.sqrt(3)], -1)]
    )
    high = np.stack([low[0], low[1], np.stack([edge / 2, edge / (2 * np.sqrt(3))], -1)])
    rows = np.arange(len(shape))
    return low[shape, rows], high[shape, rows]


def _held_out_motion(colour: NDArray[np.int64], shape: NDArray[np.int64]) -> NDArray[np.int64]:
    # Three colours by three shapes walk over all nine motions once, the other three colours once more, shifted.
    return (colour % 3 + 3 * shape + 4 * (colour // 3)) % len(MOTIONS)
