from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import nas.export.denoiser as module
from nas.core.artefacts import ExportedModel, StructureCheck
from nas.core.errors import InputError, UnavailableError, VerificationError
from nas.core.files import read_json, sha256_path
from nas.core.schema import check_schema, from_data
from nas.export import export_denoiser, read_package
from nas.export.checks import check_package, require_passed
from nas.export.package import MODEL_FILE, WEIGHT_FILE

from .conftest import SCENARIO, Exported, component_of, toy_architecture, toy_denoiser

if TYPE_CHECKING:
    from pathlib import Path


def copy_of(exported: Exported, tmp_path: Path) -> Path:
    return shutil.copytree(exported.package, tmp_path / "copy.mlpackage")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def failed(checks: tuple[StructureCheck, ...]) -> list[str]:
    return [check.name for check in checks if not check.passed]


@pytest.mark.parametrize("which", ["exported", "exported_cross"])
def test_every_temporal_kind_exports_and_passes_its_checks(which: str, request: pytest.FixtureRequest) -> None:
    found: Exported = request.getfixturevalue(which)
    assert failed(found.model.checks) == []
    assert len(found.model.checks) == 15


def test_inputs_and_outputs_have_their_names_shapes_and_type(exported: Exported) -> None:
    package = read_package(exported.package)
    assert [str(port) for port in (*package.inputs, *package.outputs)] == [
        "sample (1, 8, 16, 4, 4) float16",
        "time_embedding (1, 48) float16",
        "encoder_hidden_states (1, 12, 64) float16",
        "velocity (1, 8, 16, 4, 4) float16",
    ]


def test_package_is_two_bytes_a_parameter(exported: Exported) -> None:
    parameters = sum(item.numel() for item in exported.denoiser.parameters())
    assert exported.model.parameters == parameters
    assert read_package(exported.package).weight_bytes == pytest.approx(2 * parameters, rel=0.02)


def test_stored_weight_equals_the_rounded_one_at_the_byte(exported: Exported) -> None:
    blob = (exported.package / WEIGHT_FILE).read_bytes()
    weight = exported.denoiser.conv_in.weight.detach().numpy().astype(np.float16)
    assert weight.tobytes() in blob


def test_record_names_the_package_and_its_digest(exported: Exported) -> None:
    data = check_schema(read_json(exported.folder / "export.json"), "export", 1, where="export.json")
    model = from_data(ExportedModel, data)
    assert model == exported.model
    assert model.sha256 == (sha256_path(exported.package),)
    assert model.package_bytes == sum(file.stat().st_size for file in exported.package.rglob("*") if file.is_file())
    assert model.architecture == toy_architecture(
        ("conv1d", "conv3d", "self_attention_1d", "self_attention_3d", "none")
    )


def test_package_carries_what_it_is(exported: Exported) -> None:
    metadata = read_package(exported.package).metadata
    own = {key.removeprefix("mobile-video-nas."): value for key, value in metadata.items()}
    assert own["architecture"] == exported.model.architecture.digest
    assert own["space"] == "tiny/1"
    assert '"down0.0.kind":"conv1d"' in own["choices"]
    assert '"frames":8' in own["scenario"]
    assert '"coremltools":"' in own["versions"]
    assert own["training"].startswith("adversarial, 300 steps")


def test_card_gives_every_figure_its_origin(exported: Exported) -> None:
    card = (exported.folder / "model_card.md").read_text(encoding="utf-8")
    assert "| latency of one generation | 252 ms (234–272, 90 %) | predicted | host-cpu; 8 frames |" in card  # noqa: RUF001  # a range
    assert "| quality, higher is better | 0.67 ± 0.02 | measured | supernet, 64 held-out clips |" in card
    assert "| latency \\| host | 244 ms | measured | host-cpu |" in card
    assert "has not been run on a device" in card
    assert "| licence | Apache-2.0 |" in card


def test_card_of_an_untrained_network_says_so(exported_cross: Exported) -> None:
    card = (exported_cross.folder / "model_card.md").read_text(encoding="utf-8")
    assert "The weights are untrained" in card
    assert "None recorded." in card


def test_nothing_but_what_belongs_there_is_left(exported: Exported) -> None:
    assert names(exported.folder) == ["denoiser.mlpackage", "export.json", "model_card.md", "verification"]
    assert names(exported.package) == ["Data", "Manifest.json"]
    assert names(exported.folder.parent) == ["network"]


def test_another_network_of_the_same_shape_does_not_pass(exported: Exported) -> None:
    package = read_package(exported.package)
    other = toy_denoiser(("conv1d", "conv3d", "self_attention_1d", "self_attention_3d", "none"), seed=1)
    assert failed(check_package(package, component_of(other))) == ["parameter tensors stored bit for bit in float16"]


def test_one_changed_weight_does_not_pass(exported: Exported) -> None:
    package = read_package(exported.package)
    denoiser = toy_denoiser(("conv1d", "conv3d", "self_attention_1d", "self_attention_3d", "none"))
    with torch.no_grad():
        denoiser.conv_out.weight[0, 0, 0, 0] += 0.01
    (check,) = [check for check in check_package(package, component_of(denoiser)) if not check.passed]
    assert "missing conv_out.weight" in check.found


def test_another_architecture_does_not_pass(exported: Exported) -> None:
    package = read_package(exported.package)
    other = component_of(toy_denoiser(("conv1d",) * 5))
    wrong = failed(check_package(package, other))
    assert {"conv operations", "einsum operations", "layer_norm operations"} <= set(wrong)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"largest_rank": 6}, "axes of the largest tensor"),
        ({"specification": 8}, "specification of iOS18"),
        ({"outputs": ()}, "outputs"),
        ({"inputs": ()}, "inputs"),
        ({"weight_bytes": 1_900_000}, "weight bytes, within 1 % or 100 kB"),
    ],
)
def test_each_check_fails_on_its_own_fact(exported: Exported, change: dict[str, Any], check: str) -> None:
    package = replace(read_package(exported.package), **change)
    assert failed(check_package(package, component_of(exported.denoiser))) == [check]


def test_failed_checks_are_all_named(tmp_path: Path) -> None:
    checks = tuple(
        StructureCheck(name=name, expected=1, found=2, passed=passed)
        for name, passed in (("conv operations", False), ("inputs", True), ("outputs", False))
    )
    with pytest.raises(VerificationError, match=r"2 of 3 checks failed: conv operations: expected 1, found 2; outputs"):
        require_passed(checks, tmp_path)


def test_failed_export_leaves_the_old_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: Exported
) -> None:
    def write(_component: Any, path: Path, **_options: Any) -> None:
        shutil.copytree(exported.package, path)

    monkeypatch.setattr(module, "_write_package", write)
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "export.json").write_text("old", encoding="utf-8")
    with pytest.raises(VerificationError, match="checks failed"):
        export_denoiser(toy_denoiser(("conv1d",) * 5), SCENARIO, folder, lowering="neural_engine")
    assert (folder / "export.json").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["network"]


def test_new_export_replaces_the_old_folder_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: Exported
) -> None:
    def write(_component: Any, path: Path, **_options: Any) -> None:
        shutil.copytree(exported.package, path)

    monkeypatch.setattr(module, "_write_package", write)
    folder = tmp_path / "network"
    (folder / "leftover").mkdir(parents=True)
    model = export_denoiser(exported.denoiser, SCENARIO, folder, lowering="neural_engine")
    assert names(folder) == ["denoiser.mlpackage", "export.json", "model_card.md", "verification"]
    assert names(tmp_path) == ["network"]
    assert model.sha256 == exported.model.sha256


def test_too_little_space_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # as shutil has it
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: usage(10, 10, 0))
    with pytest.raises(UnavailableError, match=r"the package needs 2 MB, 0 MB are free"):
        export_denoiser(toy_denoiser(("none",) * 5), SCENARIO, tmp_path / "network", lowering="gpu")


def test_weight_file_that_ends_early_is_refused(exported: Exported, tmp_path: Path) -> None:
    path = copy_of(exported, tmp_path)
    with (path / WEIGHT_FILE).open("r+b") as stream:
        stream.truncate(1_000_000)
    with pytest.raises(InputError, match=r"record at byte \d+"):
        read_package(path)


def test_damaged_record_of_the_weight_file_is_refused(exported: Exported, tmp_path: Path) -> None:
    path = copy_of(exported, tmp_path)
    with (path / WEIGHT_FILE).open("r+b") as stream:
        stream.seek(64)  # the first record behind the header
        stream.write(b"\0\0\0\0")
    with pytest.raises(InputError, match="record at byte 64 is damaged"):
        read_package(path)


@pytest.mark.parametrize("name", [MODEL_FILE, WEIGHT_FILE])
def test_missing_file_is_named(exported: Exported, tmp_path: Path, name: str) -> None:
    path = copy_of(exported, tmp_path)
    (path / name).unlink()
    with pytest.raises(InputError, match=f"no readable {name}"):
        read_package(path)


def test_damaged_model_file_is_refused(exported: Exported, tmp_path: Path) -> None:
    path = copy_of(exported, tmp_path)
    data = (path / MODEL_FILE).read_bytes()
    (path / MODEL_FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged"):
        read_package(path)


def test_model_that_is_no_ml_program_is_refused(exported: Exported, tmp_path: Path) -> None:
    path = copy_of(exported, tmp_path)
    (path / MODEL_FILE).write_bytes(b"")
    with pytest.raises(InputError, match="holds no model of a known kind"):
        read_package(path)
