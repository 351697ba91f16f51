"""A package in the place of its network: the same velocities, clip by clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from nas.core.errors import InputError
from nas.export.packaged import PackagedDenoiser
from tests.export.conftest import component_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tests.export.conftest import Exported


def two_clips(exported: Exported) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [port.shape for port in component_of(exported.denoiser).inputs]
    sample, _, text = (torch.randn(2, *shape[1:], generator=generator) for shape in shapes)
    return sample, torch.tensor([900.0, 250.0]), text


def test_a_batch_gets_the_velocities_of_its_network(exported: Exported) -> None:
    inputs = two_clips(exported)
    with torch.no_grad():
        wanted = exported.denoiser.eval()(*inputs)
    found = PackagedDenoiser(exported.package)(*inputs)
    # 1e-2 is the requirement on float16 packages (nas.export.parity).
    assert (found - wanted).abs().max() <= 1e-2 * wanted.abs().max()


def test_another_size_than_the_packages_is_named(exported: Exported) -> None:
    sample, times, text = two_clips(exported)
    with pytest.raises(ValueError, match=r"package takes sample of \(1, .*\) for a clip, got \(1, 1,"):
        PackagedDenoiser(exported.package)(sample[:, :1], times, text)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.mlpackage"):
        PackagedDenoiser(tmp_path / "gone.mlpackage")
