from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner, Result

from nas.cli.main import main
from nas.core.errors import InputError
from nas.core.files import sha256_path
from nas.export.mil import read_program
from nas.export.package import WEIGHT_FILE
from nas.export.parity import compare_with_reference, parity_checks
from nas.export.verification import Reference, read_reference, reference_path, write_reference
from nas.pipeline.verify_package import VerifyOptions, verify_exported

from .test_parity import LAYER, altered

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Exported


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments), "--quiet"])


@pytest.fixture(scope="module")
def network(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    exported.denoiser.save_pretrained(folder)
    return folder


def alone(exported: Exported, folder: Path) -> Path:
    """The package without what was recorded beside it."""
    return shutil.copytree(exported.package, folder / "denoiser.mlpackage")


def test_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Reference(
        packages=("ab", "cd"),
        inputs={"text": torch.ones(2), "sample": torch.arange(3)},
        trained={"velocity": torch.tensor([math.pi])},
        stored={"velocity": torch.tensor([3.0])},
        inputs_text="ones",
        min_psnr_db=None,
    )
    write_reference(tmp_path / "r.safetensors", written)
    found = read_reference(tmp_path / "r.safetensors")
    assert list(found.inputs) == ["text", "sample"]
    assert found.inputs["sample"].equal(torch.arange(3))
    assert found.trained["velocity"].equal(written.trained["velocity"])
    assert found.stored["velocity"].item() == 3.0
    assert (found.packages, found.inputs_text, found.min_psnr_db) == (("ab", "cd"), "ones", None)


def test_parts_of_one_network_share_a_reference(tmp_path: Path) -> None:
    wanted = tmp_path / "verification" / "denoiser.safetensors"
    assert reference_path(tmp_path / "denoiser_1of2.mlpackage") == wanted
    assert reference_path(tmp_path / "denoiser_2of2.mlpackage") == wanted
    assert reference_path(tmp_path / "denoiser.mlpackage") == wanted


def test_export_records_what_verify_needs(exported: Exported) -> None:
    result = verify(exported.package, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["networks"]
    assert found["verdict"] == "verified"
    assert len(found["checks"]) == 4  # no NaN; float32 twice, float16
    assert all("PSNR" in check["found"] and "cosine" in check["found"] for check in found["checks"][1:])
    assert "Core ML itself was not run" in " ".join(found["remarks"])


def test_package_that_is_not_the_recorded_one_exits_3(exported: Exported, tmp_path: Path) -> None:
    path = altered(exported, tmp_path, factor=1.02)
    shutil.copytree(exported.folder / "verification", tmp_path / "verification")
    (tmp_path / "verification" / "denoiser.safetensors").rename(tmp_path / "verification" / "altered.safetensors")
    result = verify(path)
    assert result.exit_code == 3
    assert "is not the recorded" in result.output


def test_package_alone_is_computed_and_never_called_verified(exported: Exported, tmp_path: Path) -> None:
    result = verify(alone(exported, tmp_path))
    assert result.exit_code == 5
    assert "denoiser: not verified" in result.output
    assert "nothing was compared: no recorded outputs" in result.output


def test_package_with_a_value_that_is_no_number_is_found_without_its_network(
    exported: Exported, tmp_path: Path
) -> None:
    (found,) = verify_exported(str(altered(exported, tmp_path, factor=math.nan)), VerifyOptions())
    assert found.verdict == "differs"
    assert "NaN in 1: altered.mlpackage: main #" in str(found.checks[0].found)


def test_network_folder_verifies_and_bisect_names_an_altered_weight(
    exported: Exported, network: Path, tmp_path: Path
) -> None:
    result = verify(altered(exported, tmp_path, factor=1.02), "--network", network, "--bisect")
    assert result.exit_code == 5
    assert f"missing {LAYER}.weight" in result.output
    assert f"of layer {LAYER} (" in result.output


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--bisect"], 2, "add --network FOLDER"),
        (["--network", "nowhere"], 3, "there is no such network or run"),
        (["--core-ml"], 6, "Core ML itself was not run"),
    ],
)
def test_what_cannot_be_done_is_said(
    exported: Exported, arguments: list[str], exit_code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    result = verify(exported.package, *arguments)
    assert (result.exit_code, message in result.output) == (exit_code, True), result.output


@pytest.mark.parametrize("name", ["none.mlpackage", "model.mlmodel"])
def test_paths_that_are_no_package_exit_3(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.mlmodel").write_bytes(b"model")
    result = verify(tmp_path / name)
    assert result.exit_code == 3
    assert name in result.output


def bundle(exported: Exported, folder: Path, **changed: Any) -> Path:
    """A bundle of one network, as far as verification reads it."""
    shutil.copytree(exported.folder, folder, dirs_exist_ok=True)
    file = {"path": "denoiser.mlpackage", "sha256": sha256_path(exported.package)} | changed
    body = {"schema": "nas/bundle/1", "components": [{"name": "denoiser", "packages": [{"file": file}]}]}
    (folder / "bundle.json").write_text(json.dumps(body))
    return folder


def test_bundle_is_verified_network_by_network(exported: Exported, tmp_path: Path) -> None:
    result = verify(bundle(exported, tmp_path))
    assert result.exit_code == 0, result.output
    assert result.output.startswith("denoiser: verified")


def test_bundle_with_another_digest_exits_3(exported: Exported, tmp_path: Path) -> None:
    result = verify(bundle(exported, tmp_path, sha256="0" * 64))
    assert result.exit_code == 3
    assert "is not the one in bundle.json" in result.output


def test_lossy_packages_are_held_to_their_own_psnr(exported: Exported) -> None:
    recorded = read_reference(reference_path(exported.package))
    programs = [read_program(exported.package)]
    far = {name: item + 0.01 * item.abs().max() for name, item in recorded.trained.items()}
    lossy = Reference(packages=recorded.packages, inputs=recorded.inputs, trained=far, min_psnr_db=30.0)
    report = compare_with_reference(programs, lossy)
    assert [check.passed for check in parity_checks(report)] == [False, False]
    assert [check.passed for check in parity_checks(report, min_psnr_db=30.0)] == [True, True]
    assert [check.passed for check in parity_checks(report, min_psnr_db=50.0)] == [False, True]


def test_denoiser_of_another_architecture_is_refused(exported_cross: Exported, network: Path) -> None:
    with pytest.raises(InputError, match=r"is architecture \w+, the package"):
        verify_exported(str(exported_cross.package), VerifyOptions(network=str(network)))


def test_weight_file_of_another_network_is_refused(
    exported: Exported, exported_cross: Exported, tmp_path: Path
) -> None:
    path = alone(exported, tmp_path)
    shutil.copy(exported_cross.package / WEIGHT_FILE, path / WEIGHT_FILE)
    with pytest.raises(InputError, match=r"weight\.bin: record at byte"):
        verify_exported(str(path), VerifyOptions())


def test_reference_of_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable reference"):
        read_reference(tmp_path / "r.safetensors")
