"""The manifest of a bundle: what it keeps, and what reading it finds wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.core.errors import InputError
from nas.export.bundle import BUNDLE_NAME, read_bundle, require_complete, write_bundle
from tests.export.bundles import FILES, made_bundle, write_files

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-1.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path)
    write_bundle(tmp_path, made_bundle(tmp_path))
    return tmp_path


def test_a_manifest_comes_back_as_it_was(folder: Path) -> None:
    bundle = read_bundle(folder)
    assert bundle == made_bundle(folder)
    assert json.loads((folder / BUNDLE_NAME).read_text())["schema"] == "nas/bundle/1"
    require_complete(bundle, folder)


def test_manifests_of_released_versions_are_read(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / BUNDLE_NAME).write_text(GOLDEN.read_text())
    bundle = read_bundle(tmp_path)
    assert [item.name for item in bundle.components] == ["text_encoder", "denoiser", "decoder"]
    assert [package.file.path for package in bundle.components[1].packages] == [
        "denoiser_1of2.mlpackage",
        "denoiser_2of2.mlpackage",
    ]
    assert bundle.sampling.times == (1.0, 0.75, 0.5, 0.25)
    assert bundle.time_embedding is not None
    assert bundle.time_embedding.channels == 48


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_held_against_its_digest(folder: Path, name: str) -> None:
    (folder / name).write_text("another")
    place = name if name.startswith(("licences", "verification")) else name.split("/")[0]
    with pytest.raises(InputError, match=f"1 of the files .* do not fit: {place} has changed since the export"):
        read_bundle(folder)
    read_bundle(folder, digests=False)


def test_all_missing_files_are_named_at_once(folder: Path) -> None:
    (folder / "decoder.mlpackage" / "model").unlink()
    (folder / "decoder.mlpackage").rmdir()
    (folder / "verification" / "denoiser.safetensors").unlink()
    with pytest.raises(InputError, match="do not fit") as caught:
        read_bundle(folder, digests=False)
    assert [problem.message for problem in caught.value.problems] == [
        "verification/denoiser.safetensors is missing",
        "decoder.mlpackage is missing",
    ]


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd"])
def test_files_outside_the_bundle_are_not_read(folder: Path, path: str) -> None:
    manifest = folder / BUNDLE_NAME
    body = json.loads(manifest.read_text())
    body["tokenizer"]["path"] = path
    manifest.write_text(json.dumps(body))
    with pytest.raises(InputError, match=f"{path} lies outside the bundle"):
        read_bundle(folder)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bundle\.json: does not exist"):
        read_bundle(tmp_path)


def test_another_version_is_named(folder: Path) -> None:
    manifest = folder / BUNDLE_NAME
    manifest.write_text(manifest.read_text().replace("nas/bundle/1", "nas/bundle/9"))
    with pytest.raises(InputError, match="schema is 'nas/bundle/9', this version reads 'nas/bundle/1'"):
        read_bundle(folder)


def test_what_a_bundle_lacks_is_named_with_the_reason(folder: Path) -> None:
    bundle = made_bundle(folder, without=("text_encoder", "tokenizer"))
    with pytest.raises(
        InputError,
        match=r"lacks text_encoder \(the network is untrained\), tokenizer \(the network is untrained\)",
    ):
        require_complete(bundle, folder)
