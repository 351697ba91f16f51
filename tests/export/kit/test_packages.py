"""Blocks as packages: what is saved computes what the block computes, and is there as a whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import search_spaces
from latency_models import distinct_blocks
from nas.core.errors import VerificationError
from nas.core.files import sha256_path
from nas.core.scenario import Scenario
from nas.export.kit.packages import block_component, write_package
from nas.export.parity import compute_parity
from search_spaces.layers import block_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.workload import BlockSpec

SCENARIO = Scenario(frames=2, height=32, width=32, denoising_steps=4)


def block(kind: str) -> BlockSpec:
    blocks = distinct_blocks(search_spaces.get("tiny"), SCENARIO).values()
    return min((spec for spec in blocks if spec.kind == kind), key=lambda spec: spec.signature)


@pytest.mark.parametrize("kind", ["resnet", "self_attention_1d"])
def test_a_block_becomes_a_package_that_computes_it(kind: str, tmp_path: Path) -> None:
    component, path = block_component(block(kind)), tmp_path / "packages" / "block.mlpackage"
    path.mkdir(parents=True)
    (path / "of an earlier try").touch()
    written = write_package(component, path, tmp_path / "work")
    assert written.sha256 == sha256_path(path)
    assert written.package_bytes >= 2 * written.parameters
    assert [(name, dtype) for name, _, dtype in written.inputs] == [
        (name, "float16") for name in block_inputs(block(kind))
    ]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["packages"]
    rows = compute_parity(path, component).rows
    assert min(row.psnr_db for row in rows if row.precision == "float32") >= 60.0


def test_equal_blocks_have_equal_weights() -> None:
    one, other = (block_component(block("conv1d")).module.state_dict() for _ in range(2))
    assert all(bool((one[name] == other[name]).all()) for name in one)


def test_a_package_that_fails_its_checks_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise VerificationError("rank 6")

    monkeypatch.setattr("nas.export.kit.packages.require_passed", refuse)
    with pytest.raises(VerificationError, match="rank 6"):
        write_package(block_component(block("conv_in")), tmp_path / "a.mlpackage", tmp_path / "work")
    assert not (tmp_path / "a.mlpackage").exists()
