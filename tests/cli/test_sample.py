"""``nas sample`` and ``nas vbench``: clips as files from a run, a pipeline or a stage; VBench where it is there."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import search_spaces
from nas.cli.main import main
from nas.core.files import write_json
from nas.core.schema import with_schema
from nas.models.build import build_denoiser
from nas.models.caption import CaptionEncoder, StoredCaptions
from nas.pipeline.context import open_run
from nas.pipeline.sample import open_pipeline, write_pipeline
from nas.training.clips import VOCABULARY
from nas.training.codec import fit_codec
from nas.training.encoders import LearnedEncoders
from nas.training.noise import FIXED_TIMES
from nas.training.pipeline import generate_clips, load_pipeline, make_pipeline, save_pipeline
from nas.training.shard_writer import ShardOptions, encode_shards
from nas.training.shards import ShardedClips
from nas.training.sources import ProceduralSource
from nas.training.stage import Kit, StageResult, save_kit
from nas.training.video_files import ClipFormat, read_video

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

CAPTION = "a red circle moving left slowly"
RUN = """
run: {{name: sampled, directory: {place}}}
space: {{name: tiny}}
scenario: {{frames: 8, height: 32, width: 32}}
device: {{name: host-cpu}}
train: {{}}
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def untrained() -> Kit:
    torch.manual_seed(0)
    space = search_spaces.get("tiny")
    return Kit(
        denoiser=build_denoiser(space, space.smallest()),
        captions=CaptionEncoder(vocabulary=VOCABULARY, width=64, num_tokens=12),
        codec=fit_codec(patch=8, channels=16, seed=0, num_clips=32),
        latent_shape=(8, 16, 4, 4),
    )


@pytest.fixture(scope="module")
def pipeline(untrained: Kit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "pipeline"
    save_pipeline(make_pipeline(untrained), folder)
    return folder


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_a_clip_is_written_and_enlarged_for_the_eye(pipeline: Path, tmp_path: Path, ending: str) -> None:
    result = invoke("sample", pipeline, "--caption", CAPTION, "--out", tmp_path / f"clip.{ending}", "--json", "-q")
    assert json.loads(result.stdout) == {
        "clips": [{"file": str(tmp_path / f"clip.{ending}"), "caption": CAPTION, "seed": 0}],
        "steps": 4,
        "guidance": 1.0,
        "calls": 4,
        "packages": [],
    }
    clip = read_video(tmp_path / f"clip.{ending}", ClipFormat(frames=8, size=256, fps=8))
    assert clip.shape == (8, 3, 256, 256)


def test_a_clip_depends_on_its_seed_and_not_on_its_neighbours(pipeline: Path, tmp_path: Path) -> None:
    invoke("sample", pipeline, "--caption", CAPTION, "--count", 2, "--seed", 4, "--out", tmp_path / "both.gif", "-q")
    invoke("sample", pipeline, "--caption", CAPTION, "--seed", 5, "--out", tmp_path / "one.gif", "-q")
    wanted = ClipFormat(frames=8, size=256, fps=8)
    first, second, alone = (read_video(tmp_path / f"{name}.gif", wanted) for name in ("both-0", "both-1", "one"))
    assert np.abs(second.astype(int) - alone).max() <= 2  # batches round differently
    assert not np.array_equal(first, second)


def test_a_stage_before_the_few_steps_samples_as_the_teacher(untrained: Kit, tmp_path: Path) -> None:
    save_kit(tmp_path / "teacher", untrained)
    body = {"stage": "teacher", "fingerprint": "x"}
    write_json(tmp_path / "teacher" / "stage.json", with_schema("training_stage", 1, body))
    out = tmp_path / "clip.gif"
    result = invoke("sample", tmp_path / "teacher", "--caption", CAPTION, "--out", out, "--steps", 2, "--json", "-q")
    facts = json.loads(result.stdout)
    assert (facts["steps"], facts["guidance"], facts["calls"]) == (2, 3.0, 4)


@pytest.fixture
def run(tmp_path: Path, untrained: Kit) -> Path:
    """A run with two trained networks."""
    (tmp_path / "run.yaml").write_text(RUN.format(place=tmp_path / "runs"))
    directory = open_run(str(tmp_path / "run.yaml")).directory.path
    for digest in ("aa11", "bb22"):
        save_pipeline(make_pipeline(untrained), directory / "train" / digest / "pipeline")
        write_json(directory / "train" / digest / "model.json", with_schema("trained_model", 1, {}))
    return tmp_path / "run.yaml"


def test_a_run_with_several_networks_wants_one_named(run: Path, tmp_path: Path) -> None:
    arguments = ("sample", run, "--caption", CAPTION, "--out", tmp_path / "clip.gif", "-q")
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "has 2 trained networks: aa11, bb22" in refused.stderr
    assert invoke(*arguments, "--architecture", "bb").exit_code == 0
    assert "no trained network 'cc'; there are aa11, bb22" in invoke(*arguments, "--architecture", "cc").stderr
    unexported = invoke(*arguments, "--architecture", "bb", "--exported")
    assert unexported.exit_code == 3
    assert "network bb22 has no exported package" in unexported.stderr


def test_a_stage_trained_for_fresh_noise_is_sampled_with_it(untrained: Kit, tmp_path: Path) -> None:
    save_kit(tmp_path, untrained)
    body = {"stage": "adversarial", "options": {"sampler": "renoise"}}
    write_json(tmp_path / "stage.json", with_schema("training_stage", 1, body))
    found = generate_clips(open_pipeline(tmp_path), [CAPTION], first_seed=0)
    wanted, other = (
        generate_clips(make_pipeline(untrained, times=FIXED_TIMES, sampler=sampler), [CAPTION], first_seed=0)
        for sampler in ("renoise", "euler")
    )
    assert np.array_equal(found, wanted)
    assert not np.array_equal(found, other)


@pytest.mark.parametrize(
    ("stage", "steps", "guidance"), [("adversarial", 3, 1.0), ("progressive", 3, 1.0), ("distillation", 25, 3.0)]
)
def test_a_trained_stage_is_kept_with_the_steps_it_is_for(
    untrained: Kit, tmp_path: Path, stage: str, steps: int, guidance: float
) -> None:
    result = StageResult(stage=stage, folder=tmp_path, kit=untrained, steps=1, loss=0.0, seconds=0.0, reused=False)
    write_pipeline(result, tmp_path / "pipeline", times=(1.0, 0.6, 0.2), shards=None)
    kept = load_pipeline(tmp_path / "pipeline").settings
    assert (len(kept.times), kept.guidance) == (steps, guidance)


def test_a_stage_of_shards_is_kept_with_their_fitted_encoders(untrained: Kit, tmp_path: Path) -> None:
    encoders = LearnedEncoders(untrained.codec, untrained.captions)  # type: ignore[arg-type]  # made above
    source = ProceduralSource(count=2, seed=0, frames=8, size=32)
    encode_shards(tmp_path / "shards", source, encoders, options=ShardOptions())
    kit = replace(untrained, captions=ShardedClips(tmp_path / "shards").captions(), codec=None)
    result = StageResult(stage="trajectory", folder=tmp_path, kit=kit, steps=1, loss=0.0, seconds=0.0, reused=False)
    write_pipeline(result, tmp_path / "pipeline", times=(1.0, 0.5), shards=tmp_path / "shards")
    wanted = generate_clips(make_pipeline(untrained, times=(1.0, 0.5)), [CAPTION], first_seed=0)
    assert np.array_equal(generate_clips(open_pipeline(tmp_path / "pipeline"), [CAPTION], first_seed=0), wanted)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--caption", "a red cat", "--out", "clip.gif"), 2, "unknown word 'cat'; known words are ['a', 'blue',"),
        (("--caption", CAPTION, "--out", "clip.avi"), 2, "clip.avi: must end in .gif or .mp4"),
        (("--caption", CAPTION, "--out", "clip.gif", "--device", "cuda"), 6, "torch sees no CUDA device here"),
        (("--caption", CAPTION, "--out", "clip.gif", "--encoder", "gone"), 3, "gone: holds no encoders"),
    ],
)
def test_faults_of_sampling_are_named(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = invoke("sample", pipeline, *arguments, "-q")
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    result = invoke("sample", tmp_path, "--caption", CAPTION, "--out", tmp_path / "clip.gif", "-q")
    assert result.exit_code == 3
    assert str(tmp_path) in result.stderr


def test_a_model_of_stored_text_asks_for_its_encoders(untrained: Kit, tmp_path: Path) -> None:
    encoders = LearnedEncoders(untrained.codec, untrained.captions)  # type: ignore[arg-type]  # made above
    bare = Kit(
        denoiser=untrained.denoiser,
        captions=StoredCaptions(empty=torch.zeros(13, 64)),
        codec=None,  # type: ignore[arg-type]  # a kit of shards
        latent_shape=untrained.latent_shape,
    )
    save_pipeline(make_pipeline(bare, encoder=encoders.identity), tmp_path / "pipeline")
    (tmp_path / "shards").mkdir()
    encoders.save(tmp_path / "shards")
    arguments = ("sample", tmp_path / "pipeline", "--caption", CAPTION, "--out", tmp_path / "clip.gif", "-q")
    refused = invoke(*arguments)
    assert refused.exit_code == 3
    assert "add --encoder with the folder" in refused.stderr
    assert invoke(*arguments, "--encoder", tmp_path / "shards").exit_code == 0


@pytest.fixture
def fake_vbench(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A package of VBench's interface (its README and vbench/__init__.py) that scores by counting videos."""
    calls: list[dict[str, Any]] = []

    class VBench:
        def __init__(self, device: str, full_info_dir: str, output_path: str) -> None:
            self.output_path = output_path
            calls.append({"device": device, "full_info_dir": full_info_dir})

        def evaluate(self, videos_path: str, name: str, dimension_list: list[str], mode: str) -> None:
            from pathlib import Path

            print("noise on stdout")  # noqa: T201  # as it does
            videos = sorted(path.name for path in Path(videos_path).iterdir())
            calls[-1] |= {"videos": videos, "mode": mode}
            rows = {dimension: [len(videos) / 10, []] for dimension in dimension_list}
            Path(self.output_path).mkdir(parents=True)
            write_json(Path(self.output_path) / f"{name}_eval_results.json", rows)

    module = ModuleType("vbench")
    module.VBench = VBench  # type: ignore[attr-defined]  # that is how one fakes a module
    module.__spec__ = type("Spec", (), {"name": "vbench"})()  # type: ignore[assignment]  # find_spec wants one
    monkeypatch.setitem(sys.modules, "vbench", module)
    return calls


def test_vbench_scores_videos_named_by_prompt_and_index(
    pipeline: Path, tmp_path: Path, fake_vbench: list[dict[str, Any]]
) -> None:
    (tmp_path / "prompts.txt").write_text(f"{CAPTION}\n\na blue square standing still\n")
    arguments = ("--prompts", tmp_path / "prompts.txt", "--samples", 2, "--dimension", "motion_smoothness")
    result = invoke("vbench", pipeline, "--out", tmp_path / "out", *arguments, "--json", "-q")
    assert json.loads(result.stdout)["scores"] == {"motion_smoothness": 0.4}
    assert fake_vbench == [
        {
            "device": "cpu",
            "full_info_dir": "",
            "mode": "custom_input",
            "videos": [
                "a blue square standing still-0.mp4",
                "a blue square standing still-1.mp4",
                f"{CAPTION}-0.mp4",
                f"{CAPTION}-1.mp4",
            ],
        }
    ]
    kept = json.loads((tmp_path / "out" / "vbench.json").read_text())
    assert (kept["schema"], kept["scores"]) == ("nas/vbench/1", {"motion_smoothness": 0.4})


def test_vbench_suite_gives_the_prompts_of_its_dimensions(
    pipeline: Path, tmp_path: Path, fake_vbench: list[dict[str, Any]]
) -> None:
    rows = [
        {"prompt_en": CAPTION, "dimension": ["color"]},
        {"prompt_en": "a blue circle standing still", "dimension": ["scene"]},
    ]
    write_json(tmp_path / "full.json", rows)
    arguments = ("--prompts", tmp_path / "full.json", "--dimension", "color", "--samples", 1)
    result = invoke("vbench", pipeline, "--out", tmp_path / "out", *arguments, "-q")
    assert result.exit_code == 0, result.stderr
    assert fake_vbench[0]["mode"] == "vbench_standard"
    assert fake_vbench[0]["full_info_dir"] == str(tmp_path / "full.json")
    assert fake_vbench[0]["videos"] == [f"{CAPTION}-0.mp4"]


def test_without_vbench_it_exits_6_before_any_video_and_says_how(pipeline: Path, tmp_path: Path) -> None:
    result = invoke("vbench", pipeline, "--out", tmp_path / "out", "-q")
    assert result.exit_code == 6
    assert "pip install vbench, or add --videos-only" in result.stderr
    assert not (tmp_path / "out").exists()


def test_videos_alone_need_no_vbench_and_are_not_made_twice(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(CAPTION)
    arguments = ("vbench", pipeline, "--out", tmp_path, "--prompts", tmp_path / "prompts.txt", "--videos-only", "-q")
    assert invoke(*arguments, "--samples", 1).exit_code == 0
    first = (tmp_path / "videos" / f"{CAPTION}-0.mp4").stat().st_mtime_ns
    assert invoke(*arguments, "--samples", 2).exit_code == 0
    assert (tmp_path / "videos" / f"{CAPTION}-0.mp4").stat().st_mtime_ns == first
    assert (tmp_path / "videos" / f"{CAPTION}-1.mp4").is_file()


@pytest.mark.parametrize(
    ("prompts", "dimension", "code", "message"),
    [
        ("a red circle", "beauty", 2, "unknown VBench dimension beauty; known are subject_consistency,"),
        ("a red circle", "color", 2, "VBench judges color on its own prompts only"),
        ("", "color", 3, "prompts.txt: holds no prompt"),
        ("red/green", "motion_smoothness", 3, "prompts.txt: prompt 'red/green' cannot name a video file"),
    ],
)
def test_faults_of_prompts_and_dimensions_are_named(
    pipeline: Path, tmp_path: Path, prompts: str, dimension: str, code: int, message: str
) -> None:
    (tmp_path / "prompts.txt").write_text(prompts)
    arguments = ("--prompts", tmp_path / "prompts.txt", "--dimension", dimension, "--videos-only")
    result = invoke("vbench", pipeline, "--out", tmp_path / "out", *arguments, "-q")
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
