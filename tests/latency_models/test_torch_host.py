"""The host backend measures real modules; memory is checked against closed forms and torch's own profiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from latency_models.backends.torch_host import TorchHostBackend
from latency_models.backends.torch_memory import peak_allocated_bytes
from latency_models.jobs import MeasurementJob, MeasurementPlan
from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

PLAN = MeasurementPlan(scenario="label", warmup=1, min_repeats=3, max_repeats=3, seconds=0.01, network_seconds=0.01)


def linear_job(level: Any = "block") -> MeasurementJob:
    return MeasurementJob(subject="linear", level=level, make=lambda: (nn.Linear(16, 16), (torch.randn(4, 16),)))


def chain(size: int) -> Any:
    first = torch.ones(size)  # 1
    second = first + 1  # 2
    del first  # 1
    third = second.view(2, -1)  # a view costs nothing
    third = torch.cat([third, third, third])  # 1 + 3
    del second
    return third.sum()  # 3 and one number


def in_place(size: int) -> Any:
    value = torch.zeros(size)
    value.neg_().neg_()  # adding a number would allocate it
    return value


@pytest.mark.parametrize(
    ("call", "expected"), [(lambda: chain(1000), 4000 * 4), (lambda: in_place(1000), 4000), (lambda: None, 0)]
)
def test_peak_of_allocated_tensors_in_closed_form(call: Callable[[], Any], expected: int) -> None:
    with torch.inference_mode():
        assert peak_allocated_bytes(call) == expected


def test_weights_and_inputs_held_before_are_not_counted() -> None:
    layer, value = nn.Linear(256, 8, bias=False), torch.ones(32, 256)
    with torch.inference_mode():
        assert peak_allocated_bytes(lambda: layer(value)) == 32 * 8 * 4


def test_peak_agrees_with_the_allocator_as_the_profiler_sees_it() -> None:
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Tanh(), nn.Linear(256, 64))
    value = torch.randn(128, 64)
    with torch.inference_mode():
        model(value)
        with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            result = model(value)
        # torch offers the raw memory events nowhere else; its event list folds them into operators.
        steps = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        found = peak_allocated_bytes(lambda: model(value))
    assert result.shape == (128, 64)
    live = peak = 0
    for event in sorted(steps, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert found == peak > 0


def test_workspaces_of_kernels_are_counted() -> None:
    # One sample is unfolded into columns (aten/src/ATen/native/ConvolutionMM2d.cpp): 9 numbers an input pixel.
    convolution, image = nn.Conv2d(4, 2, 3, padding=1, bias=False), torch.ones(1, 4, 10, 10)
    with torch.inference_mode():
        assert peak_allocated_bytes(lambda: convolution(image)) == 4 * (4 * 9 * 100 + 2 * 100)


def test_record_says_what_was_measured_and_how() -> None:
    backend = TorchHostBackend()
    record = backend.measure(linear_job(), PLAN, memory=True)
    assert (record.subject, record.level, record.scenario, record.origin) == ("linear", "block", "label", "measured")
    assert len(record.samples_ms) == len(record.anchor_ms) == 4
    assert record.peak_memory_mb == pytest.approx(4 * 16 * 4 / 1e6)
    assert record.device.name == "host-cpu"
    assert record.device.threads == 1
    assert "processor time of one thread" in record.tool


def test_memory_is_left_out_when_not_asked_for() -> None:
    record = TorchHostBackend().measure(linear_job(), PLAN, memory=False)
    assert (record.peak_memory_mb, record.memory_method) == (None, None)


def test_networks_are_timed_beside_the_given_anchor_and_blocks_are_not() -> None:
    built: list[str] = []

    def make() -> Any:
        built.append("anchor")
        return nn.Linear(8, 8), (torch.ones(1, 8),)

    backend = TorchHostBackend(network_anchor=MeasurementJob(subject="backbone", level="network", make=make))
    network = backend.measure(linear_job("network"), PLAN, memory=False)
    backend.measure(linear_job("network"), PLAN, memory=False)
    block = backend.measure(linear_job("block"), PLAN, memory=False)
    assert network.source.endswith("anchor backbone")
    assert block.source.endswith("anchor built-in")
    assert built == ["anchor"]


def test_threads_and_collector_are_left_as_found() -> None:
    import gc

    before = torch.get_num_threads()
    TorchHostBackend(threads=2).measure(linear_job(), PLAN, memory=False)
    assert torch.get_num_threads() == before
    assert gc.isenabled()


def test_measuring_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    job = MeasurementJob(subject="fixed", level="block", make=lambda: (torch.neg, (torch.ones(2),)))
    TorchHostBackend().measure(job, PLAN, memory=False)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_cuda_backend_says_that_there_is_no_gpu() -> None:
    state = TorchHostBackend("cuda").availability()
    assert (state.available, state.reason) == (False, "torch sees no CUDA GPU")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_backend_measures_time_and_allocator_peak() -> None:
    job = MeasurementJob(
        subject="linear",
        level="block",
        make=lambda: (nn.Linear(1024, 1024).cuda(), (torch.randn(1024, 1024, device="cuda"),)),
    )
    record = TorchHostBackend("cuda").measure(job, PLAN, memory=True)
    assert record.device.name == "host-cuda"
    assert record.peak_memory_mb == pytest.approx(1024 * 1024 * 4 / 1e6, rel=0.01)


@pytest.mark.parametrize("arguments", [{"device": "tpu"}, {"threads": 0}])
def test_senseless_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"must be"):
        TorchHostBackend(**arguments)
