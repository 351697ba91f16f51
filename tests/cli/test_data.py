"""``nas data``: encoding a folder and a run's clips, inspecting, and the errors on the way."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from nas.cli.main import main
from nas.training.video_files import write_mp4

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

RUN = """
run: {name: data, seed: 4}
space: {name: tiny}
scenario: {frames: 4, height: 32, width: 32}
device: {name: host-cpu}
train: {data: {type: procedural, clips: 6}}
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path / "run.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for index in range(3):
        frames = np.random.default_rng(index).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
        write_mp4(folder / f"{index}.mp4", frames, fps=8)
    (folder / "2.mp4").write_bytes(b"")
    (folder / "captions.csv").write_text("file,caption\n0.mp4,a dog runs\n1.mp4,a dog sleeps\n2.mp4,a dog\n9.mp4,x\n")
    return folder


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Shards of a run's clips, and the command's result; fitting the codec takes seconds."""
    folder = tmp_path_factory.mktemp("encoded")
    (folder / "run.yaml").write_text(RUN)
    result = invoke("data", "encode", folder / "run.yaml", "--out", folder / "shards", "--json", "--quiet")
    return folder / "shards", result


def test_a_runs_clips_are_encoded_as_its_yaml_says(encoded: tuple[Path, Result]) -> None:
    result = encoded[1]
    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (facts["clips"], facts["latent_shape"], facts["text_shape"]) == (6, [4, 16, 4, 4], [13, 64])
    assert facts["source"]["seed"] == 4


def test_a_folder_is_encoded_and_inspected(folder: Path, tmp_path: Path) -> None:
    done = invoke("data", "encode", folder, "--out", tmp_path / "shards", "--frames", 4, "--quiet")
    assert done.exit_code == 0, done.output
    result = invoke("data", "inspect", tmp_path / "shards", "--verify", "--json")
    facts = json.loads(result.stdout)
    assert (facts["clips"], facts["skipped"], facts["captions"], facts["verified"]) == (2, 1, 2, True)
    assert facts["skipped_reasons"] == [["no readable video: Invalid data found when processing input", 1]]
    assert ["a dog runs", 1] in facts["most_frequent"]


def test_inspect_exits_3_and_names_a_damaged_shard(encoded: tuple[Path, Result], tmp_path: Path) -> None:
    shutil.copytree(encoded[0], tmp_path / "shards")
    shard = tmp_path / "shards" / "clips-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00")
    assert invoke("data", "inspect", tmp_path / "shards").exit_code == 0
    result = invoke("data", "inspect", tmp_path / "shards", "--verify")
    assert result.exit_code == 3
    assert "clips-00000.safetensors: damaged" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("gone",), 3, "gone: no such folder of clips or YAML"),
        (("clips", "--clips", "4"), 2, "--clips is for procedural clips"),
        (("clips", "--encoder", "clips"), 2, "with --encoder give --frames and --size"),
        (("clips", "--encoder", "clips", "--frames", "4", "--size", "32"), 3, "holds no encoders"),
        (("clips", "--size", "36"), 3, "clips of 36 pixels cannot be encoded: a latent cell is 8 x 8"),
        (("clips", "--frames", "99"), 3, "too short"),
        (("run.yaml", "--fps", "0"), 2, "0.0 is not in the range x>0"),
        (("run.yaml", "--share", "3/2"), 2, "'3/2' is not K/N with K from 1 to N"),
    ],
)
def test_faults_are_named_with_their_exit_code(
    folder: Path, yaml: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert folder.parent == yaml.parent
    monkeypatch.chdir(yaml.parent)
    result = invoke("data", "encode", *arguments, "--out", "shards", "--quiet")
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr


def test_a_run_without_a_train_section_needs_a_count(yaml: Path, tmp_path: Path) -> None:
    yaml.write_text(RUN.replace("train: {data: {type: procedural, clips: 6}}\n", ""))
    result = invoke("data", "encode", yaml, "--out", tmp_path / "shards", "--quiet")
    assert result.exit_code == 2
    assert "add --clips N" in result.stderr
