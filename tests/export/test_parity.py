from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nas.export.component import example_inputs
from nas.export.mil import execute, first_difference, read_program
from nas.export.mil.twin import side_by_side
from nas.export.package import WEIGHT_FILE
from nas.export.parity import UNTOUCHED, compute_parity, parity_checks
from nas.export.trace import trace
from nas.export.verification import read_reference

from .conftest import Exported, component_of

if TYPE_CHECKING:
    from pathlib import Path

LAYER = "up_blocks.0.resnets.0.conv1"


def altered(exported: Exported, folder: Path, *, factor: float) -> Path:
    """A copy of the package with one weight of ``LAYER`` multiplied."""
    path = shutil.copytree(exported.package, folder / "altered.mlpackage")
    weight = exported.denoiser.get_submodule(LAYER).weight.detach().numpy().astype(np.float16)  # type: ignore[union-attr,operator]  # a convolution
    data = bytearray((path / WEIGHT_FILE).read_bytes())
    at = data.index(weight.tobytes()) + 2 * 1000
    data[at : at + 2] = (np.frombuffer(data, np.float16, 1, at) * np.float16(factor)).tobytes()
    (path / WEIGHT_FILE).write_bytes(data)
    return path


@pytest.mark.parametrize("which", ["exported", "exported_cross"])
def test_every_temporal_kind_computes_what_its_network_computes(which: str, request: pytest.FixtureRequest) -> None:
    found: Exported = request.getfixturevalue(which)
    assert found.model.parity is not None
    as_stored, untouched, half = found.model.parity.rows
    assert as_stored.max_relative < 1e-4  # ten times what float32 sums in another order give
    assert untouched.psnr_db is not None
    assert untouched.psnr_db > 60
    assert as_stored.max_relative < half.max_relative < 1e-2
    assert found.model.parity.first_apart is None


def test_float16_results_can_be_stored_in_float16(exported: Exported) -> None:
    inputs = example_inputs(component_of(exported.denoiser))
    (found,) = execute(read_program(exported.package), inputs, precision="float16").values()
    assert found.equal(found.half().float())


def test_program_needs_the_memory_that_its_weights_take(exported: Exported) -> None:
    report = exported.model.parity
    assert report is not None
    assert report.weight_bytes == report.decompressed_bytes == pytest.approx(2 * exported.model.parameters, rel=0.02)
    assert report.activation_peak_bytes > 0


def test_one_altered_weight_is_found_at_its_layer_by_either_way(exported: Exported, tmp_path: Path) -> None:
    path = altered(exported, tmp_path, factor=1e4)
    report = compute_parity(path, component_of(exported.denoiser))
    failed = [check for check in parity_checks(report) if not check.passed]
    assert f"of layer {LAYER} (" in failed[0].found
    inputs = example_inputs(component_of(exported.denoiser))
    between = first_difference(read_program(exported.package), read_program(path), inputs)
    assert between is not None
    assert report.first_apart is not None
    assert report.first_apart.startswith(between.location)


def test_layers_of_graph_and_program_are_matched_one_for_one(exported: Exported) -> None:
    component = component_of(exported.denoiser)
    compared = side_by_side([read_program(exported.package)], trace(component), example_inputs(component))
    operations = dict(exported.model.operations)
    kinds = ("conv", "einsum", "softmax", "silu", "gelu", "instance_norm")
    assert len(compared.layers) == sum(operations[kind] for kind in kinds)
    assert compared.apart(1e-4) == ()


def test_values_that_are_no_numbers_never_pass(exported: Exported) -> None:
    report = exported.model.parity
    assert report is not None
    rows = tuple(replace(row, max_relative=float("nan"), psnr_db=float("nan")) for row in report.rows)
    assert [check.passed for check in parity_checks(replace(report, rows=rows))] == [False] * 3


def test_weight_altered_too_little_for_the_outputs_is_named_layer_by_layer(exported: Exported, tmp_path: Path) -> None:
    path = altered(exported, tmp_path, factor=1.02)
    component = component_of(exported.denoiser)
    compared = side_by_side([read_program(path)], trace(component), example_inputs(component))
    assert [item.layer for item in compared.apart(1e-3)] == [LAYER]


def test_quick_parity_makes_one_pass_of_each_and_the_psnr_decides(exported: Exported, tmp_path: Path) -> None:
    passes: list[str] = []

    class Said:
        def update(self, done: int, total: int, message: str = "") -> None:
            passes.append(f"{done}/{total} {message}")

    record = tmp_path / "denoiser.safetensors"
    component = component_of(exported.denoiser)
    report = compute_parity(exported.package, component, quick=True, progress=Said(), record=record)
    assert [(row.precision, row.reference) for row in report.rows] == [("float32", UNTOUCHED)]
    assert [check.expected for check in parity_checks(report)] == ["PSNR at least 60 dB"]
    assert passes[0] == "0/2 torch, weights as trained (pass 1 of 2)"
    assert passes[1].startswith("1/2 package in float32 (pass 2 of 2, about ")
    assert read_reference(record).stored == {}
