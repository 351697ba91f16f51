"""``nas data``: clips of a folder or of a run's procedural task into shards, and what shards hold."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import search_spaces
from nas.config.run import load_run
from nas.core.errors import ConfigError, InputError
from nas.core.files import JsonLines
from nas.core.schema import to_data
from nas.training.clips import CLIP_FRAMES, CLIP_SIZE
from nas.training.encoders import CAPTIONS_FILE, CODEC_FILE, load_encoders
from nas.training.fitted_encoders import procedural_encoders, source_encoders
from nas.training.folders import scan_folder
from nas.training.shard_writer import SKIPPED, ShardOptions, encode_shards
from nas.training.shards import INDEX, ShardedClips, clip_rows
from nas.training.sources import FolderSource, MissingCaptions, ProceduralSource
from nas.training.video_files import ClipFormat

if TYPE_CHECKING:
    from nas.core.protocols import Progress
    from nas.training.encoders import ClipEncoders
    from nas.training.shards import ShardIndex
    from nas.training.sources import ClipSource
    from search_spaces.backbone import BackboneSpec

_SHOWN = 5
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeRequest:
    """What ``nas data encode`` was asked for; ``None`` is left to the source.

    Attributes:
        source: A folder of files, or a run's YAML.
        out: Folder of the shards.
        encoder: Folder of pretrained or trained encoders; fitted ones without it.
        space: Search space whose backbone fitted encoders are for, of a folder; a YAML has its own.
        frames: Frames of a clip.
        size: Side of a clip in pixels.
        fps: Frames a second taken from videos.
        clips: Number of procedural clips.
        seed: Of procedural clips and of fitted encoders.
        missing_captions: Whether files without a caption are left out or take the empty one.
        device: Where pretrained encoders run.
        shards: How shards are written.
    """

    source: Path
    out: Path
    encoder: Path | None = None
    space: str = "tiny"
    frames: int | None = None
    size: int | None = None
    fps: float = 8.0
    clips: int | None = None
    seed: int | None = None
    missing_captions: MissingCaptions = "skip"
    device: str = "cpu"
    shards: ShardOptions = field(default_factory=ShardOptions)


def encode(request: EncodeRequest, *, progress: Progress) -> tuple[dict[str, Any], str]:
    """Encode what was asked for; returns the facts of the shards as data and as text.

    Raises:
        ConfigError: The request does not fit its source.
        InputError: Something in the source or in the folder of the shards cannot be used.
        UnavailableError: A library is missing or the disk is full.
    """
    source, backbone = _source(request)
    encoders = _encoders(request, source, backbone)
    index = encode_shards(request.out, source, encoders, options=request.shards, progress=progress)
    if index is None:
        share, count = request.shards.share
        text = f"share {share} of {count} is done; {request.out} is finished when the others are"
        return {"folder": str(request.out), "finished": False, "share": [share, count]}, text
    return inspect(request.out)


def inspect(folder: Path, *, verify: bool = False) -> tuple[dict[str, Any], str]:
    """Counts, shapes, captions and origin of shards, as data and as text; ``verify`` compares every digest.

    Raises:
        InputError: A file is missing, damaged or not what the index says.
    """
    data = ShardedClips(folder, verify=verify)
    index = data.index
    captions = Counter(caption for _, _, caption in clip_rows(folder, index))
    skipped = Counter(row["reason"] for row in JsonLines(folder / SKIPPED).read())
    facts = {
        "folder": str(folder),
        "clips": len(data),
        "images": data.num_images,
        "latent_shape": list(index.latent_shape),
        "text_shape": list(index.text_shape),
        "dtype": index.dtype,
        "shards": len(index.shards),
        "bytes": sum(shard.bytes for shard in index.shards),
        "captions": len(captions),
        "without_caption": captions.get("", 0),
        "most_frequent": [list(row) for row in captions.most_common(_SHOWN)],
        "skipped": index.num_skipped,
        "skipped_reasons": [list(row) for row in skipped.most_common(_SHOWN)],
        "shortened_captions": index.num_shortened,
        "encoder": index.encoder,
        "source": index.source,
        "verified": verify,
    }
    return facts, "\n".join(_lines(folder, facts, index))


def _lines(folder: Path, facts: dict[str, Any], index: ShardIndex) -> list[str]:
    frames, channels, height, width = index.latent_shape
    images = f" and {facts['images']} images" if facts["images"] else ""
    lines = [
        f"{folder / INDEX}: {facts['clips']} clips{images} in {facts['shards']} shards, "
        f"{facts['bytes'] / 1e6:.1f} MB of {index.dtype}",
        f"latents: {frames} frames x {channels} channels x {height} x {width}",
        f"text: {index.text_shape[0] - 1} tokens and the pooled text, {index.text_shape[1]} wide",
        f"captions: {facts['captions']} different, {facts['without_caption']} clips without",
        *(f"  {count} x {caption!r}" for caption, count in facts["most_frequent"]),
        f"encoder: {_plain(index.encoder)}",
        f"source: {_plain(index.source)}",
    ]
    if index.num_skipped:
        lines.append(f"left out: {index.num_skipped} clips, see {folder / SKIPPED}")
        lines += [f"  {count} x {reason}" for reason, count in facts["skipped_reasons"]]
    if index.num_shortened:
        lines.append(f"shortened: {index.num_shortened} captions have more words than the text model reads")
    if facts["verified"]:
        lines.append("every file has the SHA-256 of the index")
    return lines


def _plain(data: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in to_data(data).items())


def _source(request: EncodeRequest) -> tuple[ClipSource, BackboneSpec]:
    if request.source.is_dir():
        return _folder_source(request), search_spaces.get(request.space).backbone
    if not request.source.exists():
        raise InputError(f"{request.source}: no such folder of clips or YAML")
    config = load_run(request.source)
    scenario = config.scenario
    if scenario.height != scenario.width:
        raise ConfigError(
            f"{request.source}: procedural clips are square, the scenario has {scenario.height} x {scenario.width}"
        )
    section = config.train.data if config.train else None
    count = request.clips or (section.clips if section is not None and section.type == "procedural" else None)
    if count is None:
        raise ConfigError(
            f"{request.source}: does not say how many procedural clips", hint="add --clips N to the command"
        )
    source = ProceduralSource(
        count=count,
        seed=config.run.seed if request.seed is None else request.seed,
        frames=request.frames or scenario.frames,
        size=request.size or scenario.height,
    )
    return source, search_spaces.get(config.space.name).backbone


def _folder_source(request: EncodeRequest) -> FolderSource:
    if request.clips is not None:
        raise ConfigError("--clips is for procedural clips; a folder gives all of its files")
    if request.encoder is not None and (request.frames is None or request.size is None):
        raise ConfigError("with --encoder give --frames and --size, those of the network to be trained")
    folder = scan_folder(request.source)
    for names, what in (
        (folder.without_caption, f"have no caption and are {_FATE[request.missing_captions]}"),
        (folder.unmatched, f"are in {folder.table} and not in the folder"),
    ):
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            logger.warning("%d files %s: %s", len(names), what, shown)
    wanted = ClipFormat(frames=request.frames or CLIP_FRAMES, size=request.size or CLIP_SIZE, fps=request.fps)
    return FolderSource(folder=folder, format=wanted, missing_captions=request.missing_captions)


_FATE = {"skip": "left out", "empty": "given the empty one"}


def _encoders(request: EncodeRequest, source: ClipSource, backbone: BackboneSpec) -> ClipEncoders:
    if request.encoder is not None:
        return load_encoders(request.encoder, device=request.device)
    if (request.out / CODEC_FILE).is_file() and (request.out / CAPTIONS_FILE).is_file():
        return load_encoders(request.out)  # an earlier run fitted them and was killed
    seed = request.seed or 0
    if isinstance(source, ProceduralSource):
        return procedural_encoders(backbone, seed=source.seed)
    return source_encoders(source, backbone, seed=seed)
