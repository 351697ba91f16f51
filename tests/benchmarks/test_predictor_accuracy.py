"""The program that compares few-shot predictors, run on a small folder of the same layout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import predictor_accuracy
import pytest
from devbench import load_space
from few_shot_published import TASKS
from few_shot_runs import held_out_groups, left_out_groups
from few_shot_tables import device_means, method_means

from nas.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--spaces", "nb201", "--k", "5", "--draws", "2", "--source-networks", "60", "--tested", "100")
BASELINES = ("--methods", "flops", "source_ridge")


def run(data: Path, out: Path, *more: str) -> dict[str, Any]:
    options = ["--data", str(data), "--out", str(out), *QUICK, *BASELINES, *more]
    return predictor_accuracy.measure(predictor_accuracy.parse_arguments(options))


def without_times(result: dict[str, Any]) -> str:
    kept = {name: result[name] for name in ("methods", "devices", "ceilings")}
    return "\n".join(line for line in json.dumps(kept, indent=1).splitlines() if "cpu_s" not in line)


@pytest.fixture
def test_folder(nb201_folder: Path) -> Path:
    """One new device, and one of a machine that the data folder has."""
    other = nb201_folder / "test"
    other.mkdir()
    latency = pd.read_parquet(nb201_folder / "nb201_latency.parquet")[["arch_idx", "gamma", "beta"]]
    latency.columns = pd.Index(["arch_idx", "delta", "alpha_64"])
    latency.to_parquet(other / "nb201_latency.parquet")
    return other


def test_all_settings_of_a_machine_are_left_out_together(nb201_folder: Path) -> None:
    space = load_space("nb201", [nb201_folder])
    assert space is not None
    groups = {group.label: group for group in left_out_groups(space, None)}
    assert groups["alpha"].targets == ("alpha_1", "alpha_32")
    assert groups["alpha"].sources == ("beta", "gamma")
    assert groups["beta"].sources == ("alpha_1", "alpha_32", "gamma")


def test_held_out_devices_are_never_sources(nb201_folder: Path, test_folder: Path) -> None:
    space = load_space("nb201", [nb201_folder, test_folder])
    assert space is not None
    groups, notices = held_out_groups(space, test_folder, None)
    assert [group.targets for group in groups] == [("delta",)]
    assert groups[0].sources == ("alpha_1", "alpha_32", "beta", "gamma")
    assert notices == ["nb201: 'alpha_64' is left out, its machine 'alpha' is also a source"]


def test_source_ridge_finds_devices_alike_and_the_table_says_so(nb201_folder: Path, tmp_path: Path) -> None:
    result = run(nb201_folder, tmp_path / "out", "--k", "20")
    scores = {one["method"]: one for one in result["methods"]}
    assert scores["source_ridge"]["devices"] == 4
    assert scores["source_ridge"]["draws"] == 2
    assert scores["source_ridge"]["mape_percent"] < scores["flops"]["mape_percent"]
    report = predictor_accuracy.markdown(result)
    assert "| ridge on source latencies | 4 x 2 |" in report
    assert f"seed {result['settings']['seed']}" in report


def test_library_is_judged_with_its_interval_and_both_designs(nb201_folder: Path, tmp_path: Path) -> None:
    result = run(nb201_folder, tmp_path / "out", "--devices", "beta", "--methods", "ours_random", "ours_chosen", "gp")
    scores = {one["method"]: one for one in result["methods"]}
    assert set(scores) == {"ours_random", "ours_chosen", "gp"}
    for method in ("ours_random", "ours_chosen"):
        assert 0.5 < scores[method]["coverage_ratio"] <= 1.0
        assert scores[method]["spearman"] > 0.8
        assert scores[method]["in_domain_ratio"] > 0.5
        assert 0.0 <= scores[method]["choice_by_upper_violation_ratio"] <= 1.0
    assert set(result["timings"][0]["cpu_s"]) == {"ours_random", "gp"}


def test_killed_run_goes_on_and_ends_with_the_same_result(nb201_folder: Path, tmp_path: Path) -> None:
    whole = run(nb201_folder, tmp_path / "whole")
    run(nb201_folder, tmp_path / "cut")
    for path in (tmp_path / "cut" / "predictor_accuracy_cells").glob("nb201-*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:3]) + lines[3][:40])  # the fourth was being written
    assert without_times(run(nb201_folder, tmp_path / "cut")) == without_times(whole)


def test_finished_cells_are_not_run_again(nb201_folder: Path, tmp_path: Path) -> None:
    run(nb201_folder, tmp_path)
    files = sorted((tmp_path / "predictor_accuracy_cells").glob("nb201-*.jsonl"))
    before = [path.read_text() for path in files]
    run(nb201_folder, tmp_path)
    assert [path.read_text() for path in files] == before


def test_report_of_what_is_finished_runs_nothing(nb201_folder: Path, tmp_path: Path) -> None:
    run(nb201_folder, tmp_path, "--methods", "flops", "--devices", "beta")
    result = run(nb201_folder, tmp_path, "--draws", "9", "--report-only")
    assert [(one["method"], one["devices"], one["draws"]) for one in result["methods"]] == [("flops", 1, 2)]


def test_more_draws_leave_the_first_ones_as_they_were(nb201_folder: Path, tmp_path: Path) -> None:
    run(nb201_folder, tmp_path / "one", "--draws", "1")
    run(nb201_folder, tmp_path / "two", "--draws", "2")
    for path in (tmp_path / "one" / "predictor_accuracy_cells").glob("nb201-*.jsonl"):
        first = [json.loads(line) for line in path.read_text().splitlines()]
        again = (tmp_path / "two" / "predictor_accuracy_cells" / path.name).read_text().splitlines()
        both = [json.loads(line) for line in again[: len(first)]]
        assert [one["spearman"] for one in both] == [one["spearman"] for one in first]


def test_cells_of_other_settings_are_not_mixed(nb201_folder: Path, tmp_path: Path) -> None:
    run(nb201_folder, tmp_path)
    with pytest.raises(ConfigError, match="holds cells of another seed"):
        run(nb201_folder, tmp_path, "--seed", "2")


def test_folder_given_as_test_is_judged(nb201_folder: Path, test_folder: Path, tmp_path: Path) -> None:
    result = run(nb201_folder, tmp_path / "out", "--test", str(test_folder))
    assert {one["device"] for one in result["devices"]} == {"delta"}
    assert "nb201: 'alpha_64' is left out, its machine 'alpha' is also a source" in result["notices"]


def test_missing_benchmarks_are_named_and_the_rest_is_run(nb201_folder: Path, tmp_path: Path) -> None:
    result = run(nb201_folder, tmp_path, "--spaces", "nb201", "fbnet")
    assert result["spaces"] == ["nb201"]
    assert any(line.startswith("fbnet: no latencies in") for line in result["notices"])


def test_folder_without_any_benchmark_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no device to judge"):
        run(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "words"),
    [(("--k", "2"), "--k 2: at least 3 networks"), (("--draws", "0"), "--draws 0: must be at least 1")],
)
def test_impossible_options_are_refused(nb201_folder: Path, tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(nb201_folder, tmp_path, *more)


def test_device_with_too_few_measurements_for_k_is_skipped(
    nb201_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nb201_folder / "nb201_latency.parquet"
    table = pd.read_parquet(path)
    table.loc[60:, "beta"] = np.nan
    table.to_parquet(path)
    result = run(nb201_folder, tmp_path, "--k", "5", "100")
    assert {(one["device"], one["k"]) for one in result["devices"] if one["device"] == "beta"} == {("beta", 5)}
    assert "too few for k=100, skipped" in capsys.readouterr().err


def test_two_processes_give_the_result_of_one(nb201_folder: Path, tmp_path: Path) -> None:
    few = ("--draws", "1", "--methods", "flops", "--devices", "beta", "gamma")
    one, two = (run(nb201_folder, tmp_path / jobs, *few, "--jobs", jobs) for jobs in ("1", "2"))
    assert without_times(one) == without_times(two)


def test_means_are_over_draws_first_and_name_the_worst_device() -> None:
    cell = {"space": "nb201", "protocol": "left out", "group": "a", "k": 5, "method": "flops", "coverage_ratio": None}
    cells = [
        cell | {"device": device, "draw": draw, "spearman": value, "choice_by_upper": None}
        for device, draw, value in [("a", 0, 0.4), ("a", 1, 0.6), ("b", 0, 0.9), ("b", 1, 0.9)]
    ]
    (entry,) = method_means(device_means(cells))
    assert entry["spearman"] == pytest.approx(0.7)
    assert entry["worst_spearman"] == {"device": "a", "spearman": pytest.approx(0.5)}
    assert entry["worst_coverage"] is None
    assert entry["coverage_ratio"] is None


def test_published_means_are_those_of_their_sources() -> None:
    # Means over the twelve sets as the comparison in the literature states them: 0.864, 0.648, 0.776.
    means = [np.mean([getattr(task, name) for task in TASKS]) for name in ("nasflat", "help", "multipredict")]
    assert means == pytest.approx([0.864, 0.648, 0.776], abs=6e-4)
