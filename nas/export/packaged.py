"""A saved Core ML package in the place of the network it was exported from, computed on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.core.errors import InputError
from nas.export.component import INPUT_NAMES, OUTPUT_NAME
from nas.export.lowering import time_embedding
from nas.export.mil.chain import execute_chain
from nas.export.mil.executor import require_known
from nas.export.mil.program import read_program

if TYPE_CHECKING:
    from pathlib import Path

    from nas.export.mil.executor import Precision


class PackagedDenoiser(nn.Module):
    """Calls a package clip by clip, with the arguments of ``VideoUNet.forward``; the sinusoid of the time is made here.

    ``float16`` rounds as the program says, so what comes out is what a phone's arithmetic would give, up to its order
    of summation.

    Args:
        paths: The ``.mlpackage``, or its parts in call order.
        precision: See ``nas.export.mil.executor.execute``.

    Raises:
        InputError: A package is missing, damaged, or they are no denoiser.
        UnavailableError: coremltools is missing, or the packages have operations that cannot be computed here.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, *paths: Path, precision: Precision = "float16") -> None:
        super().__init__()
        self._programs = [read_program(path) for path in paths]
        self._precision: Precision = precision
        made: set[str] = set()
        self.shapes: dict[str, tuple[int, ...]] = {}
        for program in self._programs:
            require_known(program)
            function = program.function()
            wanted = [port for port in function.inputs if port.name not in made]
            self.shapes |= {port.name: tuple(size or 0 for size in port.type.shape) for port in wanted}
            made |= {*function.outputs}
        if {*self.shapes} != {*INPUT_NAMES}:
            names = " and ".join(map(str, paths))
            raise InputError(f"{names}: is no denoiser: its inputs are {', '.join(self.shapes)}")

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Velocity (B, T, C, H, W).

        Raises:
            ValueError: A clip or its text has another shape than the package takes.
        """
        sinusoid = time_embedding(timestep, self.shapes[INPUT_NAMES[1]][-1])
        rows = [
            dict(
                zip(
                    INPUT_NAMES,
                    (tensor[row : row + 1] for tensor in (sample, sinusoid, encoder_hidden_states)),
                    strict=True,
                )
            )
            for row in range(len(sample))
        ]
        for name, tensor in rows[0].items():
            if tuple(tensor.shape) != self.shapes[name]:
                raise ValueError(f"package takes {name} of {self.shapes[name]} for a clip, got {tuple(tensor.shape)}")
        return torch.cat(
            [execute_chain(self._programs, inputs, precision=self._precision)[OUTPUT_NAME] for inputs in rows]
        )
