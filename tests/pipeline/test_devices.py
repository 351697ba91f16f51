"""Several devices at once: engines, estimates and the budget say the same of every network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from latency_models import CostTable, save_predictor
from latency_models.fleet import Combination, Fleet
from nas.core.protocols import SilentProgress
from nas.core.schema import to_data
from nas.pipeline import feasible, search
from nas.pipeline.context import open_run
from nas.pipeline.costs import additive_costs, latency_range_ms, load_prices
from nas.pipeline.further_devices import device_budgets
from nas.pipeline.show import describe
from nas.pipeline.stages import stale_inputs
from nas.runs.front import read_front
from tests.latency_models.test_cost_table import calibrated
from tests.pipeline.test_checks import found

if TYPE_CHECKING:
    from pathlib import Path

    from nas.pipeline.context import Context

RUN = """\
run: {name: x, directory: DIRECTORY}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32}
device: {name: iphone15_pro}
budget: {latency_share: 0.6, peak_memory_mb: 5.5, package_mb: 2.1}
devices:
  - name: iphone12
    weights: {bits: 8, form: palettised}
    budget: {latency_ms: 34, peak_memory_mb: 5, package_mb: 1.3, probability: 0.9, runs_on: neural_engine}
    weight: 3
  - {name: iphone17_pro, budget: {latency_ms: 25}}
search: {evaluations: 24, batch: 8, devices: MODE}
quality: {type: temporal_capacity}
"""


def opened(folder: Path, mode: str) -> Context:
    file = folder / "run.yaml"
    file.write_text(RUN.replace("DIRECTORY", str(folder / "runs")).replace("MODE", mode))
    return open_run(str(file))


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, CostTable]:
    context = opened(tmp_path_factory.mktemp("devices"), "worst")
    table = load_prices(context)
    assert isinstance(table, CostTable)
    return context, table


@pytest.mark.parametrize("mode", ["worst", "weighted"])
def test_engines_estimates_and_budget_agree(priced: tuple[Context, CostTable], mode: Combination) -> None:
    context, table = priced
    assert table.fleet is not None
    table = table.with_fleet(Fleet(devices=table.fleet.devices, combination=mode))
    budget = context.config.budget.build(
        *latency_range_ms(table, context.space), devices=device_budgets(context.config)
    )
    costs = additive_costs(table, budget)
    rng = np.random.default_rng(0)
    options = rng.integers(table.num_options, size=(80, len(table.num_options)))
    options[rng.random(options.shape) < 0.6] = 0  # few layers, since some of any kind break a limit
    estimates = [table.estimate(context.space.from_options(row)) for row in options.tolist()]
    feasible = [not budget.violations(cost) for cost in estimates]
    assert costs.feasible(options, budget).tolist() == feasible
    assert 5 < sum(feasible) < 75
    np.testing.assert_allclose(costs.score(options).latency_ms, [cost.objective_ms for cost in estimates], rtol=1e-9)
    for cost in estimates:
        every = [cost.latency_ms, *(other.latency_ms for other in cost.devices)]
        mean = np.average(every, weights=[1, 3, 1])
        assert cost.objective_ms == pytest.approx(max(every) if mode == "worst" else mean)
    limits = {(item.device, item.limit) for cost in estimates for item in budget.violations(cost)}
    assert {("iphone12", "latency_ms"), ("iphone12", "package_mb"), ("iphone12", "placement")} <= limits
    assert {("", "package_mb"), ("", "latency_ms")} & limits


def test_front_and_show_list_every_device(priced: tuple[Context, CostTable], monkeypatch: pytest.MonkeyPatch) -> None:
    context, table = priced
    monkeypatch.setattr(feasible, "load_prices", lambda _: table)
    stage = context.path("search")
    stage.mkdir()
    search.perform(context, stage, SilentProgress())
    front = read_front(stage / "front.json")
    assert [item.device for item in front.chances] == ["iphone15_pro", "iphone12", "iphone17_pro"]
    assert all(chance.probability >= 0.9 for chance in front.chances[1].members)
    assert [item.device for item in front.budget.devices] == ["iphone12", "iphone17_pro"]
    latencies = [member.cost.objective_ms for member in front.members]
    assert latencies == sorted(latencies)
    assert max(latencies) < front.reference[0]
    text = describe(context, "front", None)[1]
    assert "on iphone12 (predicted, roofline prior of iphone12 (neural_engine), uncalibrated):" in text
    assert "limits on iphone12: latency at most 34.0 ms" in text
    member = describe(context, "architecture", None)[1]
    assert "latency over all devices:" in member
    assert "on iphone17_pro:" in member


def test_a_changed_predictor_of_another_run_makes_the_search_stale(tmp_path: Path) -> None:
    context = opened(tmp_path, "worst")
    file = tmp_path / "predictor.json"
    file.write_text("first")
    devices = context.config.devices or ()
    changed = (devices[0].model_copy(update={"predictor": str(file)}), *devices[1:])
    config = context.config.model_copy(update={"devices": changed})
    before = dict(to_data(config.model_dump()))
    with context.directory.stage("search", [str(file)], settings={"devices": before["devices"]}):
        pass
    file.write_text("second")
    assert str(file) in stale_inputs(config, context.directory, "search")


GOOD = """\
run: {name: x, directory: DIRECTORY}
space: {name: tiny}
scenario: {frames: 8, height: 32, width: 32}
device: {name: iphone15_pro}
"""


@pytest.mark.parametrize(
    ("devices", "path", "message"),
    [
        ("[{name: iphone12}]", None, ""),
        ("[{name: iphone15_pro}]", "devices.0.name", "named once"),
        ("[{name: iphone12}, {name: iphone_12}]", "devices.1.name", "did you mean 'iphone12'"),
        ("[]", "devices", "at least 1"),
        ("[{name: iphone12, weight: 0}]", "devices.0.weight", "must be above 0"),
        ("[{name: iphone12, budgt: {}}]", "devices.0.budgt", "unknown key; did you mean 'budget'?"),
        ("[{name: iphone12, budget: {latency_mz: 3}}]", "devices.0.budget.latency_mz", "did you mean 'latency_ms'"),
        ("[{name: iphone12, budget: {runs_on: gpu}}]", "devices.0.budget.runs_on", "'gpu' is none of the units"),
        ("[{name: iphone12, weights: {bits: 4}}]", "devices.0.weights", "4-bit weights need a form"),
        ("[{name: iphone12, predictor: none.json}]", "devices.0.predictor", "none.json"),
        ("[{name: iphone12, phases: {decoder: {type: profiled}}}]", "devices.0.phases.decoder", "own device"),
    ],
)
def test_faults_of_further_devices_have_their_place(
    tmp_path: Path, devices: str, path: str | None, message: str
) -> None:
    faults = found(tmp_path, GOOD + f"devices: {devices}\n")
    assert list(faults) == ([] if path is None else [path])
    if path is not None:
        assert faults[path][0] == 5
        assert message in faults[path][1]


def test_a_predictor_of_another_scenario_or_device_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "predictor.json"
    save_predictor(file, calibrated())  # type: ignore[arg-type]  # it is a calibrated one
    text = GOOD + f"devices: [{{name: iphone12, predictor: {file}}}]\n"
    assert "predictor 'block table" in found(tmp_path, text)["devices.0.predictor"][1]
    same = text.replace("width: 32}", "width: 32, precision: float32, compute_units: cpu_only}")
    assert "is of device 'host-cpu', needs 'iphone12'" in found(tmp_path, same)["devices.0.predictor"][1]


def test_phases_stated_for_one_phone_say_nothing_of_another(tmp_path: Path) -> None:
    stated = "{type: stated, latency_ms: 5, low_ms: 4, high_ms: 6, origin: published, source: paper}"
    text = GOOD + f"phases: {{decoder: {stated}}}\ndevices: [{{name: iphone12}}]\n"
    assert "phases.decoder is stated for 'iphone15_pro'" in found(tmp_path, text)["devices.0.phases"][1]
    own = text.replace("{name: iphone12}", f"{{name: iphone12, phases: {{decoder: {stated}}}}}")
    assert found(tmp_path, own) == {}
