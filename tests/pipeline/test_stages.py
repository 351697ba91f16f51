"""Stages read each other's files, leave out what cannot run, and start from real image weights when they are given."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from nas.core.cost import Budget
from nas.core.errors import CheckpointError, ConfigError, UnavailableError
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.core.protocols import SilentProgress
from nas.models.build import build_denoiser
from nas.models.weights import source_keys
from nas.pipeline import stages
from nas.pipeline.closed_loop import spread_members
from nas.pipeline.context import Context, open_run
from nas.pipeline.costs import latency_range_ms, load_cost_table
from nas.pipeline.export import source_network
from nas.pipeline.stages import perform, plan
from nas.runs.front import FrontFile
from search_spaces.operators import sample
from tests.integration.small_run import SMALL_RUN

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress


def begin(folder: Path, text: str) -> Context:
    (folder / "run.yaml").write_text(text)
    return open_run(str(folder / "run.yaml"))


def without_sections(text: str, *names: str) -> str:
    """Leave out sections that take one line."""
    return "".join(line for line in text.splitlines(keepends=True) if line.partition(":")[0] not in names)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A run of the toy space priced with the host's prior: no profile, no calibration."""
    text = without_sections(SMALL_RUN.replace("DIRECTORY", str(tmp_path)), "phases", "profile", "calibrate")
    return begin(tmp_path, text.replace("name: host-cpu", "name: iphone16_pro_max"))


def test_the_latency_range_is_that_of_the_space(context: Context) -> None:
    table = load_cost_table(context)
    cheapest_ms, dearest_ms = latency_range_ms(table, context.space)
    rng = context.streams.python("test")
    upper = [table.estimate(sample(context.space, rng)).latency_interval_ms.high for _ in range(100)]
    assert cheapest_ms <= min(upper) < max(upper) <= dearest_ms
    assert cheapest_ms == table.estimate(context.space.smallest()).latency_interval_ms.high


def test_a_stage_that_needs_a_gpu_is_left_out_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = SMALL_RUN.replace("DIRECTORY", str(tmp_path)).replace("train:\n", "train:\n  needs_gpu: true\n")
    context = begin(tmp_path, text)
    said: list[str] = []
    perform(context, ("train",), force=False, progress=_no_progress, say=said.append)
    assert said[-1] == "train: left out: train.needs_gpu is set and torch sees no CUDA device"
    assert context.directory.state("train") == "skipped"
    (row,) = plan(context.config, context.directory, ("train",))
    assert row["text"].startswith("left out")


def _no_progress(_label: str) -> Progress:
    raise AssertionError("a stage that is left out makes no progress")


class Recorder:
    """Stages that only leave a file; ``done`` holds the names of those that ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        monkeypatch.setattr(stages.Stage, "function", lambda stage: partial(self.perform, stage.name))

    def perform(self, name: str, _context: Context, folder: Path, _progress: Progress) -> str:
        self.done.append(name)
        (folder / f"result-{len(self.done)}.txt").write_text(name)
        return "was done"

    def run(self, context: Context, *names: str, force: bool = False) -> list[str]:
        """Perform stages, all of them when none is named; return those that ran."""
        self.done.clear()
        with context.directory.lock():
            perform(context, names or None, force=force, progress=lambda _: SilentProgress(), say=lambda _: None)
        return list(self.done)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


@pytest.fixture
def done(tmp_path: Path, recorder: Recorder) -> Context:
    """A run whose training needs a GPU, with every stage done by the recorder on a machine that has one."""
    text = SMALL_RUN.replace("DIRECTORY", str(tmp_path)).replace("train:\n", "train:\n  needs_gpu: true\n")
    context = begin(tmp_path, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        assert recorder.run(context) == [stage.name for stage in stages.STAGES]
    return context


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize("force", [False, True])
def test_finished_training_is_kept_on_a_machine_without_a_gpu(
    done: Context, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = plan(done.config, done.directory, ("train",))
    assert row["text"] == "done, kept"
    assert recorder.run(done, "train", force=force) == []
    assert done.directory.state("train") == "done"
    done.directory.require("train")


@pytest.mark.usefixtures("gpu")
def test_forcing_one_stage_makes_a_later_run_redo_what_reads_it(done: Context, recorder: Recorder) -> None:
    assert recorder.run(done, "calibrate", force=True) == ["calibrate"]
    states = {name: state.state for name, state in done.directory.states().items()}
    assert (states.pop("profile"), states.pop("calibrate")) == ("done", "done")
    assert set(states.values()) == {"pending"}
    assert recorder.run(done) == ["search", "train", "export", "closed_loop", "report"]
    assert recorder.run(done) == ["report"]


@pytest.mark.usefixtures("gpu")
def test_forcing_a_stage_keeps_what_does_not_read_it(done: Context, recorder: Recorder) -> None:
    recorder.run(done, "train", force=True)
    assert [done.directory.state(name) for name in ("search", "closed_loop", "export")] == ["done", "done", "pending"]
    assert recorder.run(done) == ["export", "report"]


@pytest.mark.usefixtures("gpu")
def test_part_of_a_search_on_an_older_calibration_is_cleared(done: Context, recorder: Recorder) -> None:
    with suppress(KeyboardInterrupt), done.directory.stage("search") as folder:
        (folder / "evaluations.jsonl").write_text("prices of the older calibration")
        raise KeyboardInterrupt
    recorder.run(done, "calibrate", force=True)
    recorder.run(done)
    assert sorted(path.name for path in done.path("search").iterdir()) == ["result-1.txt", "stage.json"]


@pytest.mark.usefixtures("gpu")
def test_forced_stage_killed_before_its_files_are_cleared_goes_on_without_force(
    done: Context, recorder: Recorder
) -> None:
    def die(_folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_clear", die)
        with pytest.raises(KeyboardInterrupt):
            recorder.run(done, force=True)
    assert (done.path("profile") / "result-1.txt").is_file()
    assert {state.state for state in done.directory.states().values()} == {"pending"}
    for stage in stages.STAGES[:-1]:
        (done.path(stage.name) / "old.txt").write_text("left by the kill")
    assert recorder.run(done) == [stage.name for stage in stages.STAGES]
    assert list(done.path().glob("*/old.txt")) == []


@pytest.mark.usefixtures("gpu")
def test_files_put_into_a_stage_that_never_began_are_kept(tmp_path: Path, recorder: Recorder) -> None:
    context = begin(tmp_path, SMALL_RUN.replace("DIRECTORY", str(tmp_path)))
    context.path("profile").mkdir()
    context.path("profile", "records.jsonl").write_text("measured elsewhere")
    recorder.run(context, "profile")
    assert context.path("profile", "records.jsonl").is_file()


def test_trained_weights_of_an_older_search_are_cleared_where_training_is_left_out(
    done: Context, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert recorder.run(done, "search", force=True) == ["search"]
    done.path("train").mkdir(exist_ok=True)
    done.path("train", "old.txt").write_text("left by a kill")
    assert recorder.run(done) == ["export", "closed_loop", "report"]
    assert done.directory.state("train") == "skipped"
    assert not done.path("train").exists()


def test_training_outside_the_toy_space_is_refused(tmp_path: Path) -> None:
    text = without_sections(SMALL_RUN.replace("DIRECTORY", str(tmp_path)), "phases")
    text = text.replace("name: tiny", "name: snapgen_v").replace("train:\n", "train:\n  needs_gpu: true\n")
    context = begin(tmp_path, text.replace("height: 32, width: 32", "height: 512, width: 512"))
    from nas.pipeline.quality import require_toy_space

    with pytest.raises(ConfigError, match=r"fit space 'tiny', not 'snapgen_v'"):
        require_toy_space(context, "quality 'supernet'")


def test_a_size_that_does_not_fit_the_backbone_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    text = SMALL_RUN.replace("DIRECTORY", str(tmp_path)).replace("height: 32", "height: 40")
    with pytest.raises(ConfigError, match=r"scenario\.height: tiny needs a multiple of 16 px, got 40 px"):
        begin(tmp_path, text)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.yaml"]


def test_image_weights_reach_an_untrained_network_and_are_listed(tmp_path: Path) -> None:
    weights = tmp_path / "unet.safetensors"
    weights.touch()  # a run is refused before it begins when the file is missing
    text = SMALL_RUN.replace("DIRECTORY", str(tmp_path)).replace(
        "minimum_os: ios18", f'minimum_os: ios18, image_weights: "{weights}"'
    )
    context = begin(tmp_path, text)
    architecture = context.space.largest()
    plain = build_denoiser(context.space, architecture)
    parameters = dict(plain.named_parameters())
    generator = torch.Generator().manual_seed(0)
    drawn = {
        source: torch.randn(parameters[key].shape, generator=generator) for key, source in source_keys(plain).items()
    }
    save_file(drawn, weights)
    denoiser, trained, listed = source_network(context, architecture.digest, architecture)
    assert trained is None
    assert listed is not None
    assert torch.equal(denoiser.conv_in.weight, drawn["conv_in.weight"])
    assert len(listed.kept) == len(drawn)
    assert {entry.key.split(".")[0] for entry in listed.new} == {"temporal_layers"}

    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"unet\.safetensors"):
        source_network(context, architecture.digest, architecture)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 20])
def test_members_to_measure_are_spread_and_include_the_chosen(context: Context, count: int) -> None:
    table = load_cost_table(context)
    rng = context.streams.python("members")
    members = tuple(
        Evaluation(
            number=number,
            proposal=Proposal(architecture=(architecture := sample(context.space, rng))),
            cost=table.estimate(architecture),
            quality=Quality(score=float(number), estimator="test", fidelity="test"),
            violations=(),
            state="complete",
        )
        for number in range(9)
    )
    front = FrontFile(
        members=members,
        budget=Budget(),
        selected=members[4].architecture.digest,
        selection="knee",
        hypervolume=0.0,
        reference=(1.0, 1.0, 1.0),
        quality_estimator="test",
        screened=0,
        complete=9,
    )
    spread = spread_members(front, count)
    assert len(spread) == min(count, 9)
    assert members[4] in spread
    assert [member.number for member in spread] == sorted({member.number for member in spread})


def test_a_forced_plan_does_finished_stages_again(tmp_path: Path) -> None:
    context = begin(tmp_path, SMALL_RUN.replace("DIRECTORY", str(tmp_path)))
    with context.directory.stage("profile", settings={}):
        pass
    texts = [plan(context.config, context.directory, ("profile",), force=force)[0]["text"] for force in (False, True)]
    assert texts[1] == "done, to do again"
    assert texts[0] != texts[1]


def test_what_a_library_prints_in_a_search_stays_out_of_the_results(
    context: Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noisy(*_arguments: object, **_settings: object) -> None:
        sys.stdout.write("(raylet) The node has been marked dead")
        raise UnavailableError("Ray was lost")

    monkeypatch.setattr("nas.pipeline.search.search", noisy)
    monkeypatch.setattr("nas.pipeline.search.make_levels", lambda *_: ())
    with pytest.raises(UnavailableError):
        perform(context, ("search",), force=False, progress=lambda _: SilentProgress(), say=lambda _: None)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "(raylet)" in printed.err
