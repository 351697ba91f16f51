"""Encoded clips on disk: ``index.json`` and safetensors shards, read through memory maps.

A shard has ``latents`` (n, T, C, H, W) and ``text`` (n, N + 1, D) in the index's number format, and the names and
captions of its clips as metadata. ``empty.safetensors`` has the text row of the empty caption. Clips of several frames
and single images are separate groups of shards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nas.core.errors import InputError
from nas.core.files import read_json, sha256_path, sha256_text
from nas.core.schema import check_schema, from_data
from nas.models.caption import StoredCaptions
from nas.models.tensors import read_tensors
from nas.training.data import ClipBatch, as_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

INDEX = "index.json"
EMPTY = "empty.safetensors"
SCHEMA = ("clip_shards", 1)
SHARD_KEY = "clip_shard"  # of a shard's metadata
Group = Literal["clips", "images"]
NumberFormat = Literal["float32", "float16", "bfloat16"]
_HINT = "encode the clips again: nas data encode"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One file of the index."""

    file: str
    group: Group
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """What ``index.json`` says.

    Attributes:
        latent_shape: (T, C, H, W) of a clip; an image has one frame.
        text_shape: (N + 1, D) of a text row.
        dtype: Number format of the shards.
        encoder: Identity of what encoded them.
        source: Identity of the clips.
        num_skipped: Clips left out, each with its reason in ``skipped.jsonl``.
        num_shortened: Captions whose end the text model did not see.
        shards: The files in order.
        empty_sha256: Digest of ``empty.safetensors``.
    """

    latent_shape: tuple[int, int, int, int]
    text_shape: tuple[int, int]
    dtype: NumberFormat
    encoder: dict[str, Any]
    source: dict[str, Any]
    num_skipped: int
    num_shortened: int
    shards: tuple[ShardEntry, ...]
    empty_sha256: str

    def count(self, group: Group) -> int:
        """Number of clips or images."""
        return sum(shard.count for shard in self.shards if shard.group == group)


def read_index(folder: Path) -> ShardIndex:
    """Read ``index.json``.

    Raises:
        InputError: It is missing, damaged or of another version.
    """
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{path}: does not exist; the folder holds no finished shards", hint=_HINT)
    return from_data(ShardIndex, check_schema(read_json(path), *SCHEMA, where=str(path)), where=str(path))


class ShardedClips:
    """Training data from shards; meets ``TrainingClips``.

    Every shard's size and header are compared with the index on opening; digests only where ``verify`` asks for it,
    because that reads every byte.

    Args:
        folder: Where ``index.json`` is.
        verify: Compare the digests too.

    Raises:
        InputError: A file is missing, damaged or not what the index says; the message names it.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        self.folder = folder
        self.index = read_index(folder)
        if verify:
            verify_digests(folder, self.index)
        self._clips = _Rows(folder, self.index, "clips")
        self._images = _Rows(folder, self.index, "images") if self.index.count("images") else None
        self._empty = _read_empty(folder, self.index)
        self._digest = sha256_text((folder / INDEX).read_text(encoding="utf-8"))[:16]

    @property
    def description(self) -> str:
        """Number of clips and the index's digest, which holds those of all shards."""
        images = f" and {len(self._images)} images" if self._images else ""
        return f"{len(self)} encoded clips{images}, index {self._digest}"

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(T, C, H, W) of a clip."""
        return self.index.latent_shape

    @property
    def num_images(self) -> int:
        """Images beside the clips."""
        return len(self._images) if self._images else 0

    def __len__(self) -> int:
        return len(self._clips)

    def captions(self) -> StoredCaptions:
        """The text encoder of a kit that trains on these shards."""
        return StoredCaptions(empty=self._empty)

    def fetch(self, indices: Tensor) -> ClipBatch:
        """The clips at ``indices`` (B,) with their text rows, in float32."""
        return ClipBatch(self._clips.take("latents", indices), self._clips.take("text", indices))

    def fetch_text(self, indices: Tensor) -> Tensor:
        """Text rows (B, N + 1, D) in float32."""
        return self._clips.take("text", indices)

    def fetch_images(self, indices: Tensor, *, generator: torch.Generator) -> ClipBatch:
        """Random images of the shards, or random frames of the clips where there are no images."""
        if self._images is None:
            batch = self.fetch(indices)
            return batch._replace(latents=as_images(batch.latents, generator=generator))
        places = torch.randint(len(self._images), (len(indices),), generator=generator)
        return ClipBatch(self._images.take("latents", places), self._images.take("text", places))

    def require(self, *, latent_shape: Sequence[int], text_width: int, network: str) -> None:
        """Check that a network can train on these clips, before its first step.

        Args:
            latent_shape: (T, C, H, W) that the network is to make.
            text_width: Width D of its text.
            network: Its name, for the message.

        Raises:
            InputError: A shape differs; the message names both and the index.
        """
        faults = []
        if tuple(latent_shape) != self.latent_shape:
            faults.append(
                f"latents are {_shape(self.latent_shape)}, {network} makes {_shape(latent_shape)} "
                "(frames x channels x height x width)"
            )
        if text_width != self.index.text_shape[1]:
            faults.append(f"text is {self.index.text_shape[1]} wide, {network} takes {text_width}")
        if faults:
            raise InputError(
                f"{self.folder / INDEX}: does not fit the network: {'; '.join(faults)}",
                hint="encode the clips with the network's encoder, frames and size, or change scenario or space",
            )


class _Rows:
    """The rows of all shards of a group, by one running index."""

    def __init__(self, folder: Path, index: ShardIndex, group: Group) -> None:
        frames = 1 if group == "images" else index.latent_shape[0]
        shapes = {"latents": (frames, *index.latent_shape[1:]), "text": index.text_shape}
        shards = [shard for shard in index.shards if shard.group == group]
        self._tensors = [_open_shard(folder, shard, shapes=shapes, dtype=index.dtype) for shard in shards]
        self._ends = torch.tensor([shard.count for shard in shards], dtype=torch.long).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, name: str, indices: Tensor) -> Tensor:
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"clip index out of range: there are {len(self)}")
        shards = torch.bucketize(indices, self._ends, right=True)
        first = self._tensors[0][name]
        taken = torch.empty(len(indices), *first.shape[1:], dtype=torch.float32)
        for number in shards.unique().tolist():
            rows = (shards == number).nonzero().squeeze(1)
            start = int(self._ends[number - 1]) if number else 0
            taken[rows] = self._tensors[number][name][indices[rows] - start].float()
        return taken


def verify_digests(folder: Path, index: ShardIndex) -> None:
    """Compare every file's SHA-256 with the index.

    Raises:
        InputError: A file is missing or differs.
    """
    files = [(shard.file, shard.sha256) for shard in index.shards] + [(EMPTY, index.empty_sha256)]
    for name, wanted in files:
        found = sha256_path(folder / name)
        if found != wanted:
            raise InputError(
                f"{folder / name}: damaged: its SHA-256 is {found[:16]}…, the index says {wanted[:16]}…", hint=_HINT
            )


def clip_rows(folder: Path, index: ShardIndex) -> Iterator[tuple[Group, str, str]]:
    """Group, name and caption of every clip, in order."""
    for shard in index.shards:
        for name, caption in shard_metadata(folder / shard.file)["clips"]:
            yield shard.group, name, caption


def shard_metadata(path: Path) -> dict[str, Any]:
    """What a shard says of itself: ``fingerprint``, ``clips`` as [name, caption], ``skipped`` as [name, reason].

    Raises:
        InputError: The file is missing, damaged or no shard.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors: {error}", hint=_HINT) from error
    if SHARD_KEY not in metadata:
        raise InputError(f"{path}: is not a shard of clips", hint=_HINT)
    told: dict[str, Any] = json.loads(metadata[SHARD_KEY])
    return told


def _open_shard(
    folder: Path, shard: ShardEntry, *, shapes: dict[str, tuple[int, ...]], dtype: str
) -> dict[str, Tensor]:
    path = folder / shard.file
    if not path.is_file():
        raise InputError(f"{path}: missing; the index names it", hint=_HINT)
    if path.stat().st_size != shard.bytes:
        raise InputError(
            f"{path}: damaged: it has {path.stat().st_size} bytes, the index says {shard.bytes}", hint=_HINT
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in shapes}  # memory-mapped: nothing is read yet
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors: {error}", hint=_HINT) from error
    for name, shape in shapes.items():
        found, wanted = tensors[name], (shard.count, *shape)
        if tuple(found.shape) != wanted or found.dtype != getattr(torch, dtype):
            raise InputError(
                f"{path}: {name} are {_shape(found.shape)} of {str(found.dtype).removeprefix('torch.')}, "
                f"the index says {_shape(wanted)} of {dtype}",
                hint=_HINT,
            )
    return tensors


def _read_empty(folder: Path, index: ShardIndex) -> Tensor:
    tensors, _ = read_tensors(folder / EMPTY)
    text = tensors.get("text")
    if text is None or tuple(text.shape) != index.text_shape:
        raise InputError(f"{folder / EMPTY}: is not the text row {_shape(index.text_shape)} of the index", hint=_HINT)
    return text.float()


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(str(number) for number in shape)
