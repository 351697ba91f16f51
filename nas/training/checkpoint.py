"""Checkpoints: safetensors for tensors, JSON for the rest, written whole or not at all, the last two kept.

``step-00000200/`` holds ``model``, ``ema`` and ``optimizer`` as safetensors, in several files where one would grow
large, and ``state.json`` with the step, the place in the data and the unfinished means of the metrics.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nas.core.errors import CheckpointError, InputError, UnavailableError
from nas.core.files import read_json, write_json
from nas.core.schema import check_schema, with_schema
from nas.models.tensors import read_tensors, write_tensors
from nas.training.compatibility import require_weights_fit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEEP = 2
PARTS = ("model", "ema", "optimizer")
# A file is built in memory before it is written, so this bounds the host memory of a checkpoint (ours).
FILE_BYTES = 2 * 1024**3
NamedTensors = Iterable[tuple[str, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything a stage needs to go on as if it had never stopped."""

    step: int
    fingerprint: str
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def write_checkpoint(
    folder: Path,
    *,
    step: int,
    fingerprint: str,
    parts: Mapping[str, NamedTensors],
    state: Mapping[str, Any],
    writes: bool = True,
    file_bytes: int = FILE_BYTES,
) -> Path:
    """Write ``step-<n>`` under ``folder``, then drop all but the newest two.

    Args:
        folder: Where checkpoints are kept.
        step: Names the checkpoint.
        fingerprint: Of the stage.
        parts: Named tensors of each of ``PARTS``, taken one by one, so that gathering them needs no memory for all.
        state: What fits JSON.
        writes: False in processes that only help to gather the tensors.
        file_bytes: Size at which a part goes on in another file.

    Raises:
        UnavailableError: The disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}.partial"
    if not writes:
        for part in PARTS:
            for _ in parts[part]:
                pass
        return final
    try:
        shutil.rmtree(partial, ignore_errors=True)
        files = {part: _write_part(partial, part, parts[part], file_bytes) for part in PARTS}
        body = {"step": step, "fingerprint": fingerprint, "files": files, "state": dict(state)}
        write_json(partial / "state.json", with_schema("checkpoint", 1, body))
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _flush_folder(folder)
    except OSError as error:
        raise UnavailableError(
            f"{final}: cannot be written: {error.strerror or error}",
            hint="free some space; earlier checkpoints are kept and training can be resumed",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in list_checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def read_checkpoint(path: Path, *, fingerprint: str, model: Mapping[str, Tensor] | None = None) -> Checkpoint:
    """Read one checkpoint.

    ``model`` is what the weights must fit; where they do not, a refusal says how they differ.

    Raises:
        CheckpointError: A part is missing or damaged, or it belongs to a stage with other options, data or seed.
    """
    try:
        body = check_schema(read_json(path / "state.json"), "checkpoint", 1, where=str(path / "state.json"))
        step, found, state = int(body["step"]), str(body["fingerprint"]), dict(body["state"])
        files = body.get("files") or {part: [f"{part}.safetensors"] for part in PARTS}
    except CheckpointError:
        raise
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}", hint=_remove_hint(path)) from error
    if found != fingerprint:
        if model is not None:
            stored = {name: value for file in files["model"] for name, value in read_tensors(path / file)[0].items()}
            require_weights_fit(stored, model, what=str(path))
        raise CheckpointError(
            f"{path}: belongs to a stage with other options, network, data or seed",
            hint="choose another folder, or remove this one to train afresh",
        )
    tensors: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for part in PARTS:
        for name in files[part]:
            try:
                tensors[part].update(read_tensors(path / name)[0])
            except CheckpointError as error:
                raise CheckpointError(error.message, hint=_remove_hint(path)) from error
    return Checkpoint(step=step, fingerprint=found, tensors=tensors, state=state)


def _write_part(folder: Path, part: str, tensors: NamedTensors, file_bytes: int) -> list[str]:
    names = []
    for number, group in enumerate(_groups(tensors, file_bytes)):
        names.append(f"{part}.safetensors" if number == 0 else f"{part}-{number + 1}.safetensors")
        write_tensors(folder / names[-1], group)
    return names


def _groups(tensors: NamedTensors, file_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Tensors on the CPU in groups of at most ``file_bytes``, at least one tensor each."""
    group: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        num_bytes = tensor.numel() * tensor.element_size()
        if group and size + num_bytes > file_bytes:
            yield group
            group, size = {}, 0
        group[name] = tensor.detach().to("cpu")
        size += num_bytes
    if group:
        yield group


def _remove_hint(path: Path) -> str:
    return f"remove {path.name} to go on from the checkpoint before it, or all of them to start the stage afresh"


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
