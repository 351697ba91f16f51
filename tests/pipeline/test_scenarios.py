"""Architecture and scenario searched together: prices, faults, and what later stages get of a choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from latency_models.phases import PhasePrice, Range
from nas.config.run import load_run
from nas.core.errors import ConfigError
from nas.core.evaluation import Evaluation, Proposal
from nas.core.files import read_json
from nas.core.protocols import SilentProgress
from nas.core.scenario import ScenarioPoint
from nas.pipeline import search, stages
from nas.pipeline.checks import check_run
from nas.pipeline.choice import chosen
from nas.pipeline.context import Context, open_run
from nas.pipeline.costs import additive_costs, latency_range_ms, load_cost_table, load_prices
from nas.pipeline.phases import _of_other_size, _of_other_steps
from nas.pipeline.scenario_checks import scenario_warnings
from nas.pipeline.scenarios import context_at, shape_contexts
from nas.runs.front import read_front
from search_spaces.operators import sample

if TYPE_CHECKING:
    from pathlib import Path

RUN = """\
run: {name: x, directory: DIRECTORY}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32, denoising_steps: 4}
device: {name: iphone16_pro_max, weights: {bits: 8, form: palettised}}
budget: {latency_share: 0.5}
search:
  engine: {type: random}
  evaluations: 12
  batch: 4
  scenario:
    denoising_steps: [2, 4]
    frames: [8, 16]
    size: [[32, 32], [32, 64]]
    weight_bits: [16, 8]
    worth: {denoising_steps: [0, 1], frames: [0, 2], size: [0, 4], weight_bits: [0, -1]}
quality: {type: temporal_capacity}
"""
FEW = RUN.replace("    size: [[32, 32], [32, 64]]\n    weight_bits: [16, 8]\n", "").replace(
    ", size: [0, 4], weight_bits: [0, -1]", ""
)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return begin(tmp_path, RUN)


def begin(folder: Path, text: str) -> Context:
    (folder / "run.yaml").write_text(text.replace("DIRECTORY", str(folder / "runs")))
    return open_run(str(folder / "run.yaml"))


def test_a_candidate_costs_what_its_architecture_does_in_a_run_of_its_scenario(tmp_path: Path) -> None:
    joint = begin(tmp_path, RUN)
    assert joint.joint is not None
    point = ScenarioPoint(denoising_steps=2, frames=16, size=(32, 64), weight_bits=16)
    alone = RUN.partition("search:")[0]
    alone = alone.replace("frames: 8", "frames: 16").replace("width: 32", "width: 64").replace("steps: 4", "steps: 2")
    own = begin(tmp_path, alone.replace(", weights: {bits: 8, form: palettised}", ""))
    inner = joint.space.largest()
    expected = load_cost_table(own).estimate(inner)
    assert load_prices(joint).estimate(joint.joint.join(inner, point)) == expected


def test_bulk_scores_engines_costs_and_single_estimates_agree(tmp_path: Path) -> None:
    context = begin(tmp_path, FEW)
    table, space = load_prices(context), context.search_space
    rng = np.random.default_rng(0)
    options = np.stack([rng.integers(0, len(space.options(slot)), 60) for slot in space.slots()], axis=1)
    scores, costs = table.score(options), additive_costs(table).score(options)
    estimates = [table.estimate(space.from_options(row)) for row in options.tolist()]
    assert scores.latency_ms == pytest.approx([cost.latency_ms for cost in estimates])
    assert scores.latency_high_ms == pytest.approx([cost.latency_interval_ms.high for cost in estimates])
    assert scores.peak_memory_mb == pytest.approx([cost.peak_memory_mb for cost in estimates])
    assert costs.latency_high_ms == pytest.approx(scores.latency_high_ms)
    assert costs.memory_high_mb == pytest.approx(scores.memory_high_mb)


def test_a_share_of_the_latency_is_between_the_cheapest_and_the_dearest_of_all_scenarios(tmp_path: Path) -> None:
    context = begin(tmp_path, FEW)
    table = load_prices(context)
    low, high = latency_range_ms(table, context.search_space)
    rng = context.streams.python("test")
    upper = [table.estimate(sample(context.search_space, rng)).latency_interval_ms.high for _ in range(200)]
    assert low <= min(upper) < max(upper) <= high


@pytest.mark.parametrize(
    "engine", ["random", "model_based", "evolving", "regularised", "optuna", "optuna, sampler: tpe"]
)
def test_engines_search_architecture_and_scenario(tmp_path: Path, engine: str) -> None:
    context = begin(tmp_path, FEW.replace("type: random", f"type: {engine}"))
    folder = context.path("search")
    search.perform(context, folder, SilentProgress())
    front = read_front(folder / "front.json")
    assert front.members
    for member in front.members:
        picked = chosen(context, member)
        steps = picked.point.denoising_steps
        assert f" {steps} steps" in member.cost.scenario
        assert picked.context.scenario.denoising_steps == steps
        context.space.validate(picked.architecture)
        assert member.quality is not None
        stated = sum(value for name, value in member.quality.metrics if name.startswith("stated_worth"))
        assert "worth of denoising_steps, frames stated by the user" in member.quality.fidelity
        assert stated == (steps == 4) + 2 * (picked.point.frames == 16)


def test_without_the_section_candidates_are_plain_architectures(tmp_path: Path) -> None:
    context = begin(tmp_path, RUN.partition("  scenario:\n    den")[0] + "quality: {type: temporal_capacity}\n")
    assert context.search_space is context.space
    search.perform(context, context.path("search"), SilentProgress())
    for member in read_front(context.path("search", "front.json")).members:
        context.space.validate(member.architecture)


def test_what_is_measured_anew_is_every_frames_and_size(context: Context) -> None:
    shapes = [(own.scenario.frames, own.scenario.width) for own in shape_contexts(context)]
    assert shapes == [(8, 32), (8, 64), (16, 32), (16, 64)]
    assert shape_contexts(context)[0] is context


def test_chosen_bits_are_the_devices(context: Context) -> None:
    weights = [context_at(context, ScenarioPoint(weight_bits=bits)).config.device.weights for bits in (16, 8)]
    assert weights[0] is None
    assert weights[1] is not None
    assert (weights[1].bits, weights[1].form) == (8, "palettised")


def test_digests_of_a_choice_name_scenario_and_architecture(context: Context) -> None:
    assert context.joint is not None
    inner = context.space.smallest()
    points = context.joint.points[:2]
    cost = load_cost_table(context).estimate(inner)
    picked = [
        chosen(
            context,
            Evaluation(
                number=0,
                proposal=Proposal(architecture=context.joint.join(inner, point)),
                cost=cost,
                quality=None,
                violations=(),
                state="complete",
            ),
        )
        for point in points
    ]
    assert picked[0].digest != picked[1].digest
    assert picked[0].architecture == picked[1].architecture == inner


FAULTS = [
    ("frames: [8, 16]", "frames: [16, 24]", "must hold the run's own value 8, got 16, 24"),
    ("size: [[32, 32], [32, 64]]", "size: [[32, 32], [32, 60]]", "search.scenario.size: width"),
    ("frames: [8, 16]", "frames: [8, 64]", "search.scenario.frames: frames"),
    ("frames: [8, 16]", "frames: [8, 1]", "must be at least 2, for one frame skips the temporal layers"),
    ("frames: [8, 16]", "frames: [8, 8]", "frames needs one or more different values, got [8, 8]"),
    ("frames: [0, 2]", "frames: [0]", "worth.frames needs one number for each value of frames, 2, got 1"),
    (", weights: {bits: 8, form: palettised}", "", "weights need a form"),
    ("weight_bits: [16, 8]", "weight_bits: [16, 5]", "must be one of 16, 8, 6, 4"),
    ("iphone16_pro_max, weights: {bits: 8, form: palettised}", "host-cpu", "is for packages on a phone"),
    ("type: temporal_capacity", "type: supernet", "a stated worth would count it twice"),
    ("quality: {type: temporal_capacity}", "quality: {type: temporal_capacity}\ncalibrate: {}", "leave out calibrate"),
    ("budget: {", "devices: [{name: iphone15_pro}]\nbudget: {", "each of which states its own weights"),
]


@pytest.mark.parametrize(("old", "new", "message"), FAULTS)
def test_scenarios_that_cannot_be_searched_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in RUN
    with pytest.raises(ConfigError) as raised:
        begin(tmp_path, RUN.replace(old, new))
    assert message in raised.value.message


def test_an_empty_section_is_refused(tmp_path: Path) -> None:
    text = RUN.partition("    denoising_steps: [2")[0].replace("scenario:\n", "scenario: {}\n")
    with pytest.raises(ConfigError, match="needs at least one of denoising_steps, frames, size, weight_bits"):
        begin(tmp_path, text.replace("  scenario: {}\n", "  scenario: {}\n"))


def test_what_nobody_judges_and_nobody_states_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(RUN.replace("frames: [0, 2], ", "") + "export: {compression: {type: none}}\n")
    warnings = scenario_warnings(load_run(path))
    assert len(warnings) == 2
    assert "search.scenario.frames: quality 'temporal_capacity' cannot judge it" in warnings[0]
    assert "the export stage compresses as export.compression says" in warnings[1]
    path.write_text(RUN.replace("frames: [0, 2], ", "") + "export: {}\n")
    assert len(scenario_warnings(load_run(path))) == 1


def test_what_only_the_last_level_judges_needs_no_worth(tmp_path: Path) -> None:
    levels = "quality: {type: levels, levels: [{type: temporal_capacity, price: 0.1}, {type: supernet}]}"
    text = RUN.replace("quality: {type: temporal_capacity}", levels)
    (tmp_path / "stated.yaml").write_text(text)
    check_run(load_run(tmp_path / "stated.yaml"))
    silent = text.replace("denoising_steps: [0, 1], ", "").replace(", weight_bits: [0, -1]", "")
    (tmp_path / "silent.yaml").write_text(silent)
    assert scenario_warnings(load_run(tmp_path / "silent.yaml")) == []


def test_a_plain_run_has_no_warnings(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    config = load_run(path)
    assert scenario_warnings(config) == []
    assert config.search is not None
    assert scenario_warnings(config.model_copy(update={"search": None})) == []


HOST = """\
run: {name: h, directory: DIRECTORY}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32, denoising_steps: 4, precision: float32}
device: {name: host-cpu}
phases: {overhead: {type: profiled}}
profile: {networks: 10, passes: 1, warmup: 1, seconds: 0.002, network_seconds: 0.02}
calibrate: {folds: 5}
search:
  engine: {type: random}
  evaluations: 16
  select: best
  scenario: {denoising_steps: [2, 4], frames: [4, 8], worth: {denoising_steps: [0, 1], frames: [0, 3]}}
quality: {type: temporal_capacity}
closed_loop: {networks: 3}
"""


def test_a_host_is_measured_calibrated_and_closed_at_every_frames(tmp_path: Path) -> None:
    context = begin(tmp_path, HOST)
    stages.perform(context, None, force=False, progress=lambda _name: SilentProgress(), say=lambda _text: None)
    assert context.path("calibrate", "4x32x32", "predictor.json").is_file()
    front = read_front(context.path("search", "front.json"))
    assert {member.cost.origin for member in front.members} == {"predicted"}
    assert all(member.cost.in_domain or "not measured" not in member.cost.domain_note for member in front.members)
    assert front.selection_effect is not None
    closed = read_json(context.path("closed_loop", "closed_loop.json"))
    digests = {row["digest"] for row in closed["rows"]}
    assert len(digests) == 3
    assert digests <= {member.architecture.digest for member in front.members}
    # A generation of 4 steps takes about twice as long as one of 2; a mix-up of scenarios would be off by that factor.
    assert closed["median_error_ratio"] < 0.5


def test_the_samplers_time_is_in_proportion_to_its_steps(tmp_path: Path) -> None:
    context = begin(tmp_path, HOST)
    price = PhasePrice(
        phase="overhead",
        calls=1,
        latency_ms=Range(low=1.0, value=2.0, high=3.0),
        weights_mb=0.0,
        activation_mb=1.0,
        origin="measured",
        source="here",
    )
    fewer = _of_other_steps(price, context_at(context, ScenarioPoint(denoising_steps=2)))
    assert fewer.latency_ms == Range(low=0.5, value=1.0, high=1.5)
    assert (fewer.origin, fewer.in_domain) == ("predicted", True)
    assert "2 steps, measured for 4" in fewer.source
    assert _of_other_steps(price, context) is price


def test_a_stated_decoder_of_other_clips_is_a_proportion_outside_what_is_known(tmp_path: Path) -> None:
    context = begin(tmp_path, HOST)
    price = PhasePrice(
        phase="decoder",
        calls=1,
        latency_ms=Range(low=1.0, value=2.0, high=3.0),
        weights_mb=5.0,
        activation_mb=1.0,
        origin="published",
        source="a paper",
    )
    larger = _of_other_size(price, context_at(context, ScenarioPoint(frames=16, size=(64, 64))))
    assert larger.latency_ms == Range(low=8.0, value=16.0, high=24.0)
    assert (larger.weights_mb, larger.activation_mb) == (5.0, 4.0)
    assert (larger.origin, larger.in_domain) == ("predicted", False)
    assert _of_other_size(price, context) is price
