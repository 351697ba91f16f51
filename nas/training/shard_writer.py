"""Encoding clips into shards: each written once and whole, so that a killed run goes on with the next one.

A shard is made of a fixed range of the source's clips and of nothing else. So a run that was killed and continued
writes the same bytes as one that was not. ``plan.json`` comes first and refuses other settings in the same folder,
``index.json`` comes last and marks the end; ``skipped.jsonl`` has a line for every clip left out.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from nas.core.errors import InputError, Problem
from nas.core.files import canonical_json, read_json, sha256_path, sha256_text, write_json, write_text_atomically
from nas.core.protocols import SilentProgress
from nas.core.schema import check_schema, to_data, with_schema
from nas.models.tensors import write_tensors
from nas.training.shards import (
    EMPTY,
    INDEX,
    SCHEMA,
    SHARD_KEY,
    Group,
    NumberFormat,
    ShardEntry,
    ShardIndex,
    read_index,
    shard_metadata,
)
from nas.training.video_files import UnreadableClipError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.training.encoders import ClipEncoders
    from nas.training.sources import ClipSource, SourceClip

PLAN = "plan.json"
SKIPPED = "skipped.jsonl"
_PLAN_SCHEMA = ("shard_plan", 1)
_SHOWN = 5
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOptions:
    """How shards are written.

    Attributes:
        clips_per_shard: Clips of the source in one shard; one shard is held in memory while it is made.
        dtype: Number format on disk; training reads float32.
        batch_size: Clips encoded at once.
        workers: Threads that read clips ahead of the encoder; no part of the outcome.
        share: (k, n) makes every n-th shard from the k-th, counted from 1: n processes, each on a device of its own,
            fill one folder, and the one that finds all shards there writes the index. No part of the outcome either.
    """

    clips_per_shard: int = 256
    dtype: NumberFormat = "float16"
    batch_size: int = 8
    workers: int = 1
    share: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if not 1 <= self.share[0] <= self.share[1]:
            raise ValueError(f"share must be k of n with k from 1 to n, got {self.share[0]} of {self.share[1]}")
        for name in ("clips_per_shard", "batch_size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One shard to be: a range of places in the source."""

    file: str
    group: Group
    places: range


def encode_shards(
    folder: Path,
    source: ClipSource,
    encoders: ClipEncoders,
    *,
    options: ShardOptions,
    progress: Progress | None = None,
) -> ShardIndex | None:
    """Encode every clip of ``source`` into ``folder``, or go on with it, or return at once when it is finished.

    Returns:
        The index; None when shards of other shares are still missing.

    Raises:
        InputError: A caption cannot be encoded, no clip can be read, or ``folder`` holds something else.
        UnavailableError: The disk is full.
    """
    progress = progress or SilentProgress()
    plan = {
        "source": dict(source.identity),
        "encoder": dict(encoders.identity),
        "dtype": options.dtype,
        "clips_per_shard": options.clips_per_shard,
        "batch_size": options.batch_size,
    }
    _claim(folder, plan)
    if (folder / INDEX).is_file():
        return read_index(folder)
    encoders.save(folder)
    num_shortened = _check_captions(source, encoders)
    fingerprint = sha256_text(canonical_json(plan))
    writer = _Writer(folder, source, encoders, options=options, fingerprint=fingerprint)
    parts = _parts(source, options.clips_per_shard)
    total = source.num_videos + source.num_images
    first, stride = options.share
    for part in parts[first - 1 :: stride]:
        for rest in folder.glob(f".{part.file}.*"):
            rest.unlink()  # a write that was killed
        progress.update(part.places.start, total, "encoding clips")
        writer.ensure(part)
    if not all((folder / part.file).is_file() for part in parts):
        return None
    index = _finish(folder, parts, plan, encoders, num_shortened=num_shortened)
    progress.update(total, total, "encoding clips")
    return index


def _claim(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan into an empty folder, or compare it with the one there."""
    path = folder / PLAN
    if path.is_file():
        found = check_schema(read_json(path), *_PLAN_SCHEMA, where=str(path))
        other = [name for name, value in to_data(plan).items() if found.get(name) != value]
        if other:
            raise InputError(
                f"{path}: the folder was begun with another {' and '.join(other)}",
                hint="choose another folder, or remove this one to encode afresh",
            )
        return
    if folder.is_dir() and any(not item.name.startswith(".") for item in folder.iterdir()):
        raise InputError(f"{folder}: holds other files", hint="choose a new or empty folder for the shards")
    write_json(path, with_schema(*_PLAN_SCHEMA, dict(plan)))


def _check_captions(source: ClipSource, encoders: ClipEncoders) -> int:
    """Name every caption that cannot be encoded before anything is; returns how many lose their end."""
    captions = source.captions()
    problems = []
    for caption, name in captions.items():
        fault = encoders.fault(caption)
        if fault:
            problems.append(Problem(message=fault, path=name))
    if problems:
        shown = "; ".join(f"{problem.path}: {problem.message}" for problem in problems[:_SHOWN])
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        raise InputError(
            f"{len(problems)} captions cannot be encoded: {shown}{more}",
            problems=tuple(problems),
            hint="change the captions or use an encoder that knows these words",
        )
    shortened = sum(encoders.shortens(caption) for caption in captions)
    if shortened:
        logger.warning("%d captions are longer than the text model reads; their ends are lost", shortened)
    return shortened


def _parts(source: ClipSource, clips_per_shard: int) -> list[_Part]:
    """Ranges of the source by group; images are a group of their own only beside clips of several frames."""
    videos, total = source.num_videos, source.num_videos + source.num_images
    groups: list[tuple[Group, range]] = [("clips", range(videos)), ("images", range(videos, total))]
    if not videos:
        groups = [("clips", range(total))]
    return [
        _Part(file=f"{group}-{number:05d}.safetensors", group=group, places=places[start : start + clips_per_shard])
        for group, places in groups
        for number, start in enumerate(range(0, len(places), clips_per_shard))
    ]


class _Writer:
    """Makes the shards that are not there yet."""

    def __init__(
        self, folder: Path, source: ClipSource, encoders: ClipEncoders, *, options: ShardOptions, fingerprint: str
    ) -> None:
        self._folder = folder
        self._source = source
        self._encoders = encoders
        self._options = options
        self._fingerprint = fingerprint

    def ensure(self, part: _Part) -> None:
        """Write a shard, or keep the one that an earlier run wrote."""
        path = self._folder / part.file
        if path.is_file():
            if shard_metadata(path)["fingerprint"] != self._fingerprint:
                raise InputError(f"{path}: belongs to other clips", hint="remove the folder to encode afresh")
            return
        read: list[SourceClip] = []
        latents, text, skipped = [], [], []
        for batch in self._batches(part):
            clips = [clip for clip in batch if not isinstance(clip, list)]
            skipped += [clip for clip in batch if isinstance(clip, list)]
            if clips:
                latents.append(self._latents(clips))
                text.append(self._stored(self._encoders.encode_text([clip.caption for clip in clips])))
                read += clips
        tensors = {}
        if read:
            tensors = {"latents": torch.cat(latents), "text": torch.cat(text)}
        told = {
            "fingerprint": self._fingerprint,
            "clips": [[clip.name, clip.caption] for clip in read],
            "skipped": skipped,
        }
        # One entry: safetensors writes several in random order, and equal shards shall have equal bytes.
        write_tensors(path, tensors, metadata={SHARD_KEY: canonical_json(told)})

    def _batches(self, part: _Part) -> Iterator[list[SourceClip | list[str]]]:
        """Clips as read, or [name, reason], a batch at a time; the next is read while one is encoded."""
        size = self._options.batch_size
        windows = [part.places[start : start + size] for start in range(0, len(part.places), size)]
        with ThreadPoolExecutor(self._options.workers) as pool:
            ahead = [pool.submit(self._read, place) for place in windows[0]]
            for following in [*windows[1:], range(0)]:
                ready, ahead = ahead, [pool.submit(self._read, place) for place in following]
                yield [future.result() for future in ready]

    def _read(self, place: int) -> SourceClip | list[str]:
        try:
            return self._source.read(place)
        except UnreadableClipError as error:
            return [self._source.name(place), str(error)]

    def _latents(self, clips: list[SourceClip]) -> Tensor:
        video = np.stack([clip.video for clip in clips])
        cell, (height, width) = self._encoders.cell_size, video.shape[-2:]
        if height % cell or width % cell:
            raise InputError(
                f"{clips[0].name}: {height} x {width} pixels cannot be encoded: a latent cell is {cell} x {cell}",
                hint=f"choose a size that is a multiple of {cell}",
            )
        stored = self._stored(self._encoders.encode_video(video))
        finite = stored.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            name = clips[int((~finite).nonzero()[0])].name
            raise InputError(
                f"{name}: its latents leave the range of {self._options.dtype} or are not numbers",
                hint="use dtype bfloat16 or float32",
            )
        return stored

    def _stored(self, tensor: Tensor) -> Tensor:
        return tensor.to(getattr(torch, self._options.dtype))


def _finish(
    folder: Path,
    parts: list[_Part],
    plan: Mapping[str, Any],
    encoders: ClipEncoders,
    *,
    num_shortened: int,
) -> ShardIndex:
    """Write the log of skipped clips, the empty caption and, last of all, the index."""
    described = [(part, shard_metadata(folder / part.file)) for part in parts]
    skipped = [{"clip": name, "reason": reason} for _, data in described for name, reason in data["skipped"]]
    write_text_atomically(folder / SKIPPED, "".join(canonical_json(row) + "\n" for row in skipped))
    if skipped:
        logger.warning("%d clips were left out, see %s", len(skipped), folder / SKIPPED)
    full = [(part, len(data["clips"])) for part, data in described if data["clips"]]
    if not any(part.group == "clips" for part, _ in full):
        first = skipped[0]
        raise InputError(
            f"{folder / SKIPPED}: none of the clips could be used; the first, {first['clip']}: {first['reason']}",
            hint="correct the files or the settings, remove the folder and encode again",
        )
    empty = encoders.encode_text([""])[0].to(getattr(torch, plan["dtype"]))
    write_tensors(folder / EMPTY, {"text": empty}, metadata={"kind": "empty_caption"})
    index = ShardIndex(
        latent_shape=_latent_shape(folder / full[0][0].file),
        text_shape=(len(empty), empty.shape[1]),
        dtype=plan["dtype"],
        encoder=plan["encoder"],
        source=plan["source"],
        num_skipped=len(skipped),
        num_shortened=num_shortened,
        shards=tuple(_entry(folder, part, count) for part, count in full),
        empty_sha256=sha256_path(folder / EMPTY),
    )
    write_json(folder / INDEX, with_schema(*SCHEMA, to_data(index)))
    return index


def _entry(folder: Path, part: _Part, count: int) -> ShardEntry:
    path = folder / part.file
    return ShardEntry(
        file=part.file, group=part.group, count=count, bytes=path.stat().st_size, sha256=sha256_path(path)
    )


def _latent_shape(path: Path) -> tuple[int, int, int, int]:
    with safe_open(path, framework="pt") as file:
        _, frames, channels, height, width = file.get_slice("latents").get_shape()
    return frames, channels, height, width
