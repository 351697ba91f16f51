"""Sample clips as data URIs, small enough that the page stays one file a mail server accepts."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nas.core.units import significant

if TYPE_CHECKING:
    from pathlib import Path

    from nas.report.run_files import TrainedRun, TrainingRow

# plotly.js takes 4.8 MB of the page and base64 adds a third, so this keeps the page under 15 MB.
MAX_CLIP_BYTES = 6_000_000
_SIGNATURES = {b"GIF87a": "image/gif", b"GIF89a": "image/gif"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One animated image with what it shows; ``uri`` is None with the reason in ``missing``."""

    name: str
    role: str
    caption: str
    file: str
    width: int = 0
    height: int = 0
    uri: str | None = None
    missing: str = ""

    @property
    def is_strip(self) -> bool:
        """Whether several clips lie side by side, so that a row of their own shows them best."""
        return self.width > 3 * self.height


def clips_of(run_dir: Path, run: TrainedRun, *, byte_limit: int = MAX_CLIP_BYTES) -> tuple[Clip, ...]:
    """Return the clips of one training run: real ones first, then as the evaluation lists them."""
    rows = sorted((row for row in run.rows if row.clip), key=lambda row: row.stage != "real")
    clips: list[Clip] = []
    left = byte_limit
    for row in rows:
        clip, size = _clip(run_dir, run.folder, row, left)
        left -= size
        clips.append(clip)
    return tuple(clips)


def _clip(run_dir: Path, folder: str, row: TrainingRow, left: int) -> tuple[Clip, int]:
    file = f"{folder}/{row.clip}"
    base = (run_dir / folder).resolve()
    path = (base / str(row.clip)).resolve()
    described = partial(Clip, name=row.name, role=row.stage, caption=describe_row(row), file=file)
    if not path.is_relative_to(base):
        return described(missing="lies outside its training folder"), 0
    if not path.is_file():
        return described(missing="file is absent"), 0
    data = path.read_bytes()
    if data[:6] not in _SIGNATURES or len(data) < 10:
        return described(missing="is not a GIF"), 0
    if len(data) > left:
        return described(missing=f"left out, {significant(len(data) / 1e6)} MB; see the file"), 0
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (6, 8))
    uri = f"data:{_SIGNATURES[data[:6]]};base64,{b64encode(data).decode()}"
    return described(width=width, height=height, uri=uri), len(data)


def describe_row(row: TrainingRow) -> str:
    """Return the sampler in words: ``distillation, 4 steps, no guidance, 4 denoiser calls``."""
    if row.stage == "real":
        return "held-out clips, not generated"
    parts = [row.stage]
    if row.steps is not None:
        parts.append(f"{row.steps} step{'' if row.steps == 1 else 's'}")
    if row.guidance is not None:
        parts.append("no guidance" if row.guidance in {0.0, 1.0} else f"guidance {row.guidance:g}")
    if row.sampler and row.sampler != "none":
        parts.append(f"{row.sampler} sampler")
    if row.calls is not None:
        parts.append(f"{row.calls} denoiser call{'' if row.calls == 1 else 's'}")
    return ", ".join(parts)
