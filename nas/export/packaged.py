"""A saved Core ML package in the place of the network it was exported from, computed on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.core.errors import InputError
from nas.export.component import INPUT_NAMES, OUTPUT_NAME
from nas.export.mil.executor import execute, require_known
from nas.export.mil.program import read_program

if TYPE_CHECKING:
    from pathlib import Path

    from nas.export.mil.executor import Precision


class PackagedDenoiser(nn.Module):
    """Calls a package clip by clip, with the arguments of ``VideoUNet.forward``.

    ``float16`` rounds as the program says, so what comes out is what a phone's arithmetic would give, up to its order
    of summation.

    Args:
        path: The ``.mlpackage``.
        precision: See ``nas.export.mil.executor.execute``.

    Raises:
        InputError: The package is missing, damaged, or no denoiser.
        UnavailableError: coremltools is missing, or the package has operations that cannot be computed here.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, path: Path, *, precision: Precision = "float16") -> None:
        super().__init__()
        self._program = read_program(path)
        self._precision: Precision = precision
        require_known(self._program)
        ports = self._program.function().inputs
        if tuple(port.name for port in ports) != INPUT_NAMES:
            raise InputError(f"{path}: is no denoiser: its inputs are {', '.join(port.name for port in ports)}")
        self.shapes = {port.name: tuple(port.type.shape) for port in ports}

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Velocity (B, T, C, H, W).

        Raises:
            ValueError: A clip or its text has another shape than the package takes.
        """
        rows = [
            dict(
                zip(
                    INPUT_NAMES,
                    (tensor[row : row + 1] for tensor in (sample, timestep, encoder_hidden_states)),
                    strict=True,
                )
            )
            for row in range(len(sample))
        ]
        for name, tensor in rows[0].items():
            if tuple(tensor.shape) != self.shapes[name]:
                raise ValueError(f"package takes {name} of {self.shapes[name]} for a clip, got {tuple(tensor.shape)}")
        return torch.cat([execute(self._program, inputs, precision=self._precision)[OUTPUT_NAME] for inputs in rows])
