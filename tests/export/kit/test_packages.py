"""Blocks as packages: what is saved computes what the block computes, and is there as a whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import search_spaces
from latency_models import distinct_blocks
from nas.core.errors import VerificationError
from nas.core.files import sha256_path
from nas.core.scenario import Scenario
from nas.export.kit.blocks import LoweredBlock, lowered_shapes
from nas.export.kit.packages import block_component, write_package
from nas.export.lowering import time_embedding
from nas.export.parity import compute_parity
from nas.models.build import build_block

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.workload import BlockSpec
    from nas.export.lowering import Lowering

SCENARIO = Scenario(frames=2, height=32, width=32, denoising_steps=4)
TINY = {spec.kind: spec for spec in distinct_blocks(search_spaces.get("tiny"), SCENARIO).values()}


def block(kind: str) -> BlockSpec:
    blocks = distinct_blocks(search_spaces.get("tiny"), SCENARIO).values()
    return min((spec for spec in blocks if spec.kind == kind), key=lambda spec: spec.signature)


@pytest.mark.parametrize(("kind", "lowering"), [("resnet", "neural_engine"), ("self_attention_1d", "gpu")])
def test_a_block_becomes_a_package_that_computes_it(kind: str, lowering: Lowering, tmp_path: Path) -> None:
    component, path = block_component(block(kind), lowering=lowering), tmp_path / "packages" / "block.mlpackage"
    path.mkdir(parents=True)
    (path / "of an earlier try").touch()
    written = write_package(component, path, tmp_path / "work")
    assert written.sha256 == sha256_path(path)
    assert written.package_bytes >= 2 * written.parameters
    assert [(name, dtype) for name, _, dtype in written.inputs] == [
        (name, "float16") for name in lowered_shapes(block(kind), lowering=lowering)
    ]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["packages"]
    rows = compute_parity(path, component).rows
    assert min(row.psnr_db for row in rows if row.precision == "float32") >= 60.0


def test_equal_blocks_have_equal_weights() -> None:
    one, other = (block_component(block("conv1d"), lowering="gpu").module.state_dict() for _ in range(2))
    assert all(bool((one[name] == other[name]).all()) for name in one)


def test_a_package_that_fails_its_checks_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise VerificationError("rank 6")

    monkeypatch.setattr("nas.export.kit.packages.require_passed", refuse)
    with pytest.raises(VerificationError, match="rank 6"):
        write_package(block_component(block("conv_in"), lowering="gpu"), tmp_path / "a.mlpackage", tmp_path / "work")
    assert not (tmp_path / "a.mlpackage").exists()


@pytest.mark.parametrize("lowering", ["neural_engine", "gpu"])
@pytest.mark.parametrize("spec", TINY.values(), ids=lambda spec: spec.kind)
def test_a_lowered_block_does_the_work_of_the_block(spec: BlockSpec, lowering: Lowering) -> None:
    torch.manual_seed(0)
    module, examples = build_block(spec)
    lowered = LoweredBlock(spec, module, lowering=lowering)
    shapes = lowered_shapes(spec, lowering=lowering)
    inputs = dict(zip(shapes, examples, strict=True))
    if "time_embedding" in inputs:
        inputs["time_embedding"] = time_embedding(examples[0], spec["channels"])
    if "video" in inputs:
        inputs["video"] = inputs["video"].reshape(shapes["video"])
    if "time" in inputs and lowering == "neural_engine":  # its blocks get the time behind the SiLU that they begin with
        inputs["time"] = torch.nn.functional.silu(inputs["time"]).reshape(shapes["time"])
    with torch.no_grad():
        expected = module(*examples)
        if "time_embedding" in inputs and lowering == "neural_engine":
            expected = torch.nn.functional.silu(expected)
        found = lowered(*inputs.values()).reshape(expected.shape)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
