"""Two packages in a row are the one they were cut from, to the bit."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import torch

from nas.core.errors import InputError, VerificationError
from nas.export.chunks import find_cut, num_chunks, split_package
from nas.export.component import example_inputs
from nas.export.mil import execute, read_program
from nas.export.mil.chain import execute_chain
from nas.export.package import WEIGHT_FILE, read_package
from nas.export.packaged import PackagedDenoiser
from nas.export.shims import repaired_coremltools

from .conftest import Exported, component_of
from .mil.building import unsaved_model

if TYPE_CHECKING:
    from pathlib import Path


def parts_of(exported: Exported, folder: Path) -> tuple[Path, Path]:
    return split_package(shutil.copytree(exported.package, folder / "denoiser.mlpackage"))


@pytest.mark.parametrize("which", ["exported", "exported_cross"])
def test_parts_in_a_row_give_what_the_whole_gives(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found: Exported = request.getfixturevalue(which)
    inputs = example_inputs(component_of(found.denoiser))
    parts = parts_of(found, tmp_path)
    assert [part.name for part in parts] == ["denoiser_1of2.mlpackage", "denoiser_2of2.mlpackage"]
    assert sorted(tmp_path.iterdir()) == sorted(parts)
    whole = execute(read_program(found.package), inputs, precision="float16")
    in_a_row = execute_chain([read_program(part) for part in parts], inputs, precision="float16")
    assert torch.equal(whole["velocity"], in_a_row["velocity"])


def test_every_weight_is_in_one_part_and_each_has_about_half(exported: Exported, tmp_path: Path) -> None:
    whole = read_package(exported.package)
    first, second = map(read_package, parts_of(exported, tmp_path))
    assert first.constants | second.constants == whole.constants
    assert first.weight_bytes + second.weight_bytes == pytest.approx(whole.weight_bytes, rel=0.01)
    assert 0.45 < first.weight_bytes / whole.weight_bytes < 0.55


def test_what_crosses_the_cut_is_float16_and_little(exported: Exported, tmp_path: Path) -> None:
    cut = find_cut(read_program(exported.package).function(), exported.package)
    first, second = map(read_package, parts_of(exported, tmp_path))
    handed = {port.name for port in first.outputs}
    assert handed == {*cut.crossing} == {port.name for port in second.inputs} - {port.name for port in first.inputs}
    assert {port.dtype for port in (*first.outputs, *second.inputs)} == {"float16"}
    assert cut.crossing_bytes == sum(2 * torch.Size(port.shape).numel() for port in first.outputs)
    assert [port.name for port in second.outputs] == ["velocity"]


def test_parts_are_packages_that_coremltools_reads(exported: Exported, tmp_path: Path) -> None:
    parts = parts_of(exported, tmp_path)
    with repaired_coremltools() as coremltools:
        models = [coremltools.models.MLModel(str(part), skip_model_load=True) for part in parts]
        sizes = [len(coremltools.optimize.coreml.get_weights_metadata(model, weight_threshold=64)) for model in models]
    assert all(size > 20 for size in sizes)
    assert [model.short_description[-12:] for model in models] == ["Part 1 of 2.", "Part 2 of 2."]


def test_parts_take_the_place_of_the_network(exported: Exported, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = [port.shape for port in component_of(exported.denoiser).inputs]
    sample, text = (torch.randn(shapes[place], generator=generator) for place in (0, 2))
    times = torch.tensor([700.0])
    whole = PackagedDenoiser(exported.package)(sample, times, text)
    assert torch.equal(PackagedDenoiser(*parts_of(exported, tmp_path))(sample, times, text), whole)


def test_a_missing_weight_file_leaves_the_package_alone(exported: Exported, tmp_path: Path) -> None:
    path = shutil.copytree(exported.package, tmp_path / "denoiser.mlpackage")
    (path / WEIGHT_FILE).unlink()
    with pytest.raises(InputError, match=r"weight\.bin"):
        split_package(path)
    assert [item.name for item in tmp_path.iterdir()] == ["denoiser.mlpackage"]


@pytest.mark.parametrize(
    ("setting", "mb", "expected"), [("auto", 999.0, 1), ("auto", 1001.0, 2), (1, 5000.0, 1), (2, 1.0, 2)]
)
def test_number_of_parts_follows_the_size(setting: object, mb: float, expected: int) -> None:
    assert num_chunks(setting, int(mb * 1e6), chunk_mb=1000.0) == expected  # type: ignore[arg-type]  # a table


def test_a_program_of_one_operation_cannot_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "one.mlpackage"
    unsaved_model({"x": (2,)}, lambda mb, x: mb.relu(x=x, name="y")).save(str(path))
    with pytest.raises(VerificationError, match="cannot be cut in two"):
        split_package(path)
