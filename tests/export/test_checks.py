"""Weights of a package against those of its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from nas.export.checks import as_stored
from nas.export.component import Component, InputPort, OutputPort
from nas.export.coreml import convert, save
from nas.export.package import digest_tensor, read_package
from nas.export.trace import trace

if TYPE_CHECKING:
    from pathlib import Path


class Scaled(nn.Module):
    """A group norm, whose bias becomes a short tensor of the package, and a convolution."""

    def __init__(self, bias: torch.Tensor) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, len(bias))
        self.conv = nn.Conv2d(len(bias), 4, 1)
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 1.5)
            self.norm.bias.copy_(bias)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.conv(self.norm(video))


@pytest.mark.parametrize("channels", [48, 400])
def test_numbers_below_float16_are_stored_as_reckoned(channels: int, tmp_path: Path) -> None:
    bias = torch.randn(channels, generator=torch.Generator().manual_seed(0)) * 1e-7
    bias[0] = 0.0
    component = Component(
        name="scaled",
        module=Scaled(bias).eval(),
        inputs=(InputPort(name="video", shape=(2, channels, 4, 4), dtype="float16", text="Frames."),),
        outputs=(OutputPort(name="scaled", text="Frames."),),
    )
    save(convert(trace(component), component), tmp_path / "scaled.mlpackage")
    assert digest_tensor(as_stored(bias.numpy())) in read_package(tmp_path / "scaled.mlpackage").constants


def test_zero_stays_zero_and_others_keep_their_sign() -> None:
    smallest = 2.0**-24
    found = as_stored(np.array([0.0, 1e-9, -1e-9, 1e-3], dtype=np.float32))
    assert found.tolist() == [0.0, smallest, -smallest, float(np.float16(1e-3))]
