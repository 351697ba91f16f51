from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nas.core.architecture import Architecture
from nas.core.cost import BlockCost, Budget, CostEstimate, Interval, Violation
from nas.core.errors import InputError
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.core.files import canonical_json
from nas.core.schema import to_data
from nas.runs.front import FrontFile, read_front, write_front
from nas.runs.journal import Journal

GOLDEN = Path(__file__).parent.parent / "golden"


def make_evaluation(number: int, *, split: bool = False) -> Evaluation:
    blocks = (BlockCost(block="mid.0", latency_ms=100.1, memory_mb=1.0, compute_unit="gpu"),)
    return Evaluation(
        number=number,
        proposal=Proposal(
            architecture=Architecture("test/1", {"slot.kind": "conv1d", "slot.width": 0.5, "slot.kernel": number}),
            note={"batch": 1, "system": {"generation": 3, "weights": [0.1, None, "text"]}},
        ),
        cost=CostEstimate(
            latency_ms=100.1,
            latency_interval_ms=Interval(low=90.0, high=110.3, coverage=0.9),
            peak_memory_mb=50.0,
            memory_interval_mb=Interval(low=45.0, high=55.0, coverage=0.9),
            parameters=12345,
            blocks=blocks if split else (),
            device="test",
            scenario="test",
            predictor="test",
            origin="predicted",
        ),
        quality=Quality(score=0.25, estimator="test", fidelity="8 clips", metrics=(("colour", 0.5),)),
        violations=(Violation(limit="latency_ms", allowed=100.0, value=110.3),),
        state="complete",
        seconds=1.5,
    )


def test_evaluations_come_back_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "search" / "evaluations.jsonl")
    evaluations = [make_evaluation(0), replace(make_evaluation(1), quality=None, state="screened")]
    journal.append(evaluations[:1])
    journal.append(evaluations[1:])
    assert journal.read() == evaluations


def test_split_of_costs_is_not_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "evaluations.jsonl")
    journal.append([make_evaluation(0, split=True)])
    assert journal.read() == [make_evaluation(0)]


def test_lines_with_split_and_choices_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    path.write_text(canonical_json(to_data(make_evaluation(0, split=True))) + "\n")
    Journal(path).append([make_evaluation(1)])
    assert Journal(path).read() == [make_evaluation(0, split=True), make_evaluation(1)]


def test_journal_of_version_0_1_is_read() -> None:
    found = Journal(GOLDEN / "evaluations-0.1.jsonl").read()
    assert [one.state for one in found] == ["complete", *["screened"] * 5]
    assert [one.architecture.digest for one in found[:3]] == [
        "d3e1c3bcd2dcb73d", "28bc624f76927cd4", "fc055ac969fa8a42",
    ]  # fmt: skip
    assert [dict(one.architecture)["mid.0.kind"] for one in found[:2]] == ["none", "conv1d"]
    assert [one.cost.latency_ms for one in found[:2]] == [5.20400784, 7.179317920000002]
    assert [len(one.cost.blocks) for one in found[:2]] == [13, 0]


def test_architectures_are_equal_whether_they_were_read_or_made(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "evaluations.jsonl")
    odd = Architecture("test/1", {"slot.kind": "two words", "slot.width": 0.5, "slot.kernel": "3"})
    journal.append([replace(make_evaluation(0), proposal=Proposal(architecture=odd))])
    assert dict(journal.read()[0].architecture) == dict(odd)
    assert journal.read()[0].architecture.digest == odd.digest


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    journal = Journal(tmp_path / "evaluations.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append([replace(make_evaluation(0), seconds=value)])
    journal.append([replace(make_evaluation(0), error="NaN and Infinity are words here")])
    assert len(journal.read()) == 1


def test_every_cut_of_the_file_is_readable_and_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    evaluations = [make_evaluation(number) for number in range(2)]
    Journal(path).append(evaluations)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        left = Journal(path).read()
        assert left == evaluations[: len(left)]
        Journal(path).append(evaluations[len(left) :])
        assert path.read_bytes().rstrip() == whole.rstrip()  # a whole last line may lack its line break


def test_line_that_lost_only_its_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    Journal(path).append([make_evaluation(0)])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    Journal(path).append([make_evaluation(1)])
    assert Journal(path).read() == [make_evaluation(0), make_evaluation(1)]


def test_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    Journal(path).append([make_evaluation(number) for number in range(3)])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:50], lines[2]]) + "\n")
    with pytest.raises(InputError, match=r"evaluations\.jsonl: line 2: damaged record"):
        Journal(path).read()


def test_record_that_is_no_evaluation_is_named(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    Journal(path).append([make_evaluation(0)])
    data = json.loads(path.read_text())
    data["state"] = "finished"
    path.write_text(json.dumps(data) + "\n")
    with pytest.raises(InputError, match=r"record 1: not a Evaluation: state"):
        Journal(path).read()


def test_lost_record_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    Journal(path).append([make_evaluation(0), make_evaluation(2)])
    with pytest.raises(InputError, match="record 2: evaluation number is 2, expected 1"):
        Journal(path).read()


def test_front_file_comes_back_as_it_was(tmp_path: Path) -> None:
    front = FrontFile(
        members=(make_evaluation(0),),
        budget=Budget(latency_ms=150.0, parameters=5),
        selected=make_evaluation(0).architecture.digest,
        selection="knee",
        hypervolume=12.5,
        reference=(200.0, 100.0, 0.0),
        quality_estimator="supernet",
        screened=3,
        complete=9,
    )
    write_front(tmp_path / "front.json", front)
    assert read_front(tmp_path / "front.json") == front
    assert json.loads((tmp_path / "front.json").read_text())["schema"] == "nas/front/1"
