"""Rules that refuse many blocks are one line each."""

from __future__ import annotations

from nas.core.architecture import Architecture
from nas.core.broken_limits import broken_limits
from nas.core.cost import Budget, CostEstimate, Infeasibility, Interval
from nas.core.evaluation import Evaluation, Proposal


def candidate(number: int, *faults: Infeasibility, latency_ms: float = 1.0) -> Evaluation:
    cost = CostEstimate(
        latency_ms=latency_ms,
        latency_interval_ms=Interval(low=latency_ms, high=latency_ms, coverage=0.9),
        peak_memory_mb=1.0,
        memory_interval_mb=Interval(low=1.0, high=1.0, coverage=0.9),
        parameters=1,
        blocks=(),
        scenario="any",
        device="phone",
        predictor="test",
        origin="simulated",
        infeasible=faults,
    )
    return Evaluation(
        number=number,
        proposal=Proposal(architecture=Architecture.from_text(f"tiny/1 number={number}")),
        cost=cost,
        quality=None,
        violations=Budget(latency_ms=5.0).violations(cost),
        state="screened",
    )


def too_large(block: str, value: str) -> Infeasibility:
    return Infeasibility(
        block=block, compute_unit="neural_engine", reason=f"held in MB {value}, at most 3,758", source="a guide"
    )


def test_one_line_a_rule_with_the_ends_of_its_sizes() -> None:
    rank = Infeasibility(block="mid.0", compute_unit="gpu", reason="rank 6, at most 5", source="a guide")
    kind = Infeasibility(block="mid.0", compute_unit="gpu", reason="conv3d does not run there", source="a guide")
    found = broken_limits(
        [
            candidate(0, too_large("up0", "34,402"), too_large("down0", "4,316")),
            candidate(1, too_large("up0", "68,887"), latency_ms=6.0),
            candidate(2, rank, kind),
            candidate(3),
        ]
    )
    assert found == [
        ("placement: 2 blocks such as down0 on neural_engine: held in MB 4,316 to 68,887, at most 3,758 (a guide)", 2),
        ("latency_ms", 1),
        ("placement: mid.0 on gpu: conv3d does not run there (a guide)", 1),
        ("placement: mid.0 on gpu: rank 6, at most 5 (a guide)", 1),
    ]
