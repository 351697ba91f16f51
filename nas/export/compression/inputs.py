"""What a package is computed on: recorded inputs of a file, or noise of the shapes it takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nas.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nas.export.mil.program import Program

SEED = 0
# Times arrive as 0-1000; 500 is the middle of a denoising.
TIME = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Inputs, what the source network gave for them where that is known, and where both are from."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the inputs' names and bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.inputs.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def noise_inputs(program: Program) -> Recorded:
    """Return standard normal inputs (a time of 500 for ``timestep``), exact in float16.

    Raises:
        InputError: An input has no fixed shape, or holds whole numbers, which noise cannot stand for.
    """
    generator = torch.Generator().manual_seed(SEED)
    found = {}
    for port in program.function().inputs:
        shape = tuple(axis for axis in port.type.shape if axis is not None)
        if len(shape) < len(port.type.shape) or not port.type.element.is_float:
            raise InputError(
                f"{program.path}: input {port.name!r} is {port.type}, which noise cannot stand for",
                hint="give a safetensors file with recorded inputs",
            )
        if port.name == "timestep":
            found[port.name] = torch.full(shape, TIME)
        else:
            found[port.name] = torch.randn(shape, generator=generator).half().float()
    time = f", timestep {TIME:g}" if "timestep" in found else ""
    return Recorded(inputs=found, outputs={}, text=f"standard normal noise (seed {SEED}){time}")


def read_inputs(path: Path, program: Program) -> Recorded:
    """Read inputs, and outputs where they are there, by the program's own names or as ``nas.export.verification`` does.

    Raises:
        InputError: The file cannot be read or lacks an input.
    """
    try:
        tensors: Mapping[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: no readable safetensors file: {error}") from error
    function = program.function()
    names = [port.name for port in function.inputs]
    found = {name: _find(tensors, name, "input") for name in names}
    missing = [name for name, tensor in found.items() if tensor is None]
    if missing:
        raise InputError(
            f"{path}: lacks the input {', '.join(missing)}; it has {', '.join(sorted(tensors)) or 'nothing'}"
        )
    outputs = {name: _find(tensors, name, "trained") for name in function.outputs}
    return Recorded(
        inputs={
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in found.items()
            if tensor is not None
        },
        outputs={name: tensor.float() for name, tensor in outputs.items() if tensor is not None},
        text=f"inputs of {path.name}",
    )


def _find(tensors: Mapping[str, Tensor], name: str, kind: str) -> Tensor | None:
    for key in (f"{kind}.{name}", name):
        if key in tensors:
            return tensors[key]
    return None
