"""The split of a generation in the report: what is drawn, in what order, and what an older run shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nas.core.cost import Interval, PhaseCost
from nas.report.phases import phase_title, phases_figure, phases_plot
from nas.report.tables import write_tables
from nas.runs.front import FrontFile
from tests.report.conftest import BUDGET, make_evaluation

if TYPE_CHECKING:
    from nas.core.evaluation import Evaluation


def phases_of(latency_ms: float) -> tuple[PhaseCost, ...]:
    def phase(name: Any, share: float, calls: int, memory_mb: float | None, origin: Any) -> PhaseCost:
        value = share * latency_ms
        return PhaseCost(
            phase=name,
            calls=calls,
            latency_ms=value,
            latency_interval_ms=Interval(low=0.93 * value, high=1.08 * value, coverage=0.9),
            peak_memory_mb=memory_mb,
            origin=origin,
            source=f"source of the {name}",
        )

    return (
        phase("text_encoder", 0.1, 1, 3.0, "measured"),
        phase("denoiser", 0.7, 4, 24.0, "predicted"),
        phase("decoder", 0.2, 3, None, "published"),
    )


def with_phases(number: int) -> Evaluation:
    item = make_evaluation(number)
    return replace(item, cost=replace(item.cost, phases=phases_of(item.cost.latency_ms)))


def front_of(members: tuple[Evaluation, ...]) -> FrontFile:
    return FrontFile(
        members=members,
        budget=BUDGET,
        selected=members[1].architecture.digest,
        selection="knee",
        hypervolume=1.0,
        reference=(1.0, 1.0, 0.0),
        quality_estimator="supernet",
        screened=0,
        complete=len(members),
    )


@pytest.fixture
def front() -> FrontFile:
    return front_of((with_phases(1), with_phases(5), with_phases(9)))


def test_chosen_fastest_and_best_are_drawn_once_each(front: FrontFile) -> None:
    figure = phases_figure(front)
    assert figure is not None
    assert figure.chosen.digest == front.selected
    assert sorted(role for bar in figure.bars for role in bar.role.split(", ")) == ["best", "chosen", "fastest"]
    assert len({bar.digest for bar in figure.bars}) == len(figure.bars)


def test_bars_stack_up_to_the_latency_with_its_interval(front: FrontFile) -> None:
    figure = phases_figure(front)
    assert figure is not None
    traces = {trace.name: trace for trace in phases_plot(figure).data}
    stacked = [traces[name].x[0] for name in ("text encoder", "4 x denoiser", "3 x decoder")]
    assert sum(stacked) == pytest.approx(figure.chosen.latency_ms)
    whole = traces["whole, with its interval"]
    assert whole.x[0] + whole.error_x.array[0] == pytest.approx(figure.chosen.high_ms)
    assert traces["budget 420 ms"].x == (420.0, 420.0)


def test_a_run_of_before_phases_has_no_split() -> None:
    assert phases_figure(front_of((make_evaluation(1), make_evaluation(5)))) is None
    assert phases_figure(None) is None


def test_one_call_is_not_counted() -> None:
    assert [phase_title(part) for part in phases_of(1.0)] == ["text encoder", "4 x denoiser", "3 x decoder"]


def test_csv_leaves_unknown_memory_empty(front: FrontFile, run_dir: Any, tmp_path: Any) -> None:
    from nas.report.run_files import read_run

    files = replace(read_run(run_dir), front=front)
    write_tables(tmp_path, files, agreements=(), attributes=(), origins=())
    lines = (tmp_path / "phases.csv").read_text().splitlines()
    assert lines[0] == "phase,calls,latency_ms,low_ms,high_ms,peak_memory_mb,origin,source"
    assert [line.split(",")[5] for line in lines[1:]] == ["3.0", "24.0", ""]
