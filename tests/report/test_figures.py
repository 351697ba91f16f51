from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nas.core.architecture import Architecture
from nas.core.cost import BlockCost
from nas.report import figures
from nas.report.breakdown import block_role, breakdown_figure
from nas.report.calibration import calibration_figures
from nas.report.run_files import ClosedLoop, ClosedLoopRow, TrainedRun, read_run

if TYPE_CHECKING:
    from pathlib import Path


def test_front_others_and_screened_partition_the_search(finished_run: Path) -> None:
    files = read_run(finished_run)
    figure = figures.pareto_figure(files.front, files.evaluations)
    digests = [point.digest for group in (figure.front, figure.others, figure.screened) for point in group]
    assert sorted(digests) == sorted(item.architecture.digest for item in files.evaluations)
    assert {point.state for point in figure.screened} == {"screened"}
    assert all(point.quality is not None for point in (*figure.front, *figure.others))


def test_front_is_sorted_by_latency_and_holds_the_chosen(finished_run: Path) -> None:
    files = read_run(finished_run)
    figure = figures.pareto_figure(files.front, files.evaluations)
    latencies = [point.latency_ms for point in figure.front]
    assert latencies == sorted(latencies)
    assert figure.selected in {point.digest for point in figure.front}


def test_budget_that_the_search_kept_is_drawn(finished_run: Path) -> None:
    files = read_run(finished_run)
    figure = figures.pareto_figure(files.front, files.evaluations)
    assert (figure.budget_latency_ms, figure.budget_memory_mb) == (420.0, 40.0)


def test_breakdown_keeps_execution_order_and_sums_to_the_latency(finished_run: Path) -> None:
    chosen = read_run(finished_run).selected
    assert chosen is not None
    figure = breakdown_figure(chosen)
    assert [item.block for item in figure.blocks] == [item.block for item in chosen.cost.blocks]
    assert sum(item.latency_ms for item in figure.blocks) == pytest.approx(figure.latency_ms)


def test_a_correction_is_stated_as_what_is_taken_off(finished_run: Path) -> None:
    chosen = read_run(finished_run).selected
    assert chosen is not None
    blocks = (
        BlockCost(block="down0", latency_ms=120.0, memory_mb=2.0),
        BlockCost(block="correction", latency_ms=-20.0, memory_mb=1.0),
    )
    figure = breakdown_figure(replace(chosen, cost=replace(chosen.cost, latency_ms=100.0, blocks=blocks)))
    assert [item.role for item in figure.blocks] == ["backbone", "correction"]
    assert figure.correction_ms == 20.0
    assert breakdown_figure(chosen).correction_ms == 0.0


@pytest.mark.parametrize(
    ("block", "role"),
    [
        ("down0.1.temporal", "temporal"),
        ("down0.1", "backbone"),
        ("down0.1.attention", "backbone"),
        ("overhead", "overhead"),
        ("correction", "correction"),
        ("temporally.named", "backbone"),
    ],
)
def test_role_of_a_block_is_a_part_of_its_name(block: str, role: str) -> None:
    assert block_role(block) == role


def test_agreement_summary_is_worked_out_from_the_points() -> None:
    points = [
        figures.Compared(label="a", measured=100.0, predicted=110.0, low=95.0, high=125.0),
        figures.Compared(label="b", measured=200.0, predicted=150.0, low=140.0, high=160.0),
        figures.Compared(label="c", measured=50.0, predicted=50.5, low=45.0, high=60.0),
        figures.Compared(label="d", measured=100.0, predicted=104.0, low=100.0, high=108.0),
    ]
    figure = figures.agreement("t", "ms", points, device="d", source="f", stated_coverage=0.9)
    assert figure.median_error_ratio == pytest.approx(0.07)  # of 0.10, 0.25, 0.01, 0.04
    assert figure.worst_error_ratio == pytest.approx(0.25)
    assert figure.seen_coverage == 0.75  # b is outside; d's end counts as inside


def test_agreement_refuses_a_measured_zero() -> None:
    point = figures.Compared(label="a", measured=0.0, predicted=1.0, low=0.0, high=2.0)
    with pytest.raises(ValueError, match="measured value is above 0"):
        figures.agreement("t", "ms", [point], device="d", source="f", stated_coverage=None)


def test_curves_are_thinned_by_averaging() -> None:
    records = tuple({"stage": "teacher", "step": step, "loss": float(step % 2)} for step in range(1000))
    (figure,) = figures.curve_figures(TrainedRun(digest="d", folder="train/d", metrics=records, rows=()))
    (curve,) = figure.curves
    assert figure.window == 3
    assert len(curve.values) == 334
    assert sum(curve.values[:332]) / 332 == pytest.approx(0.5)
    assert curve.steps[-1] == 999.0


def test_stages_of_training_come_in_their_order_and_the_loss_first() -> None:
    records = tuple(
        {"stage": stage, "step": 0, "gradient_norm": 1.0, "loss": 2.0} for stage in ("adversarial", "teacher", "own")
    )
    found = figures.curve_figures(TrainedRun(digest="d", folder="train/d", metrics=records, rows=()))
    assert [figure.stage for figure in found] == ["teacher", "adversarial", "own"]
    assert [curve.name for curve in found[0].curves] == ["loss", "gradient_norm"]


def test_values_that_are_not_numbers_are_left_out_of_curves() -> None:
    records = ({"stage": "teacher", "step": 0, "loss": None}, {"stage": "teacher", "step": 1, "loss": 0.5})
    (figure,) = figures.curve_figures(TrainedRun(digest="d", folder="train/d", metrics=records, rows=()))
    assert figure.curves[0].steps == (1.0,)


def test_temporal_layers_are_told_in_words() -> None:
    architecture = Architecture(
        "tiny/1",
        {
            "down0.0.temporal.kind": "conv1d",
            "down0.0.temporal.kernel": 3,
            "down0.0.temporal.width": 0.5,
            "mid.0.temporal.kind": "none",
        },
    )
    assert figures.temporal_layers(architecture) == (("down0.0", "conv1d (kernel 3, width 0.5)"), ("mid.0", "none"))
    assert figures.summarise(architecture) == "down0.0 conv1d (kernel 3, width 0.5)"


def test_cross_validation_reports_coverage_of_intervals_made_without_each_network(finished_run: Path) -> None:
    calibration = read_run(finished_run).calibration
    assert calibration is not None
    latency, memory = calibration_figures(calibration)
    assert latency.seen_coverage == calibration["latency_error"]["coverage"]
    assert memory.median_error_ratio == pytest.approx(0.02)
    assert memory.stated_coverage is None


def test_agreement_with_a_measured_report_of_the_calibration_package() -> None:
    from latency_models.block_errors import BlockCheck
    from latency_models.calibration import CalibrationReport
    from latency_models.conformal import ErrorParts
    from latency_models.observations import RecordCounts
    from latency_models.reporting import NetworkResult, PooledGroup, summarise_errors

    row = NetworkResult(
        subject="a",
        fold=0,
        measured_ms=100.0,
        predicted_ms=90.0,
        low_ms=80.0,
        high_ms=99.0,
        measured_memory_mb=None,
        predicted_memory_mb=9.0,
        memory_low_mb=8.0,
        memory_high_mb=10.0,
    )
    report = CalibrationReport(
        device="host-cpu",
        scenario="s",
        predictor="p",
        denoiser_calls=4,
        num_blocks=1,
        num_networks=1,
        networks=(row,),
        latency_error=summarise_errors([(100.0, 90.0, 80.0, 99.0)], coverage=None, stated=0.9),
        memory_error=None,
        machine_swing_ratio=1.3,
        worst_blocks=(),
        coefficients=(),
        records=RecordCounts(throttled_records=3, drifting_records=1),
        outliers=("slow",),
        groups=(
            PooledGroup(os_build="22A", compute_unit="cpu", num_records=80, ratio=1.0, ratio_sd=0.0),
            PooledGroup(os_build="23B", compute_unit="cpu", num_records=5, ratio=1.2, ratio_sd=0.013),
        ),
        num_infeasible=2,
        num_bounds=4,
        latency_error_parts=ErrorParts(model_ratio=0.006, repeat_ratio=0.015, shift_ratio=0.002),
        block_check=BlockCheck(
            stated_coverage=0.9,
            num_repeated=56,
            repeat_ratio=1.08,
            repeat_coverage=0.91,
            num_priced=56,
            prior_ratio=1.3,
            prior_coverage=0.92,
        ),
    )
    (figure,) = calibration_figures(report.to_dict())
    assert "0.60 % what the model misses, 1.5 % one reading, 0.20 % what all networks of a pass" in figure.note
    assert "measured ones reach 8.0 % beyond their time and hold 91 % of fresh readings" in figure.note
    assert "priced without a measurement reach to 1.30 times it and hold 92 %" in figure.note
    assert figure.median_error_ratio == pytest.approx(0.1)
    assert figure.seen_coverage == 0.0
    assert "took 1.30 times as long" in figure.note
    assert "23B on cpu takes 1.20 times as long as the best known (standard deviation 1.3 %, 5 records)" in figure.note
    assert "outliers: slow." in figure.note
    assert "3 records taken hot, 1 that drifted" in figure.note
    assert "4 measurements were stopped at a limit, 2 blocks or networks did not compile" in figure.note


def test_coverage_after_the_correction_for_selection_is_said() -> None:
    row = ClosedLoopRow(digest="a", predicted_ms=100.0, low_ms=99.0, high_ms=101.0, measured_ms=105.0)
    loop = ClosedLoop(device="host-cpu", rows=(row,), stated_coverage=0.9, coverage=0.5, corrected_coverage=0.875)
    (figure,) = figures.closed_loop_figures(loop)
    assert "hold 50 % of the measured times, those that allow for the selection 88 %" in figure.note


def test_scaled_measurements_are_said_with_the_unscaled_error() -> None:
    row = ClosedLoopRow(digest="a", predicted_ms=100.0, low_ms=90.0, high_ms=110.0, measured_ms=100.0, raw_ms=125.0)
    loop = ClosedLoop(device="host-cpu", rows=(row,), stated_coverage=0.9, slowdown_ratio=1.25)
    (figure,) = figures.closed_loop_figures(loop)
    assert figure.median_error_ratio == 0.0
    assert "1.25 times as slow" in figure.note
    assert "the median error is 20 %" in figure.note


def test_a_closed_loop_of_the_latency_package_is_read() -> None:
    from latency_models.comparison import Comparison, ComparisonRow
    from nas.core.schema import check_schema, from_data

    row = ComparisonRow(
        digest="a",
        predicted_ms=100.0,
        low_ms=90.0,
        high_ms=110.0,
        measured_ms=105.0,
        raw_ms=110.0,
        predicted_memory_mb=10.0,
        memory_low_mb=9.0,
        memory_high_mb=11.0,
        measured_memory_mb=None,
    )
    comparison = Comparison(
        device="host-cpu",
        rows=(row,),
        median_error_ratio=0.05,
        coverage=1.0,
        memory_median_error_ratio=None,
        memory_coverage=None,
        stated_coverage=0.9,
        slowdown_ratio=None,
    )
    loop = from_data(ClosedLoop, check_schema(comparison.to_dict(), "closed_loop", 1, where="test"), partial=True)
    (figure,) = figures.closed_loop_figures(loop)
    assert figure.median_error_ratio == pytest.approx(5 / 105)
    assert figure.note == ""


def test_stepped_line_holds_the_members_that_are_best_in_quality_alone(finished_run: Path) -> None:
    files = read_run(finished_run)
    assert files.front is not None
    slow_and_small = replace(files.front.members[0], cost=replace(files.front.members[-1].cost, latency_ms=1e4))
    front = replace(files.front, members=(*files.front.members, slow_and_small))
    figure = figures.pareto_figure(front, ())
    assert len(figure.front) == len(front.members)
    qualities = [point.quality for point in figure.steps]
    assert qualities == sorted(set(qualities))
    assert len(figure.steps) == len(files.front.members)


def test_training_during_the_search_has_its_curve(run_dir: Path) -> None:
    line = '{"loss":1.5,"stage":"supernet","step":20}\n'
    (run_dir / "search/metrics.jsonl").write_text(line, encoding="utf-8")
    (figure,) = figures.curve_figures(read_run(run_dir).trained[0])
    assert (figure.stage, figure.digest) == ("supernet", "")
