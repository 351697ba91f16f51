"""Liveness: exact against brute force over every program point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_models.memory import memory_profile
from nas.core.errors import InputError
from nas.core.workload import BlockSpec, Operation, TensorSpec, Workload

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from tests.latency_models.conftest import SmallSpace


def brute_force_peak(workload: Workload) -> int:
    """Largest sum, over operations, of tensors that exist by then and are still needed then or later."""
    sizes = {tensor.name: tensor.num_bytes for tensor in workload.tensors}
    made = {name for operation in workload.operations for name in operation.outputs}
    peaks = []
    for now in range(len(workload.operations)):
        live = 0
        for name, size in sizes.items():
            makers = [i for i, operation in enumerate(workload.operations) if name in operation.outputs]
            readers = [i for i, operation in enumerate(workload.operations) if name in operation.inputs]
            exists = name not in made or makers[0] <= now
            needed = name not in made or not readers or max(readers) >= now
            live += size if exists and needed else 0
        peaks.append(live)
    return max(peaks)


@st.composite
def random_workloads(draw: st.DrawFn) -> Workload:
    """Random straight-line programs over random tensors, some never read, some read late."""
    count = draw(st.integers(1, 10))
    tensors = [TensorSpec(name="input", shape=(draw(st.integers(1, 50)),), element_bytes=2)]
    operations = []
    for index in range(count):
        inputs = draw(st.sets(st.sampled_from([tensor.name for tensor in tensors]), min_size=1))
        outputs = [f"t{index}.{part}" for part in range(draw(st.integers(1, 2)))]
        tensors += [TensorSpec(name=name, shape=(draw(st.integers(1, 50)),), element_bytes=2) for name in outputs]
        operations.append(
            Operation(
                name=f"op{index}",
                block=f"block{index // 3}",
                kind="any",
                flops=1,
                parameters=1,
                weight_bytes=2,
                inputs=tuple(sorted(inputs)),
                outputs=tuple(outputs),
            )
        )
    blocks = tuple((f"block{index}", BlockSpec.of("any")) for index in range((count + 2) // 3))
    return Workload(operations=tuple(operations), tensors=tuple(tensors), blocks=blocks, repeats=(("denoiser", 1),))


@settings(max_examples=200, deadline=None)
@given(workload=random_workloads())
def test_peak_equals_brute_force(workload: Workload) -> None:
    profile = memory_profile(workload)
    assert profile.peak_activation_bytes == brute_force_peak(workload)
    assert profile.peak_bytes == brute_force_peak(workload) + 2 * len(workload.operations)


def test_every_architecture_of_the_small_space_equals_brute_force(space: SmallSpace, scenario: Scenario) -> None:
    workloads = [space.workload(architecture, scenario) for architecture in space.all()]
    found = [memory_profile(workload).peak_activation_bytes for workload in workloads]
    assert found == [brute_force_peak(workload) for workload in workloads]


def test_worked_example_with_a_skip(workload_builder: Any) -> None:
    builder = workload_builder()
    builder.block("a", BlockSpec.of("a"))
    builder.tensor("x", 10)
    builder.tensor("y", 20)
    builder.operation("run", ("x",), ("y",), parameters=5)
    builder.block("b", BlockSpec.of("b"))
    builder.tensor("z", 30)
    builder.operation("run", ("y",), ("z",), parameters=5)
    builder.block("c", BlockSpec.of("c"))
    builder.tensor("out", 1)
    builder.operation("join", ("y", "z"), ("out",), parameters=5)
    profile = memory_profile(builder.build(1))
    # Elements of 4 bytes; the input x stays, as the caller holds it.
    assert [(block.held_bytes, block.inside_bytes) for block in profile.blocks] == [(40, 80), (120, 120), (240, 4)]
    assert profile.peak_bytes == 244 + 60


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (("nowhere",), ("y",), "unknown tensor 'nowhere'"),
        (("x",), ("y", "y"), "'y' is made twice"),
        (("y",), ("y",), "'y' is read before"),
    ],
)
def test_a_broken_graph_is_refused(
    workload_builder: Any, inputs: tuple[str, ...], outputs: tuple[str, ...], message: str
) -> None:
    builder = workload_builder()
    builder.block("a", BlockSpec.of("a"))
    builder.tensor("x", 1)
    builder.tensor("y", 1)
    builder.operation("run", inputs, outputs, parameters=1)
    with pytest.raises(InputError, match=message):
        memory_profile(builder.build(1))
