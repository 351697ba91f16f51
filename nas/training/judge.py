"""Analytic judge: reads colour, shape and motion off a clip of one moving shape, with no learned part.

Method, frame by frame: the background is the median colour of the border; a pixel's foreground weight grows with its
distance from the background, relative to the clip's 98 % quantile, from 0 at a quarter to 1 at three quarters. Colour
is the palette entry nearest to the weighted mean of the foreground; shape is the template (circle, square, triangle) of
the same area and centre with the largest soft intersection over union, summed over the frames; direction and speed come
from a straight line fitted to the foreground's centre of mass. Jitter is the root mean square distance from that line
in pixels. Flicker is the mean of three spreads over the frames: of the area (relative to its mean), of the foreground
colour and of the background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.training.clips import CLIP_SIZE, COLOURS, DIRECTIONS, SHAPES, STILL, TRAVEL_PX, coverage

if TYPE_CHECKING:
    from nas.training.clips import Attributes

# A clip that goes less than half the slow way stands still; above the middle of slow and quick it is quick.
_STILL_BELOW_PX = TRAVEL_PX[0] / 2
_QUICK_ABOVE_PX = (TRAVEL_PX[0] + TRAVEL_PX[1]) / 2
# Least distance in RGB (0-1) that counts as a foreground; the palest colour lies 0.6 from the brightest background.
_LEAST_CONTRAST = 0.25
_CHUNK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judge reads in N clips; index arrays are (N,) int64 and -1 where nothing is to be seen.

    ``jitter_px`` is in pixels of the clip, ``flicker`` and its parts are standard deviations over frames.
    """

    colour: NDArray[np.int64]
    shape: NDArray[np.int64]
    motion: NDArray[np.int64]
    direction: NDArray[np.int64]
    jitter_px: NDArray[np.float64]
    flicker_area: NDArray[np.float64]
    flicker_colour: NDArray[np.float64]
    flicker_background: NDArray[np.float64]

    @property
    def flicker(self) -> NDArray[np.float64]:
        """Mean of the three spreads over frames."""
        return (self.flicker_area + self.flicker_colour + self.flicker_background) / 3


def judge_clips(video: NDArray[np.uint8] | NDArray[np.floating]) -> Verdict:
    """Read every clip.

    Args:
        video: (N, T, 3, H, W), uint8 or floating in 0-1.

    Raises:
        ValueError: The array does not have that shape.
    """
    if video.ndim != 5 or video.shape[2] != 3:
        raise ValueError(f"judge needs clips of shape (N, T, 3, H, W), got {video.shape}")
    parts = [_judge(_unit(video[begin : begin + _CHUNK])) for begin in range(0, len(video), _CHUNK)]
    names = Verdict.__slots__
    return Verdict(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def score_clips(video: NDArray[np.uint8] | NDArray[np.floating], wanted: Attributes) -> dict[str, float]:
    """Share of clips that show what was asked for, and their steadiness.

    ``direction`` counts moving captions only (chance 1/4); ``motion`` is direction and speed together, still included
    (chance 1/9). ``mean`` is the mean of ``colour``, ``shape`` and ``direction``, the figure of TRAINING section 2.
    """
    verdict = judge_clips(video)
    moving = wanted.direction >= 0
    colour = float(np.mean(verdict.colour == wanted.colour))
    shape = float(np.mean(verdict.shape == wanted.shape))
    direction = float(np.mean((verdict.direction == wanted.direction)[moving])) if moving.any() else 0.0
    return {
        "colour": colour,
        "shape": shape,
        "direction": direction,
        "motion": float(np.mean(verdict.motion == wanted.motion)),
        "mean": (colour + shape + direction) / 3,
        "jitter": float(np.mean(verdict.jitter_px)),
        "flicker": float(np.mean(verdict.flicker)),
        "flicker_area": float(np.mean(verdict.flicker_area)),
        "flicker_colour": float(np.mean(verdict.flicker_colour)),
        "flicker_background": float(np.mean(verdict.flicker_background)),
    }


def _unit(video: NDArray[np.uint8] | NDArray[np.floating]) -> NDArray[np.float32]:
    return video.astype(np.float32) / 255.0 if video.dtype == np.uint8 else video.astype(np.float32)


def _judge(video: NDArray[np.float32]) -> Verdict:
    count, frames, _, size, _ = video.shape
    background = np.median(_border(video), axis=-1)  # (N, T, 3)
    contrast = np.linalg.norm(video - background[..., None, None], axis=2)  # (N, T, H, W)
    strongest = np.quantile(contrast.reshape(count, -1), 0.98, axis=1)
    seen = strongest > _LEAST_CONTRAST
    relative = contrast / np.maximum(strongest, 1e-6)[:, None, None, None]
    weight = np.clip(2.0 * relative - 0.5, 0.0, 1.0) * (relative > 0.25)
    area = weight.sum(axis=(2, 3))  # (N, T)
    safe = np.maximum(area, 1e-6)
    painted = np.einsum("nthw,ntchw->ntc", weight * relative**4, video)
    painted /= np.maximum((weight * relative**4).sum(axis=(2, 3)), 1e-6)[..., None]
    centres = _centres(weight, safe)
    velocity, jitter = _straight_line(centres)
    palette = np.array(list(COLOURS.values()), dtype=np.float32)
    colour = np.linalg.norm(np.median(painted, axis=1)[:, None] - palette, axis=-1).argmin(axis=1)
    motion = _motion(velocity * (frames - 1) * CLIP_SIZE / size)
    return Verdict(
        colour=np.where(seen, colour, -1),
        shape=np.where(seen, _shape(weight, area, centres, size=size), -1),
        motion=np.where(seen, motion, -1),
        direction=np.where(seen & (motion != STILL), motion % len(DIRECTIONS), -1),
        jitter_px=jitter,
        flicker_area=(area.std(axis=1) / np.maximum(area.mean(axis=1), 1.0)).astype(np.float64),
        flicker_colour=painted.std(axis=1).mean(axis=-1).astype(np.float64),
        flicker_background=background.std(axis=1).mean(axis=-1).astype(np.float64),
    )


def _border(video: NDArray[np.float32]) -> NDArray[np.float32]:
    """The outermost pixels of every frame: (N, T, 3, P)."""
    top, bottom = video[..., 0, :], video[..., -1, :]
    left, right = video[..., 1:-1, 0], video[..., 1:-1, -1]
    return np.concatenate([top, bottom, left, right], axis=-1)


def _centres(weight: NDArray[np.float32], area: NDArray[np.float32]) -> NDArray[np.float64]:
    """Centre of mass (x, y) of the foreground in pixels: (N, T, 2)."""
    position = np.arange(weight.shape[-1], dtype=np.float64) + 0.5
    x = (weight.sum(axis=2) * position).sum(axis=-1) / area
    y = (weight.sum(axis=3) * position).sum(axis=-1) / area
    return np.stack([x, y], axis=-1)


def _straight_line(centres: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least-squares velocity in pixels a frame (N, 2) and root mean square distance from the line (N,)."""
    frames = centres.shape[1]
    time = np.arange(frames) - (frames - 1) / 2
    middle = centres.mean(axis=1, keepdims=True)
    velocity = np.einsum("t,ntd->nd", time, centres - middle) / max(float(time @ time), 1e-9)
    rest = centres - middle - time[None, :, None] * velocity[:, None, :]
    return velocity, np.sqrt((rest**2).sum(axis=-1).mean(axis=1))


def _motion(way: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nine-way motion from the way (x, y) between first and last frame, in pixels of a 32-pixel frame."""
    units = np.array(list(DIRECTIONS.values()), dtype=np.float64)
    direction = (way @ units.T).argmax(axis=1)
    travel = np.abs(way).max(axis=1)
    motion = direction + len(DIRECTIONS) * (travel > _QUICK_ABOVE_PX)
    return np.where(travel < _STILL_BELOW_PX, STILL, motion)


def _shape(
    weight: NDArray[np.float32], area: NDArray[np.float32], centres: NDArray[np.float64], *, size: int
) -> NDArray[np.int64]:
    scores = []
    for index in range(len(SHAPES)):
        template = coverage(np.full(len(weight), index), area, centres, size=size)
        overlap = np.minimum(template, weight).sum(axis=(2, 3)) / np.maximum(
            np.maximum(template, weight).sum(axis=(2, 3)), 1e-6
        )
        scores.append(overlap.sum(axis=1))
    return np.stack(scores, axis=1).argmax(axis=1)
