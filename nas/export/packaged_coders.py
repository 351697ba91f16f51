"""Text encoder and decoder packages in the places of the networks they were exported from, computed on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.core.errors import InputError
from nas.export.decoder import LATENTS, PIXELS
from nas.export.mil.executor import execute, require_known
from nas.export.mil.program import read_program
from nas.export.text_encoder import IDS, STATES
from nas.export.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.export.mil.executor import Precision


class _Packaged(nn.Module):
    """One package with one input and one output."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, path: Path, *, takes: str, gives: str, precision: Precision) -> None:
        super().__init__()
        self._program = read_program(path)
        self._precision: Precision = precision
        self._takes, self._gives = takes, gives
        require_known(self._program)
        function = self._program.function()
        names = tuple(port.name for port in function.inputs)
        if names != (takes,) or function.outputs != (gives,):
            raise InputError(
                f"{path}: takes {', '.join(names)} and gives {', '.join(function.outputs)}, "
                f"needed are {takes} and {gives}"
            )
        self.shape = tuple(size or 1 for size in function.inputs[0].type.shape)

    def compute(self, tensor: Tensor) -> Tensor:
        """The output of one input in the package's shape."""
        return execute(self._program, {self._takes: tensor}, precision=self._precision)[self._gives]


class PackagedText(_Packaged):
    """Captions to text tokens.

    Args:
        path: The ``.mlpackage``.
        tokenizer: Folder of the tokenizer.
        precision: See ``nas.export.mil.executor.execute``.

    Raises:
        InputError: The package or the tokenizer is missing, damaged or something else.
        UnavailableError: coremltools or transformers is missing, or the package cannot be computed here.
    """

    def __init__(self, path: Path, tokenizer: Path, *, precision: Precision = "float16") -> None:
        super().__init__(path, takes=IDS, gives=STATES, precision=precision)
        self._tokenizer = read_tokenizer(tokenizer, num_tokens=self.shape[1])

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Tokens (B, N, D) of sentences.

        Raises:
            ValueError: A word is unknown to a tokenizer of whole words.
        """
        ids = self._tokenizer(captions).to(torch.int32)
        return torch.cat([self.compute(row) for row in ids.split(1)])


class PackagedDecoder(_Packaged):
    """Latents to pixels, as many frames a call as the package takes; see ``PackagedText`` for arguments and errors."""

    def __init__(self, path: Path, *, precision: Precision = "float16") -> None:
        super().__init__(path, takes=LATENTS, gives=PIXELS, precision=precision)

    def forward(self, latents: Tensor) -> Tensor:
        """Pixels (B, T, 3, H, W) in -1..1 of latents (B, T, C, h, w).

        Raises:
            ValueError: The latents have another size than the package takes.
        """
        frames = latents.float().flatten(0, 1)
        if frames.shape[1:] != self.shape[1:]:
            raise ValueError(f"package takes latents of {self.shape[1:]} a frame, got {tuple(frames.shape[1:])}")
        parts = []
        for part in frames.split(self.shape[0]):
            full = torch.cat([part, part[-1:].expand(self.shape[0] - len(part), -1, -1, -1)])
            parts.append(self.compute(full)[: len(part)])
        return torch.cat(parts).unflatten(0, latents.shape[:2]) * 2.0 - 1.0
