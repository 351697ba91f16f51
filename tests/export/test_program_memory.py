"""Memory of exported programs: what liveness over the program gives is what the predictor says of the description."""

from __future__ import annotations

from dataclasses import replace

import pytest

from latency_models import device
from latency_models.lowering import LOWERINGS
from latency_models.memory import memory_profile
from nas.export.mil import activation_peak, read_program, weight_bytes
from nas.pipeline.audit_program import audit_program
from search_spaces import get

from .conftest import SCENARIO, Exported

NETWORKS = [("exported", "long_axis_last"), ("exported_cross", "fused_sdpa")]


@pytest.mark.parametrize(("fixture", "lowering"), NETWORKS)
@pytest.mark.parametrize("rows", ["as they are", "padded"])
def test_peak_of_the_program_is_the_predicted_one(
    fixture: str, lowering: str, rows: str, request: pytest.FixtureRequest
) -> None:
    network: Exported = request.getfixturevalue(fixture)
    target = LOWERINGS[lowering] if rows == "padded" else replace(LOWERINGS[lowering], row_bytes=1)
    found = activation_peak(read_program(network.package), row_bytes=target.row_bytes).num_bytes
    workload = get("tiny").workload(network.denoiser.architecture, SCENARIO)
    assert found == pytest.approx(memory_profile(workload, target).peak_activation_bytes, rel=0.05)


@pytest.mark.parametrize("fixture", [name for name, _ in NETWORKS])
def test_weights_of_the_program_are_the_predicted_ones(fixture: str, request: pytest.FixtureRequest) -> None:
    network: Exported = request.getfixturevalue(fixture)
    weights = weight_bytes(read_program(network.package))
    workload = get("tiny").workload(network.denoiser.architecture, SCENARIO)
    assert weights.stored == pytest.approx(workload.weight_bytes, rel=0.05)
    assert weights.resident(()) == weights.stored == weights.decompressed


def test_neural_engine_form_is_eligible_throughout(exported: Exported) -> None:
    audit = audit_program(read_program(exported.package), device("iphone16_pro_max"), "cpu_and_ne")
    own = [item for item in audit["refusals"] if item["unit"] == "neural_engine"]
    assert own == []
    assert audit["summary"]["segments"] == 1
