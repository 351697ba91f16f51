"""Stages read each other's files, leave out what cannot run, and start from real image weights when they are given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from nas.core.cost import Budget
from nas.core.errors import CheckpointError, ConfigError
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.models.build import build_denoiser
from nas.models.weights import source_keys
from nas.pipeline.closed_loop import spread_members
from nas.pipeline.context import Context, open_run
from nas.pipeline.costs import latency_range_ms, load_cost_table
from nas.pipeline.export import _network
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


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A run of the toy space priced with the host's prior: no profile, no calibration."""
    lines = SMALL_RUN.replace("DIRECTORY", str(tmp_path)).splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith(("profile:", "calibrate:")))
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


def test_training_outside_the_toy_space_is_refused(tmp_path: Path) -> None:
    text = SMALL_RUN.replace("DIRECTORY", str(tmp_path)).replace("name: tiny", "name: snapgen_v")
    context = begin(tmp_path, text.replace("height: 32, width: 32", "height: 512, width: 512"))
    from nas.pipeline.quality import require_toy_space

    with pytest.raises(ConfigError, match=r"fit space 'tiny', not 'snapgen_v'"):
        require_toy_space(context, "the train stage")


def test_a_size_that_does_not_fit_the_backbone_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    text = SMALL_RUN.replace("DIRECTORY", str(tmp_path)).replace("height: 32", "height: 40")
    with pytest.raises(ConfigError, match=r"scenario\.height: tiny needs a multiple of 16 px, got 40 px"):
        begin(tmp_path, text)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.yaml"]


def test_image_weights_reach_an_untrained_network_and_are_listed(tmp_path: Path) -> None:
    weights = tmp_path / "unet.safetensors"
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
    denoiser, trained = _network(context, architecture, tmp_path)
    assert trained is None
    assert torch.equal(denoiser.conv_in.weight, drawn["conv_in.weight"])
    listed = json.loads((tmp_path / "image_weights.json").read_text())
    assert len(listed["kept"]) == len(drawn)
    assert {entry["key"].split(".")[0] for entry in listed["new"]} == {"temporal_layers"}

    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"unet\.safetensors"):
        _network(context, architecture, tmp_path)


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
