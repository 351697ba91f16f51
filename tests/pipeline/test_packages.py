"""How a phone's networks are converted, weights and lowerings, reaches every price of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from latency_models import device
from latency_models.devices import WeightFormat
from latency_models.predictors.roofline import RooflinePredictor
from nas.core.errors import InputError
from nas.core.protocols import SilentProgress
from nas.pipeline.context import Context, open_run
from nas.pipeline.costs import load_cost_table, load_predictor, prior_device
from nas.pipeline.planning import plan_measurements
from nas.pipeline.show import listing
from nas.pipeline.stages import perform, stale_inputs

if TYPE_CHECKING:
    from pathlib import Path

RUN = """\
run: {name: phone, seed: 2, directory: RUNS}
space: {name: tiny, version: 1}
scenario: {frames: 8, height: 64, width: 64, denoising_steps: 4, precision: float16, compute_units: cpu_and_ne}
device: {name: iphone16_pro_max, SETTINGS}
budget: {latency_share: 0.5}
profile: {networks: 12}
search: {engine: {type: random}, evaluations: 6, batch: 6}
quality: {type: temporal_capacity}
"""
PALETTE = "weights: {bits: 4, form: palettised}"
FUSED = "lowerings: {neural_engine: fused_sdpa}"


def run_of(folder: Path, settings: str = "threads: 1") -> Context:
    folder.mkdir(exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(RUN.replace("RUNS", str(folder / "runs")).replace("SETTINGS", settings))
    return open_run(str(path))


def searched(context: Context) -> None:
    perform(context, ("search",), force=False, progress=lambda _: SilentProgress(), say=lambda _: None)


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        (PALETTE, 4 / 16),  # the A18's engine reads palettes as they are
        ("weights: {bits: 8, form: blockwise}", 8 / 16),
        ("weights: {bits: 16, form: plain}", 1.0),
    ],
)
def test_weights_take_the_memory_of_their_form(tmp_path: Path, settings: str, share: float) -> None:
    plain, own = run_of(tmp_path / "plain"), run_of(tmp_path / "own", settings)
    workload = plain.space.workload(plain.space.largest(), plain.scenario)
    before, after = (load_predictor(context).price(workload).weights_mb for context in (plain, own))
    assert before == pytest.approx(2e-6 * workload.parameters)
    assert after == pytest.approx(share * before, rel=1e-5)
    table = load_cost_table(own)
    estimate = table.estimate(own.space.largest())
    scores = table.score(np.array([own.space.to_options(own.space.largest())]))
    assert estimate.peak_memory_mb == pytest.approx(float(scores.peak_memory_mb[0]))
    activation_mb = load_cost_table(plain).estimate(own.space.largest()).peak_memory_mb - before
    assert estimate.peak_memory_mb == pytest.approx(after + activation_mb)


def test_a_unit_that_cannot_read_a_form_holds_it_expanded(tmp_path: Path) -> None:
    context = run_of(tmp_path, PALETTE)
    workload = context.space.workload(context.space.largest(), context.scenario)
    spec = device("iphone16_pro_max")
    unable = replace(spec, units=tuple(replace(unit, streamed_forms=()) for unit in spec.units))
    price = RooflinePredictor(unable, weights=WeightFormat(bits=4, form="palettised")).price(workload)
    assert price.weights_mb == pytest.approx(2e-6 * workload.parameters, rel=1e-5)


@pytest.mark.parametrize("settings", [PALETTE, FUSED])
def test_prices_are_those_of_the_roofline_with_the_same_settings(tmp_path: Path, settings: str) -> None:
    context = run_of(tmp_path, settings)
    workload = context.space.workload(context.space.largest(), context.scenario)
    by_hand = RooflinePredictor(
        device("iphone16_pro_max"),
        weights=WeightFormat(bits=4, form="palettised") if settings == PALETTE else WeightFormat(),
        lowerings=() if settings == PALETTE else (("neural_engine", "fused_sdpa"),),
    )
    price = load_predictor(context).price(workload)
    assert [block.latency_ms for block in price.blocks] == [
        block.latency_ms for block in by_hand.price(workload).blocks
    ]
    default = RooflinePredictor(device("iphone16_pro_max")).price(workload)
    assert (price.blocks, price.weights_mb) != (default.blocks, default.weights_mb)


def test_a_plan_starts_from_the_same_prior(tmp_path: Path) -> None:
    plain = plan_measurements(run_of(tmp_path / "plain"), 3)
    other = plan_measurements(run_of(tmp_path / "own", FUSED), 3)
    assert plain.front_sd_ratio != other.front_sd_ratio


@pytest.mark.parametrize(
    "settings", [{"weights": {"bits": 4, "form": "palettised"}}, {"lowerings": {"cpu": "fused_sdpa"}}]
)
def test_a_front_priced_for_another_package_is_stale(tmp_path: Path, settings: dict[str, object]) -> None:
    context = run_of(tmp_path)
    searched(context)
    assert stale_inputs(context.config, context.directory, "search") == ()
    resolved = context.path("resolved.yaml")
    data = yaml.safe_load(resolved.read_text())
    data["device"] |= settings
    resolved.write_text(yaml.safe_dump(data))
    other = open_run(str(context.directory.path))
    assert stale_inputs(other.config, other.directory, "search")
    with pytest.raises(InputError, match="stale"):
        searched(other)


def test_a_journal_priced_for_another_package_is_refused(tmp_path: Path) -> None:
    context, other = run_of(tmp_path / "plain"), run_of(tmp_path / "own", PALETTE)
    searched(context)
    other.path("search").mkdir(parents=True)
    journal = context.path("search", "evaluations.jsonl").read_text()
    other.path("search", "evaluations.jsonl").write_text(journal)
    with pytest.raises(InputError, match="price"):
        searched(other)


def test_every_lowering_that_is_listed_can_be_named_in_a_run(tmp_path: Path) -> None:
    rows = listing("lowerings")
    assert {"split_einsum", "split_einsum_v2"} <= {row["name"] for row in rows}
    for number, row in enumerate(rows):
        context = run_of(tmp_path / str(number), f"lowerings: {{gpu: {row['name']}}}")
        assert prior_device(context).unit("gpu").lowering == row["name"]
