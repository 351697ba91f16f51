"""The teacher's answers to fixed draws, kept as safetensors shards; see ``nas.training.teacher_targets``.

A folder belongs to one teacher, its data and its draws (``cache.json``); several students share it. Shards are written
whole or not at all, so that filling goes on where it was interrupted. Float32 answers of a clip of the ``tiny`` space
take 52 KB with features. benchmarks/results/distillation.md says when it is faster.
"""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nas.core.errors import CheckpointError, InputError, UnavailableError
from nas.core.files import read_json, write_json
from nas.core.protocols import SilentProgress
from nas.core.schema import check_schema, to_data, with_schema
from nas.models.tensors import read_tensors, write_tensors
from nas.training.stage import describe_weights, fingerprint_of
from nas.training.teacher_targets import Drawn, Target, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.training.options import LoopOptions
    from nas.training.teacher_targets import FixedDraws, Teacher

logger = logging.getLogger(__name__)

BATCHES_PER_SHARD = 8
_SCHEMA = ("teacher_cache", 1)


class TeacherCache:
    """A cache of one teacher's answers to fixed draws.

    Args:
        folder: Where it is; created when missing.
        teacher: The network.
        draws: The draws.
        loop: Gives batch size and precision of the calls, which are those of training.
        device: Where the teacher computes.

    Raises:
        CheckpointError: The folder holds a cache of something else, or a damaged one.
    """

    def __init__(
        self, folder: Path, teacher: Teacher, draws: FixedDraws, *, loop: LoopOptions, device: torch.device
    ) -> None:
        self._folder, self._teacher, self._draws, self._device = folder, teacher, draws, device
        self._batch_size, self._precision = loop.batch_size, loop.precision
        self._rows = loop.batch_size * BATCHES_PER_SHARD
        self._open: dict[Path, dict[str, Tensor]] = {}
        ratio = draws.options.image_ratio
        self._kinds = tuple(images for images in (False, True) if (ratio > 0.0 if images else ratio < 1.0))
        self._claim()

    def fill(self, progress: Progress | None = None) -> int:
        """Write the shards that are missing, and check that stored answers are what the teacher says; returns rows.

        Raises:
            UnavailableError: The disk has too little room; nothing is written then.
        """
        progress = progress or SilentProgress()
        wanted = self._wanted()
        missing = [item for item in wanted if not item[0].is_file()]
        if missing:
            self._teacher.to(self._device)
            self._require_room(len(missing))
        for done, (path, images, draw, clips) in enumerate(missing):
            progress.update(len(wanted) - len(missing) + done, len(wanted), "teacher's answers")
            self._write(path, self._answers(clips, draw, images=images))
        progress.update(len(wanted), len(wanted), "teacher's answers")
        if missing:
            self._check_neighbours()
        return sum(len(clips) for _, _, _, clips in missing)

    def read(self, drawn: Drawn, device: torch.device) -> Target:
        """Stored answers of draws.

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        rows: list[dict[str, Tensor]] = []
        for clip, draw in zip(drawn.clips.tolist(), drawn.draws.tolist(), strict=True):
            shard = self._shard(self._path(drawn.images, draw, clip // self._rows))
            rows.append({name: values[clip % self._rows] for name, values in shard.items()})
        stacked = {name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]}
        names = [f"feature.{place}" for place in self._teacher.features]
        return Target(velocity=stacked["velocity"], features=tuple(stacked[name] for name in names))

    def _claim(self) -> None:
        draws = self._draws
        parts: dict[str, Any] = {
            "teacher": describe_weights(self._teacher.denoiser),
            "captions": describe_weights(self._teacher.captions),  # type: ignore[arg-type]  # a module, by its protocol
            "features": list(self._teacher.features),
            "data": draws.data.description,
            "noise": to_data(draws.options),
            "draws": draws.per_clip,
            "seed": draws.streams.seed,
            "batch_size": self._batch_size,
            "precision": self._precision,
        }
        path = self._folder / "cache.json"
        body = {"fingerprint": fingerprint_of(**parts), **parts}
        if not path.is_file():
            write_json(path, with_schema(*_SCHEMA, body))
            return
        try:
            found = check_schema(read_json(path), *_SCHEMA, where=str(path))
        except InputError as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error}", hint="remove the folder to fill it anew"
            ) from error
        if found.get("fingerprint") != body["fingerprint"]:
            other = ", ".join(name for name, value in parts.items() if found.get(name) != value)
            raise CheckpointError(
                f"{self._folder}: holds the answers of another teacher or to other draws; these differ: {other}",
                hint="choose another folder, or remove this one to fill it anew",
            )

    def _wanted(self) -> list[tuple[Path, bool, int, Tensor]]:
        count = len(self._draws.data)
        starts = range(0, count, self._rows)
        return [
            (self._path(images, draw, number), images, draw, torch.arange(start, min(start + self._rows, count)))
            for images in self._kinds
            for draw in range(self._draws.per_clip)
            for number, start in enumerate(starts)
        ]

    def _path(self, images: bool, draw: int, number: int) -> Path:
        return self._folder / f"{'image' if images else 'video'}-{draw:03d}-{number:05d}.safetensors"

    def _answers(self, clips: Tensor, draw: int, *, images: bool) -> Target:
        """The teacher's answers, in calls of the training's batch size; a short last one repeats its last clip."""
        parts = []
        for chunk in clips.split(self._batch_size):
            full = torch.cat([chunk, chunk[-1:].expand(self._batch_size - len(chunk))])
            target = self._answer(Drawn(clips=full, draws=torch.full_like(full, draw), images=images))
            parts.append(
                Target(
                    velocity=target.velocity[: len(chunk)],
                    features=tuple(block[: len(chunk)] for block in target.features),
                )
            )
        return rows_of(parts)

    def _answer(self, drawn: Drawn) -> Target:
        noisy = self._draws.make(drawn, self._device)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._precision == "bfloat16"):
            return self._teacher.answer(noisy)

    def _write(self, path: Path, target: Target) -> None:
        features = zip(self._teacher.features, target.features, strict=True)
        write_tensors(path, {"velocity": target.velocity, **{f"feature.{place}": block for place, block in features}})

    def _shard(self, path: Path) -> dict[str, Tensor]:
        if path not in self._open:
            tensors, _ = read_tensors(path)  # mapped into memory: pages are read when they are used
            if set(tensors) != {"velocity", *(f"feature.{place}" for place in self._teacher.features)}:
                raise CheckpointError(
                    f"{path}: holds {sorted(tensors)}, not a teacher's answers", hint="remove it; it is filled anew"
                )
            self._open[path] = tensors
        return self._open[path]

    def _require_room(self, num_shards: int) -> None:
        first = torch.zeros(self._batch_size, dtype=torch.long)
        target = self._answer(Drawn(clips=first, draws=first, images=self._kinds[0]))
        blocks = (target.velocity, *target.features)
        needed = num_shards * BATCHES_PER_SHARD * sum(block.numel() * block.element_size() for block in blocks)
        free = shutil.disk_usage(self._folder).free
        logger.info("teacher's answers take up to %.0f MB in %s", needed / 1e6, self._folder)
        if needed > free:
            raise UnavailableError(
                f"{self._folder}: the teacher's answers need {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free",
                hint="lower distillation.draws, use fewer clips or set distillation.cache to false",
            )

    def _check_neighbours(self) -> None:
        """Warn when the teacher's answer to a clip depends on what else is in the batch."""
        count = len(self._draws.data)
        generator = torch.Generator().manual_seed(0)
        clips = torch.randint(count, (self._batch_size,), generator=generator)
        draws = torch.randint(self._draws.per_clip, (self._batch_size,), generator=generator)
        drawn = Drawn(clips=clips, draws=draws, images=self._kinds[0])
        fresh, stored = self._answer(drawn), self.read(drawn, self._device)
        pairs = zip((fresh.velocity, *fresh.features), (stored.velocity, *stored.features), strict=True)
        largest = max(float((one - two).abs().max()) for one, two in pairs)
        if largest > 0.0:
            logger.warning(
                "on %s the teacher's answer to a clip depends on the batch it is in, by up to %.1e: losses with the "
                "cache are not those without it to the bit",
                self._device,
                largest,
            )
