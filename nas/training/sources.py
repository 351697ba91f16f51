"""Where clips to encode come from: a folder of files, or the procedural task; each clip is read by its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from nas.core.files import canonical_json, sha256_text
from nas.training.clips import Split, all_attributes, render_by_index
from nas.training.folders import ClipFolder
from nas.training.video_files import ClipFormat, UnreadableClipError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

MissingCaptions = Literal["skip", "empty"]


class SourceClip(NamedTuple):
    """A clip as it was read: its name, its caption and its frames (T, 3, H, W)."""

    name: str
    caption: str
    video: NDArray[np.uint8]


class ClipSource(Protocol):
    """Clips in a fixed order, those of several frames before single images."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What they are, as plain data without paths; other clips have another identity."""

    @property
    def num_videos(self) -> int:
        """Clips of several frames."""

    @property
    def num_images(self) -> int:
        """Clips of one frame beside them."""

    def captions(self) -> Mapping[str, str]:
        """Every distinct caption with the name of a clip that has it."""

    def name(self, place: int) -> str:
        """Name of a clip."""

    def read(self, place: int) -> SourceClip:
        """Read one clip.

        Raises:
            UnreadableClipError: It has to be left out; the message says why.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource:
    """The files of a folder; those without a caption are left out, or take the empty one."""

    folder: ClipFolder
    format: ClipFormat
    missing_captions: MissingCaptions = "skip"

    @property
    def identity(self) -> Mapping[str, Any]:
        """Digest of names, sizes and captions; sizes stand for contents, which are not read twice."""
        rows = [(file.name, (self.folder.path / file.name).stat().st_size, file.caption) for file in self.folder.files]
        return {
            "type": "folder",
            "files": len(rows),
            "digest": sha256_text(canonical_json(rows))[:16],
            "frames": self.format.frames,
            "size": self.format.size,
            "fps": self.format.fps,
            "missing_captions": self.missing_captions,
        }

    @property
    def num_videos(self) -> int:
        """Video files."""
        return sum(file.kind == "video" for file in self.folder.files)

    @property
    def num_images(self) -> int:
        """Image files."""
        return len(self.folder.files) - self.num_videos

    def captions(self) -> Mapping[str, str]:
        """Captions of files that have one."""
        first: dict[str, str] = {}
        for file in self.folder.files:
            if file.caption is not None:
                first.setdefault(file.caption, file.name)
        return first

    def name(self, place: int) -> str:
        """The file's."""
        return self.folder.files[place].name

    def read(self, place: int) -> SourceClip:
        """Decode one file."""
        file = self.folder.files[place]
        if file.caption is None and self.missing_captions == "skip":
            raise UnreadableClipError("no caption")
        return SourceClip(file.name, file.caption or "", self.folder.read(file, self.format))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProceduralSource:
    """The first ``count`` of the endless procedural clips of a seed."""

    count: int
    seed: int
    frames: int
    size: int
    split: Split = "train"

    @property
    def identity(self) -> Mapping[str, Any]:
        """The arguments."""
        return {
            "type": "procedural",
            "clips": self.count,
            "seed": self.seed,
            "frames": self.frames,
            "size": self.size,
            "split": self.split,
        }

    @property
    def num_videos(self) -> int:
        """All of them."""
        return self.count

    @property
    def num_images(self) -> int:
        """None."""
        return 0

    def captions(self) -> Mapping[str, str]:
        """Every caption of the split."""
        return dict.fromkeys(all_attributes(self.split).captions(), f"the {self.split} split")

    def name(self, place: int) -> str:
        """Its number."""
        return f"{place:08d}"

    def read(self, place: int) -> SourceClip:
        """Draw one clip."""
        clips = render_by_index([place], seed=self.seed, split=self.split, frames=self.frames, size=self.size)
        return SourceClip(self.name(place), clips.captions[0], clips.video[0])
