"""The train stage: one stage alone from what is on disk, networks by name, clips from shards, faults named first."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from nas.config.run import load_run
from nas.core.errors import ConfigError, InputError, UnavailableError
from nas.core.files import sha256_path, write_json
from nas.core.protocols import SilentProgress
from nas.core.schema import with_schema
from nas.models.tensors import write_tensors
from nas.pipeline.context import Context, TrainChoice, open_run
from nas.pipeline.stages import perform, perform_part, plan
from nas.pipeline.train_choice import chosen_network

if TYPE_CHECKING:
    from pathlib import Path

TOY = """\
run: {name: only, seed: 1, directory: DIRECTORY}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32, precision: float32}
device: {name: host-cpu}
train:
  architecture: smallest
  data: DATA
  loop: {checkpoint_every: 2, log_every: 1, batch_size: 2}
  teacher: {loop: {steps: 3}}
  distillation: {loop: {steps: 2}}
  collection: {num_clips: 4, substeps: 1}
  trajectory: {loop: {steps: 2}}
  adversarial: {loop: {steps: 2}}
  consistency: {loop: {steps: 2}}
  evaluation: {steps: 1, num_clips: 18, num_few_step_clips: 18, feature_steps: 0}
"""
PROCEDURAL = "{type: procedural, clips: 16}"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def begin(folder: Path, data: str = PROCEDURAL, change: tuple[str, str] = ("", "")) -> Context:
    text = TOY.replace("DIRECTORY", str(folder / "runs")).replace("DATA", data).replace(*change)
    (folder / "run.yaml").write_text(text)
    return open_run(str(folder / "run.yaml"))


def alone(context: Context, stage: str) -> str:
    """Run one stage alone and return what was said of it."""
    part = replace(context, train_choice=TrainChoice(only=stage))
    return perform_part(part, "train", progress=lambda _: SilentProgress(), say=lambda _: None)


def write_shards(folder: Path, *, shape: tuple[int, ...] = (8, 16, 4, 4), width: int = 64, count: int = 8) -> None:
    """Random latents and text in the layout of ``nas data encode``."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "latents": torch.randn(count, *shape, generator=generator),
        "text": torch.randn(count, 13, width, generator=generator),
    }
    save_file(tensors, folder / "clips-0.safetensors", metadata={"kind": "clip_shard"})
    write_tensors(folder / "empty.safetensors", {"text": torch.zeros(13, width)})
    shard = folder / "clips-0.safetensors"
    entry = {"file": shard.name, "group": "clips", "count": count}
    body = {
        "latent_shape": list(shape),
        "text_shape": [13, width],
        "dtype": "float32",
        "encoder": {},
        "source": {},
        "num_skipped": 0,
        "num_shortened": 0,
        "shards": [{**entry, "bytes": shard.stat().st_size, "sha256": sha256_path(shard)}],
        "empty_sha256": sha256_path(folder / "empty.safetensors"),
    }
    write_json(folder / "index.json", with_schema("clip_shards", 1, body))


def evaluation(context: Context) -> list[dict[str, Any]]:
    (path,) = context.path("train").glob("*/evaluation.json")
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def test_a_stage_alone_names_every_stage_it_lacks(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    context = begin(tmp_path, f"{{type: shards, path: {tmp_path / 'shards'}, held_out: 3}}")
    with pytest.raises(InputError) as caught:
        alone(context, "adversarial")
    for name in ("teacher", "distillation", "trajectory"):
        assert f"stage '{name}' is not finished" in caught.value.message
    assert "--only teacher" in str(caught.value.hint)


@pytest.mark.slow
def test_stages_run_one_at_a_time_from_what_is_on_disk(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    context = begin(tmp_path, f"{{type: shards, path: {tmp_path / 'shards'}, held_out: 3}}")
    for stage in ("teacher", "distillation", "trajectory", "adversarial", "consistency"):
        assert f"{stage}, loss on held-out clips" in alone(context, stage)
        assert context.directory.state("train") == "pending"
    (folder,) = (path for path in context.path("train").iterdir() if path.is_dir())
    weights = "denoiser/diffusion_pytorch_model.safetensors"
    before = {
        stage: (folder / stage / weights).read_bytes() for stage in ("distillation", "consistency", "adversarial")
    }
    with context.directory.lock():
        perform(context, ("train",), force=False, progress=lambda _: SilentProgress(), say=lambda _: None)
    assert context.directory.state("train") == "done"
    assert {stage: (folder / stage / weights).read_bytes() for stage in before} == before
    assert len(set(before.values())) == 3
    rows = {row["stage"]: row for row in evaluation(context)}
    assert set(rows) == {"teacher", "distillation", "consistency", "trajectory", "adversarial"}
    assert all(row["num_clips"] == 3 and 0.0 < row["metrics"]["flow_loss"] < 10.0 for row in rows.values())
    model = json.loads((folder / "model.json").read_text())
    assert model["stage"] == "adversarial"


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ({"shape": (8, 16, 4, 5)}, "latents are 8 x 16 x 4 x 5, tiny/1 makes 8 x 16 x 4 x 4"),
        ({"width": 32}, "text is 32 wide, tiny/1 takes 64"),
        ({"count": 3}, "holds 3 clips, and train.data.held_out keeps 3 of them back"),
    ],
)
def test_clips_that_do_not_fit_are_named_before_the_first_step(
    tmp_path: Path, shards: dict[str, Any], message: str
) -> None:
    write_shards(tmp_path / "shards", **shards)
    context = begin(tmp_path, f"{{type: shards, path: {tmp_path / 'shards'}, held_out: 3}}")
    with pytest.raises(InputError, match=message):
        alone(context, "teacher")
    assert list(context.path("train").glob("*/teacher")) == []


def test_network_is_chosen_by_name_or_file(tmp_path: Path) -> None:
    context = begin(tmp_path)
    assert chosen_network(context, "largest").architecture == context.space.largest()
    file = tmp_path / "network.json"
    file.write_text(json.dumps(context.space.smallest().to_dict()))
    assert chosen_network(context, str(file)).architecture == context.space.smallest()
    file.write_text("[]")
    with pytest.raises(InputError, match=r"network\.json: is no architecture"):
        chosen_network(context, str(file))
    with pytest.raises(ConfigError, match="'selected', by a search that this YAML lacks"):
        chosen_network(context, "selected")
    with pytest.raises(ConfigError, match="'0123456789abcdef' is no candidate of this run's search and no file"):
        chosen_network(context, "0123456789abcdef")


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (("name: tiny", "name: snapgen_v"), "train.data", "procedural clips are 32 x 32 px"),
        (("  data:", "  stages: []\n  data:"), "train.stages", "names no stage"),
        (("  data:", "  teacher_from: nowhere\n  data:"), "train.teacher_from", "does not exist, got 'nowhere'"),
        (("log_every: 1", "log_every: 0"), "train.loop.log_every", "at least 1, got 0"),
    ],
)
def test_faults_of_the_section_are_named_with_their_key(
    tmp_path: Path, change: tuple[str, str], path: str, message: str
) -> None:
    change = change if "snapgen" not in change[1] else (TOY[TOY.index("space") : TOY.index("device")], SNAPGEN)
    with pytest.raises(ConfigError) as caught:
        begin(tmp_path, change=change)
    assert [(problem.path, message in problem.message) for problem in caught.value.problems] == [(path, True)]


SNAPGEN = "space: {name: snapgen_v}\nscenario: {frames: 8, height: 512, width: 512}\n"


def test_options_for_all_stages_lie_under_a_stages_own(tmp_path: Path) -> None:
    text = TOY.replace("DIRECTORY", "runs").replace("DATA", PROCEDURAL)
    text = text.replace("distillation: {loop: {steps: 2}}", "distillation: {loop: {steps: 2, batch_size: 5}}")
    (tmp_path / "run.yaml").write_text(text)
    train = load_run(tmp_path / "run.yaml").train
    assert train is not None
    assert [train.teacher.loop.batch_size, train.distillation.loop.batch_size] == [2, 5]
    assert train.progressive.loop.batch_size == 2
    assert train.trajectory.loop.learning_rate == 1e-3  # the stage's own default


def test_plan_of_a_run_with_a_part_done_says_it_is_to_do(tmp_path: Path) -> None:
    context = begin(tmp_path)
    (row,) = plan(context.config, context.directory, ("train",))
    assert row["text"] == "pending, to do"


def test_gpu_too_small_for_a_step_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Properties:
        total_memory = 1_000_000_000

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr("nas.pipeline.train.training_device", lambda: torch.device("cpu"))
    context = begin(tmp_path, "{type: shards, path: nowhere}")
    with pytest.raises(UnavailableError, match=r"too little GPU memory: of 1 GB a step needs teacher 1\.5 GB"):
        alone(context, "teacher")
    (written,) = context.path("train").glob("*/memory_plan.json")
    assert [step["stage"] for step in json.loads(written.read_text())["stages"]] == ["teacher"]
