"""Named tensors in a safetensors file: written atomically, read with errors that name the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nas.core.errors import CheckpointError
from nas.core.files import write_bytes_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors from any device.

    Raises:
        UnavailableError: The disk is full or the folder cannot be written.
    """
    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    data = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes_atomically(path, save(data, metadata=dict(metadata or {})))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read every tensor of a file and its metadata.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as safetensors: {error}",
            hint="the file is missing or damaged; remove its folder and run the stage again",
        ) from error
