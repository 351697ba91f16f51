"""``nas prune`` from YAML to plan and network, and a run whose space reads the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result

import search_spaces
from nas.cli.main import main
from nas.config.prune import load_prune
from nas.core.errors import ConfigError, InputError
from nas.models.build import build_denoiser
from nas.models.pruned import build_source
from nas.models.unet import VideoUNet
from nas.models.weights import load_image_weights
from nas.pipeline.context import open_run
from nas.pipeline.prune import check_prune
from nas.pipeline.prune_costs import latency_of, price_blocks, problem_of
from search_spaces.plan import read_plan, write_plan
from search_spaces.pruning import full_layout, image_workload, layout_without, removable_units
from search_spaces.snapgen_v import snapgen_v_plan
from search_spaces.sources import SD15_SOURCE, TOY_SOURCE
from tests.pipeline.test_training import write_shards

TOY = """\
run: {name: toy, directory: DIRECTORY}
source: {name: toy_image}
scenario: {frames: 1, height: 32, width: 32}
device: {name: iphone16_pro_max}
budget: {parameters_ratio: 0.45, latency_ratio: 0.7}
data: {type: procedural, clips: 64, held_out: 18}
teacher: {loop: {steps: 2, batch_size: 4}}
robust: {loop: {steps: 2, batch_size: 4}}
importance: {batches: 2, batch_size: 4}
per_round: 5
exchanges: 1
distillation: {loop: {steps: 2, batch_size: 4}}
"""
SD15 = """\
run: {name: full, directory: DIRECTORY}
source: {name: sd15}
scenario: {frames: 16, height: 512, width: 512, compute_units: cpu_and_gpu}
device: {name: iphone16_pro_max}
budget: {parameters: 350000000, latency_ms: 9000}
scores: DIRECTORY/scores.json
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "prune.yaml"
    path.write_text(text.replace("DIRECTORY", str(folder)))
    return path


def nas(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--quiet"])


def scores(folder: Path) -> dict[str, float]:
    """Stand-in scores: nothing was trained."""
    values = {unit.name: 0.01 * (number + 1) for number, unit in enumerate(removable_units(SD15_SOURCE))}
    (folder / "scores.json").write_text(json.dumps(values))
    return values


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("prune")
    result = nas("prune", str(write(folder, TOY)), "--json")
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def test_toy_is_pruned_to_its_limits_end_to_end(pruned: tuple[Path, dict[str, Any]]) -> None:
    folder, report = pruned
    plan = read_plan(folder / "toy" / "plan.yaml")
    assert plan.parameters <= 0.45 * plan.source_parameters
    assert plan.latency is not None
    assert plan.latency.pruned_ms <= 0.7 * plan.latency.source_ms
    network = VideoUNet.from_pretrained(report["network"])
    assert sum(parameter.numel() for parameter in network.parameters()) == plan.parameters == report["parameters"]
    assert {choice["method"] for choice in report["choices"]} == {"greedy", "exact"}
    assert report["choices"][0]["loss_rise"] <= report["choices"][1]["loss_rise"]
    assert plan.scores == "measured on 2 batches of 4 held-out images"
    assert all(unit.loss_rise is not None for unit in plan.units)


def test_finished_pruning_returns_the_same_and_trains_nothing(pruned: tuple[Path, dict[str, Any]]) -> None:
    folder, report = pruned
    before = (folder / "toy" / "metrics.jsonl").read_text(), (folder / "toy" / "removals.jsonl").read_text()
    again = nas("prune", str(folder / "prune.yaml"), "--json")
    assert json.loads(again.stdout) == report
    assert before == ((folder / "toy" / "metrics.jsonl").read_text(), (folder / "toy" / "removals.jsonl").read_text())


def test_other_settings_do_not_go_into_the_same_folder(pruned: tuple[Path, dict[str, Any]]) -> None:
    result = nas("prune", str(pruned[0] / "prune.yaml"), "--set", "run.seed=1")
    assert result.exit_code == 3
    assert "holds a pruning with other settings" in result.stderr


def test_full_size_choice_under_given_scores_meets_both_limits(tmp_path: Path) -> None:
    scores(tmp_path)
    result = nas("prune", str(write(tmp_path, SD15)), "--json", "--set", "exchanges=0")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    plan = read_plan(tmp_path / "full" / "plan.yaml")
    assert plan.scores.startswith("given: ")
    assert plan.parameters <= 350_000_000
    assert report["latency_ms"] <= 9000
    assert "network" not in report
    assert "uncalibrated" in report["latency_origin"]


def test_dry_run_lists_units_and_writes_nothing(tmp_path: Path) -> None:
    scores(tmp_path)
    path = write(tmp_path, SD15)
    result = nas("prune", str(path), "--dry-run", "--json")
    data = json.loads(result.stdout)
    assert data["parameters"] == 859_520_964
    assert data["limits"] == {"latency_ms": 9000.0, "parameters": 350_000_000.0}
    assert [unit["name"] for unit in data["units"]] == [unit.name for unit in removable_units(SD15_SOURCE)]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["prune.yaml", "scores.json"]


def test_latency_of_a_layout_is_that_of_its_own_workload(tmp_path: Path) -> None:
    # Blocks are priced in the whole network; the pruned one's blocks have the same shapes at the same depth.
    scores(tmp_path)
    config, _ = load_prune(write(tmp_path, SD15))
    costs = price_blocks(config, SD15_SOURCE)
    removed = {"level.3", "up_blocks.1.resnets.1", "down_blocks.0.attentions.1", "mid_block.resnets.0"}
    layout = layout_without(SD15_SOURCE, removed)
    from nas.pipeline.prune_costs import _predictor
    from search_spaces.pruning import backbone_of

    spec = backbone_of(SD15_SOURCE, layout, name="pruned")
    price = _predictor(config).price(image_workload(spec, config.scenario.build()))
    assert latency_of(SD15_SOURCE, layout, costs) == pytest.approx(price.latency_ms, rel=1e-6)
    whole = problem_of(config, SD15_SOURCE, costs).costs(())
    assert whole["latency_ms"] == latency_of(SD15_SOURCE, full_layout(SD15_SOURCE), costs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("scores: DIRECTORY/scores.json\n", ""), "'sd15' needs latents of its own VAE"),
        (("scores: DIRECTORY/scores.json\n", "data: {type: shards, path: x}\n"), "fresh weights would give rises"),
        (("name: sd15", "name: sd51"), "source.name: 'sd51' is none of sd15, toy_image"),
        (("name: iphone16_pro_max", "name: iphone61"), "device.name: unknown device 'iphone61'"),
        (("scores.json", "absent.json"), "scores: does not exist"),
    ],
)
def test_faults_are_named_before_anything_is_written(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    scores(tmp_path)
    config, _ = load_prune(write(tmp_path, SD15.replace(*change)))
    with pytest.raises(ConfigError, match=message):
        check_prune(config)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("{}", "needs a limit: latency_ms, latency_ratio, parameters or parameters_ratio"),
        ("{latency_ms: 1.0, latency_ratio: 0.5}", "takes latency_ms or latency_ratio, not both"),
        ("{parameters_ratio: 1.5}", "must be below 1"),
    ],
)
def test_budgets_are_checked(tmp_path: Path, budget: str, message: str) -> None:
    text = SD15.replace("{parameters: 350000000, latency_ms: 9000}", budget)
    with pytest.raises(ConfigError, match=message):
        load_prune(write(tmp_path, text))


def test_limit_that_nothing_meets_ends_in_exit_4(tmp_path: Path) -> None:
    scores(tmp_path)
    result = nas("prune", str(write(tmp_path, SD15)), "--set", "budget.latency_ms=100")
    assert result.exit_code == 4
    assert "the smallest network has latency_ms" in result.stderr


def test_scores_of_other_units_are_refused(tmp_path: Path) -> None:
    values = scores(tmp_path)
    del values["level.3"]
    values["level.9"] = 1.0
    (tmp_path / "scores.json").write_text(json.dumps(values))
    result = nas("prune", str(write(tmp_path, SD15)))
    assert result.exit_code == 3
    assert "1 are missing ['level.3'], 1 are unknown ['level.9']" in result.stderr


def test_weights_and_shards_are_pruned_without_training_the_source(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = build_source(TOY_SOURCE)
    source.save_pretrained(tmp_path / "sd" / "unet")
    write_shards(tmp_path / "shards", width=TOY_SOURCE.text_width, count=24)
    text = TOY.replace("{name: toy_image}", "{name: toy_image, weights: DIRECTORY/sd}")
    text = text.replace(
        "{type: procedural, clips: 64, held_out: 18}", "{type: shards, path: DIRECTORY/shards, held_out: 8}"
    )
    result = nas("prune", str(write(tmp_path, text)), "--json")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "toy" / "teacher").exists()
    report = json.loads(result.stdout)
    plan = read_plan(Path(report["plan"]))
    # The distilled network goes into the space of its plan, as image weights that need no renaming.
    space = search_spaces.get("snapgen_v", plan)
    video = build_denoiser(space, space.smallest())
    copied = load_image_weights(video, Path(report["network"]))
    assert copied.kept_parameters == plan.parameters
    pruned = VideoUNet.from_pretrained(report["network"])
    assert all(torch.equal(value, video.state_dict()[name]) for name, value in pruned.state_dict().items())


# -- a run that reads a plan -------------------------------------------------------------------------------------------

RUN = """\
run: {name: x, directory: DIRECTORY/runs}
space: {name: snapgen_v, backbone: DIRECTORY/plan.yaml}
scenario: {frames: 8, height: 512, width: 512}
device: {name: iphone16_pro_max}
"""


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    from search_spaces.plan import make_plan

    layout = layout_without(SD15_SOURCE, {"level.3"})
    write_plan(tmp_path / "plan.yaml", make_plan(SD15_SOURCE, layout, name="other", method="test"))
    path = tmp_path / "run.yaml"
    path.write_text(RUN.replace("DIRECTORY", str(tmp_path)))
    return path


def test_space_of_a_run_is_that_of_its_plan(planned: Path) -> None:
    digest = read_plan(planned.parent / "plan.yaml").digest
    context = open_run(str(planned))
    assert context.space.identifier == f"snapgen_v-{digest}/1"
    resolved = yaml.safe_load((context.directory.path / "resolved.yaml").read_text())
    assert resolved["space"]["backbone_digest"] == digest
    assert open_run(str(context.directory.path)).space.identifier == context.space.identifier


def test_changed_plan_is_another_run_and_the_old_one_says_so(planned: Path) -> None:
    old = open_run(str(planned)).directory.path
    write_plan(planned.parent / "plan.yaml", snapgen_v_plan())
    new = open_run(str(planned))
    assert new.directory.path != old
    assert new.space.identifier == "snapgen_v/1"
    with pytest.raises(InputError, match="the plan is now 11af460a165b625a, the run began with"):
        open_run(str(old))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("plan.yaml}", "absent.yaml}"), "there is no such pruning plan"),
        (("name: snapgen_v", "name: tiny"), "'tiny' reads no pruning plan"),
    ],
)
def test_plans_that_cannot_be_read_are_faults_of_the_yaml(planned: Path, change: tuple[str, str], message: str) -> None:
    planned.write_text(planned.read_text().replace(*change))
    with pytest.raises(ConfigError, match=rf"2:\d+  space\.backbone: .*{message}"):
        open_run(str(planned))
