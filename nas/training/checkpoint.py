"""Checkpoints: safetensors for tensors, JSON for the rest, written whole or not at all, the last two kept.

``step-00000200/`` holds ``model``, ``ema`` and ``optimizer`` as safetensors and ``state.json`` with the step, the
place in the data, the state of the random generator and the unfinished means of the metrics.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nas.core.errors import CheckpointError, InputError, UnavailableError
from nas.core.files import read_json, write_json
from nas.core.schema import check_schema, with_schema
from nas.models.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

KEEP = 2
_PARTS = ("model", "ema", "optimizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything a stage needs to go on as if it had never stopped."""

    step: int
    fingerprint: str
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``step-<n>`` under ``folder``, then drop all but the newest two.

    Raises:
        UnavailableError: The disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f".{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for part in _PARTS:
            write_tensors(partial / f"{part}.safetensors", checkpoint.tensors[part])
        body = {"step": checkpoint.step, "fingerprint": checkpoint.fingerprint, "state": dict(checkpoint.state)}
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


def read_checkpoint(path: Path, *, fingerprint: str) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointError: A part is missing or damaged, or it belongs to a stage with other options, data or seed.
    """
    try:
        body = check_schema(read_json(path / "state.json"), "checkpoint", 1, where=str(path / "state.json"))
        step, found, state = int(body["step"]), str(body["fingerprint"]), dict(body["state"])
    except CheckpointError:
        raise
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}", hint=_remove_hint(path)) from error
    if found != fingerprint:
        raise CheckpointError(
            f"{path}: belongs to a stage with other options, network, data or seed",
            hint="choose another folder, or remove this one to train afresh",
        )
    tensors = {}
    for part in _PARTS:
        try:
            tensors[part] = read_tensors(path / f"{part}.safetensors")[0]
        except CheckpointError as error:
            raise CheckpointError(error.message, hint=_remove_hint(path)) from error
    return Checkpoint(step=step, fingerprint=found, tensors=tensors, state=state)


def generator_state(generator: torch.Generator) -> str:
    """State of a random generator as hexadecimal text."""
    return bytes(generator.get_state().tolist()).hex()


def restore_generator(generator: torch.Generator, text: str) -> None:
    """Put a generator back to ``generator_state``.

    Raises:
        CheckpointError: The text is no state of such a generator.
    """
    try:
        generator.set_state(torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8))
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"random state of the checkpoint cannot be used: {error}") from error


def _remove_hint(path: Path) -> str:
    return f"remove {path.name} to go on from the checkpoint before it, or all of them to start the stage afresh"


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
