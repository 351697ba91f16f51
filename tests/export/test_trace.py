from __future__ import annotations

import pytest
import torch
from torch import nn

import search_spaces
from nas.core.errors import ConfigError, VerificationError
from nas.core.scenario import Scenario
from nas.export.component import denoiser_component
from nas.export.component import example_inputs as component_inputs
from nas.export.trace import exportable, inspect_call, trace
from nas.models.build import build_denoiser, example_inputs

from .conftest import CONVOLUTIONS_AND_SELF, SCENARIO, component_of, toy_denoiser

ONE_FRAME = Scenario(frames=1, height=32, width=32, denoising_steps=4)


def test_shapes_are_those_of_the_example_inputs() -> None:
    denoiser = toy_denoiser(("none",) * 5)
    sample, time, text = [port.shape for port in component_of(denoiser).inputs]
    examples = example_inputs(search_spaces.get("tiny"), SCENARIO)
    assert [sample, time[:1], text] == [tuple(example.shape) for example in examples]


def test_traced_graph_computes_what_the_network_does() -> None:
    denoiser = toy_denoiser(CONVOLUTIONS_AND_SELF)
    component = component_of(denoiser)
    inputs = component_inputs(component).values()
    with torch.no_grad():
        expected = component.module(*inputs)
        found = trace(component).module()(*inputs)
    # The same kernels in the same order, but for fused dead code.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_tracing_leaves_mode_and_weights_alone() -> None:
    denoiser = toy_denoiser(("none",) * 5).train()
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    trace(component_of(denoiser))
    assert denoiser.training
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())


def test_calls_are_those_of_the_modules() -> None:
    denoiser = toy_denoiser(CONVOLUTIONS_AND_SELF)
    calls = inspect_call(component_of(denoiser, "gpu")).operations
    modules = list(denoiser.modules())
    # Every such module is called once in a pass; a GEGLU's projection is two.
    assert calls["conv"] == sum(isinstance(module, (nn.Conv2d, nn.Conv3d)) for module in modules)
    gated = sum(type(module).__name__ == "GEGLU" for module in modules)
    assert calls["linear"] == sum(isinstance(module, nn.Linear) for module in modules) + gated
    assert calls["layer_norm"] == sum(isinstance(module, nn.LayerNorm) for module in modules)
    assert calls["scaled_dot_product_attention"] == sum(type(module).__name__ == "Attention" for module in modules)
    assert calls["einsum"] == calls["instance_norm"] == 0


def test_counting_needs_no_memory_for_values() -> None:
    with torch.device("meta"):
        denoiser = build_denoiser(search_spaces.get("tiny"), toy_denoiser(CONVOLUTIONS_AND_SELF).architecture)
    assert inspect_call(component_of(denoiser)).operations["conv"] > 20


def test_one_frame_neither_calls_nor_uses_temporal_layers() -> None:
    denoiser = toy_denoiser(CONVOLUTIONS_AND_SELF)
    plain = toy_denoiser(("none",) * 5)
    image = denoiser_component(denoiser, ONE_FRAME, lowering="gpu")
    assert inspect_call(image).operations == inspect_call(component_of(plain, "gpu")).operations
    parameters = sum(item.numel() for item in image.module.parameters())
    assert parameters == sum(item.numel() for item in plain.parameters())


def test_other_precision_is_exported_from_a_copy() -> None:
    denoiser = toy_denoiser(("none",) * 5).to(torch.bfloat16)
    model = exportable(denoiser)
    assert {item.dtype for item in model.parameters()} == {torch.float32}
    assert {item.dtype for item in denoiser.parameters()} == {torch.bfloat16}


def test_float32_is_not_copied() -> None:
    denoiser = toy_denoiser(("none",) * 5)
    assert exportable(denoiser) is denoiser


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 70_000.0, -70_000.0])
def test_weights_that_float16_cannot_hold_are_named(value: float) -> None:
    denoiser = toy_denoiser(("none",) * 5)
    with torch.no_grad():
        denoiser.conv_in.weight[0, 0, 0, 0] = value
    with pytest.raises(VerificationError, match=r"1 weights do not fit into float16 .*conv_in\.weight"):
        exportable(denoiser)


def test_a_size_that_the_backbone_cannot_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scenario\.height"):
        denoiser_component(
            toy_denoiser(("none",) * 5), Scenario(frames=8, height=20, width=32, denoising_steps=4), lowering="gpu"
        )
