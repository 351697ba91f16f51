"""Which unit runs what, what runs nowhere, and what leaving the preferred unit costs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import search_spaces
from latency_models import devices
from latency_models.cost_table import compile_cost_table
from latency_models.failures import Infeasible
from latency_models.features import block_features
from latency_models.lowering import OperationFeatures
from latency_models.placement import Placement, place, refusal
from latency_models.predictors.roofline import RooflinePredictor, placed_units, switching_ms
from latency_models.pricing import predict
from latency_models.step_times import rates_of, step_seconds, steps_of
from nas.core.cost import Budget
from nas.core.scenario import Scenario

if TYPE_CHECKING:
    from nas.core.architecture import Architecture

FULL = Scenario(frames=16, height=512, width=512, denoising_steps=4)
A14, A17 = devices.get("iphone12"), devices.get("iphone15_pro")


def operation(
    kind: str,
    *shapes: tuple[int, ...],
    flops: int = 1000,
    element_bytes: int = 2,
    weight_bytes: int = 100,
    **options: int,
) -> OperationFeatures:
    sizes = [1] * len(shapes)
    for index, shape in enumerate(shapes):
        for axis in shape:
            sizes[index] *= axis * (element_bytes if axis == shape[0] else 1)
    return OperationFeatures(
        kind=kind,
        flops=flops,
        weight_bytes=weight_bytes,
        moved_bytes=sum(sizes),
        inputs=shapes[:-1],
        output=shapes[-1],
        element_bytes=element_bytes,
        options=tuple(sorted(options.items())),
    )


def conv(kernel: tuple[int, ...], **options: int) -> OperationFeatures:
    size = (8,) * len(kernel)
    named = {f"kernel_{axis}": length for axis, length in enumerate(kernel)}
    kind = "conv3d" if len(kernel) == 3 else "conv2d"
    return operation(kind, (1, 16, *size), (1, 16, *size), **named, **options)


def attention(tokens: int, batch: int = 1, width: int = 64, heads: int = 8) -> OperationFeatures:
    shape = (batch, tokens, width)
    return operation("attention", shape, shape, shape, shape, heads=heads)


@pytest.mark.parametrize(
    ("device", "unit", "case", "reason"),
    [
        # 3-D convolution: coremltools issue 1368 and ane-guide, convolution variants.
        ("iphone12", "neural_engine", conv((3, 3, 3)), "conv3d does not run there"),
        ("iphone17_pro", "neural_engine", conv((3, 3, 3)), "conv3d does not run there"),
        ("iphone12", "gpu", conv((3, 3, 3)), None),
        ("iphone12", "neural_engine", conv((3, 1, 1)), None),  # exactly Conv2d (3, 1)
        # ane-guide, per-chip limits: 16384 up to the M3's generation, 65536 from the M4's.
        ("iphone12", "neural_engine", operation("linear", (1, 16384, 8), (1, 16384, 8)), None),
        (
            "iphone12",
            "neural_engine",
            operation("linear", (1, 16385, 8), (1, 16385, 8)),
            "tokens are 16,385, at most 16,384",
        ),
        ("iphone15_pro", "neural_engine", operation("linear", (1, 16385, 8), (1, 16385, 8)), None),
        ("iphone15_pro", "neural_engine", operation("linear", (1, 65537, 8), (1, 65537, 8)), "tokens are 65,537"),
        ("iphone12", "neural_engine", operation("add", (1, 2, 1, 16385), (1, 2, 1, 16385)), "an axis is 16,385"),
        ("iphone12", "neural_engine", operation("add", (1, 65537, 1, 1), (1, 65537, 1, 1)), "channels are 65,537"),
        ("iphone12", "neural_engine", conv((1, 14)), "kernel width is 14, at most 13"),
        # Rank 5: ane-guide validators; coremltools says the same of every unit.
        ("iphone12", "neural_engine", operation("add", (1, 1, 1, 1, 1, 2), (1, 1, 1, 1, 1, 2)), "rank is 6, at most 5"),
        ("iphone12", "gpu", operation("add", (1, 1, 1, 1, 1, 2), (1, 1, 1, 1, 1, 2)), "rank is 6, at most 5"),
        # 3.5 GiB window: 8 heads x 15000^2 scores x 2 bytes are 3.6 GB, and the tensors come on top.
        ("iphone12", "neural_engine", attention(15000), None),
        ("iphone12", "neural_engine", attention(16000), "tensors and attention scores take in MB 4,104, at most 3,758"),
        ("iphone12", "gpu", attention(16000), None),  # fused
        ("iphone12", "neural_engine", operation("embedding", (1, 77), (1, 77, 768)), "embedding does not run there"),
    ],
)
def test_unit_refuses_what_its_limits_say(device: str, unit: Any, case: OperationFeatures, reason: str | None) -> None:
    found = refusal(case, devices.get(device).unit(unit))
    assert (found is None) if reason is None else (found is not None and reason in found.reason)
    assert found is None or len(found.source) > 20


def test_operations_fall_to_the_next_allowed_unit() -> None:
    chain = (conv((3, 3)), conv((3, 3, 3)), conv((3, 3)))
    assert place(chain, placed_units(A14, "all", "float16")).units == (0, 1, 0)
    assert [unit.compute_unit for unit in placed_units(A14, "cpu_and_ne", "float16")] == ["neural_engine", "cpu"]
    assert place(chain, placed_units(A14, "cpu_and_ne", "float16")).units == (0, 1, 0)
    assert place(chain, placed_units(A14, "cpu_and_gpu", "float16")).units == (0, 0, 0)


@pytest.mark.parametrize(
    ("units", "segments"),
    [((), (0,)), ((0, 0), (0,)), ((0, 1, 1, 0), (0, 1, 0)), ((1,), (0, 1, 0)), ((0, 1, 2, 1), (0, 1, 2, 1, 0))],
)
def test_segments_begin_and_end_at_home(units: tuple[int, ...], segments: tuple[int, ...]) -> None:
    assert Placement(units=units, refused=()).segments == segments


def test_leaving_and_coming_back_costs_two_crossings_and_two_segments() -> None:
    units = placed_units(A14, "all", "float16")
    cost = switching_ms(Placement(units=(0, 1, 0), refused=()), units, A14.crossing_ms)
    by_hand = 2 * A14.crossing_ms.value + units[1].segment_overhead_ms.value + units[0].segment_overhead_ms.value
    assert cost == pytest.approx(by_hand)
    assert switching_ms(Placement(units=(0, 0), refused=()), units, A14.crossing_ms) == 0.0


def network(kind: str, space: Any) -> Architecture:
    """The bare backbone with one temporal layer of ``kind`` in its first slot."""
    slot = space.slots()[0]
    options = space.options(slot)
    index = next(i for i, option in enumerate(options) if option[f"{slot}.kind"] == kind)
    return space.from_options([index] + [0] * (len(space.slots()) - 1))  # type: ignore[no-any-return]


def test_latency_is_call_plus_operations_plus_segments_plus_crossings() -> None:
    # The whole formula by hand: every operation at the rates of its unit, the one conv3d on the GPU.
    space = search_spaces.get("snapgen_v")
    workload = space.workload(network("conv3d", space), FULL)
    price = RooflinePredictor(A17, compute_units="all").price(workload)
    engine, gpu = A17.unit("neural_engine"), A17.unit("gpu")
    by_hand = engine.call_overhead_ms.value
    away = 0
    for block in block_features(workload):
        for item in block.operations:
            away += (off := item.kind == "conv3d" and item.kernel == (3, 3, 3))
            unit = gpu if off else engine
            by_hand += 1e3 * float(
                step_seconds(steps_of([item], unit, devices.WeightFormat()), rates_of(unit, "float16")).sum()
            )
    assert away == 1
    by_hand += 2 * A17.crossing_ms.value + gpu.segment_overhead_ms.value + engine.segment_overhead_ms.value
    assert price.overhead_ms + sum(block.latency_ms for block in price.blocks) == pytest.approx(by_hand, rel=1e-12)
    assert price.infeasible == ()


def test_joint_attention_at_full_resolution_runs_nowhere_and_says_why() -> None:
    # 16 frames x 64 x 64 pixels are 65536 tokens: too many for an A14's engine, too many scores for its CPU.
    space = search_spaces.get("snapgen_v")
    workload = space.workload(network("self_attention_3d", space), FULL)
    price = RooflinePredictor(A14).price(workload)
    assert {fault.block for fault in price.infeasible} == {"down0.0.temporal"}
    texts = " ".join(f"{fault.compute_unit}: {fault.reason}" for fault in price.infeasible)
    assert "neural_engine: tokens are 65,536, at most 16,384" in texts
    assert "cpu: tensors and attention scores take in MB 34," in texts or "cpu: tensors and attention scores" in texts


def test_a_block_that_failed_to_compile_is_infeasible() -> None:
    space = search_spaces.get("snapgen_v")
    workload = space.workload(network("conv1d", space), FULL)
    signature = dict(workload.blocks)["down0.0.temporal"].signature
    failure = Infeasible(
        subject=signature, level="block", compute_unit="neural_engine", stage="compile", reason="error 11"
    )
    price = RooflinePredictor(A14, failures=[failure]).price(workload)
    assert [(fault.block, fault.reason) for fault in price.infeasible] == [("down0.0.temporal", "compile: error 11")]
    elsewhere = RooflinePredictor(A14, failures=[replace(failure, compute_unit="gpu")]).price(workload)
    assert elsewhere.infeasible == ()


def test_cost_table_and_single_price_agree_on_what_runs() -> None:
    space = search_spaces.get("snapgen_v")
    predictor = RooflinePredictor(A14)
    table = compile_cost_table(space, FULL, predictor)
    bare, joint = space.smallest(), network("self_attention_3d", space)
    options = [space.to_options(bare), space.to_options(joint)]
    import numpy as np

    scores = table.score(np.array(options))
    assert scores.infeasible.tolist() == [False, True]
    single = table.estimate(joint)
    assert single.infeasible == predict(predictor, space.workload(joint, FULL), FULL).infeasible
    assert [violation.limit for violation in Budget().violations(single)] == ["placement"]
    slot, option = 0, options[1][0]
    runs = table.slot_costs().runs
    assert not runs[slot][option]
    assert all(bool(row[0]) for row in runs)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 10**12),
    st.integers(0, 10**9),
    st.integers(1, 512),
    st.integers(1, 64),
    st.sampled_from(["neural_engine", "gpu", "cpu"]),
)
def test_more_work_is_never_faster(flops: int, weights: int, channels: int, size: int, unit: Any) -> None:
    spec = A14.unit(unit)

    def seconds(**changes: int) -> float:
        values = {"flops": flops, "weights": weights, "channels": channels, "size": size} | changes
        shape = (1, values["channels"], values["size"], values["size"])
        case = operation(
            "conv2d",
            shape,
            shape,
            flops=values["flops"],
            weight_bytes=values["weights"],
            in_channels=values["channels"],
            out_channels=values["channels"],
            kernel_0=3,
            kernel_1=3,
        )
        return float(step_seconds(steps_of([case], spec, devices.WeightFormat()), rates_of(spec, "float16")).sum())

    base = seconds()
    assert seconds(flops=2 * flops) >= base
    assert seconds(weights=2 * weights) >= base
    assert seconds(size=size + 1) >= base
    # Channels alone: padding is a smaller share of more of them, so compare at equal work per padded channel.
    assert seconds(channels=channels * 2, flops=flops * 4) >= base


@settings(max_examples=30, deadline=None)
@given(st.floats(1.0, 16.0), st.floats(1.0, 16.0))
def test_fewer_bits_are_never_slower(first: float, second: float) -> None:
    low, high = sorted((first, second))
    engine = A14.unit("neural_engine")
    ratios = [engine.weight_ratio(devices.WeightFormat(bits=bits, form="palettised")) for bits in (low, high)]
    assert ratios[0] <= ratios[1] <= 1.0
