"""Both lowerings compute what the network computes, share its weights, and hold only what their unit runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

import search_spaces
from nas.core.errors import ConfigError
from nas.core.scenario import ComputeUnits, Scenario
from nas.export.checks import check_package
from nas.export.component import Component, InputPort, OutputPort, denoiser_component, example_inputs
from nas.export.coreml import convert, save
from nas.export.lowering import LOWERINGS, Lowering, chosen_lowering, layers, lower, time_embedding
from nas.export.lowering.gpu import GpuRewriting
from nas.export.lowering.network import fused_operations
from nas.export.lowering.neural_engine import NeuralEngineRewriting
from nas.export.mil import read_program
from nas.export.package import read_package
from nas.export.parity import compute_parity, parity_checks
from nas.export.trace import trace
from nas.models.temporal import build_temporal_stack
from search_spaces.layers import ATTENTIONS, CONVOLUTIONS, temporal_spec

from .conftest import CONVOLUTIONS_AND_SELF, CROSS, Exported, toy_denoiser

if TYPE_CHECKING:
    from pathlib import Path

    from nas.export.lowering.network import Rewriting

# Float32 sums in another order; seen are 1.5e-6 of the largest value.
TOLERANCE = 1e-5
REWRITINGS: dict[str, type[Rewriting]] = {"neural_engine": NeuralEngineRewriting, "gpu": GpuRewriting}
# Options of a layer in snapgen_v; kernel 5 reaches beyond clips of two frames.
SETTINGS: dict[str, dict[str, Any]] = {
    "conv1d": {"width_ratio": 0.5, "kernel": 5},
    "conv3d": {"width_ratio": 0.5},
    **{kind: {"width_ratio": 1.0, "heads": 8} for kind in ATTENTIONS},
}


def relative_difference(expected: Tensor, found: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def random_layer(kind: str, *, depth: int = 1, space: str = "snapgen_v") -> nn.Module:
    """A temporal layer of the first slot with nothing at zero or one."""
    backbone = search_spaces.get(space).backbone
    channels = backbone.slot_channels(backbone.slots[0])
    spec = temporal_spec(backbone, {"kind": kind, **SETTINGS[kind]}, channels=channels, frames=1, height=1, width=1)
    assert spec is not None
    torch.manual_seed([*SETTINGS].index(kind))  # equal layers would share what they make of the text
    layer = build_temporal_stack(spec, depth).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return layer


def clip_and_text(space: str, *, frames: int, height: int = 3, width: int = 4) -> tuple[Tensor, Tensor]:
    backbone = search_spaces.get(space).backbone
    generator = torch.Generator().manual_seed(6)
    channels = backbone.slot_channels(backbone.slots[0])
    video = torch.randn(1, frames, channels, height, width, generator=generator)
    return video, torch.randn(1, 7, backbone.text_width, generator=generator)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize(("frames", "height", "width"), [(8, 32, 32), (3, 64, 32), (2, 32, 64), (1, 32, 32)])
@pytest.mark.parametrize("kinds", [CONVOLUTIONS_AND_SELF, CROSS], ids=["convolutions and self", "cross"])
def test_lowered_network_equals_the_trained_one(
    lowering: Lowering, kinds: tuple[str, ...], frames: int, height: int, width: int
) -> None:
    denoiser = toy_denoiser(kinds).eval()
    scenario = Scenario(frames=frames, height=height, width=width, denoising_steps=4)
    component = denoiser_component(denoiser, scenario, lowering=lowering)
    sample, _, text = example_inputs(component).values()
    times = torch.tensor([640.25])
    with torch.no_grad():
        found = component.module(sample, time_embedding(times, denoiser.spec.base_channels), text)
        assert relative_difference(denoiser(sample, times, text), found) < TOLERANCE


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("kind", [*CONVOLUTIONS, *ATTENTIONS])
def test_every_temporal_kind_of_the_full_space_equals_its_layer(kind: str, lowering: Lowering) -> None:
    layer = random_layer(kind, depth=2)
    for frames in (2, 5):
        video, text = clip_and_text("snapgen_v", frames=frames)
        rewriting = REWRITINGS[lowering](frames)
        with torch.no_grad():
            found = rewriting.temporal(layer)(video[0], rewriting.text(text))
            assert relative_difference(layer(video, text)[0], found) < TOLERANCE


def test_queries_in_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    video, text = clip_and_text("tiny", frames=3)
    rewriting = NeuralEngineRewriting(3)
    lowered = rewriting.temporal(random_layer("cross_attention_3d", space="tiny"))
    with torch.no_grad():
        whole = lowered(video[0], rewriting.text(text))
        monkeypatch.setattr(layers, "MAX_SCORES", 1)
        monkeypatch.setattr(layers, "QUERY_CHUNK", 10)  # of 36 queries: the last piece is shorter
        calls = count_einsums(monkeypatch)
        pieces = lowered(video[0], rewriting.text(text))
    assert relative_difference(whole, pieces) < TOLERANCE
    assert len(calls) == 2 * 8 * 2 * 4  # attentions, heads, products, pieces


def count_einsums(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    einsum = torch.einsum

    def counted(equation: str, *tensors: Tensor) -> Tensor:
        calls.append(equation)
        return einsum(equation, *tensors)

    monkeypatch.setattr(torch, "einsum", counted)
    return calls


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_weights_are_shared_and_the_network_stays_as_it_was(lowering: Lowering) -> None:
    denoiser = toy_denoiser(CONVOLUTIONS_AND_SELF).train()
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    lowered = lower(denoiser, frames=8, lowering=lowering)
    own = {item.untyped_storage().data_ptr() for item in denoiser.parameters()}
    copied = [name for name, item in lowered.named_parameters() if item.untyped_storage().data_ptr() not in own]
    assert all(".to_q." in name for name in copied)  # they hold the scale of the scores
    assert bool(copied) is (lowering == "neural_engine")
    assert denoiser.training
    assert not any(module.training for module in lowered.modules())
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    assert sum(item.numel() for item in lowered.parameters()) == sum(item.numel() for item in denoiser.parameters())


def test_neural_engine_package_holds_nothing_that_runs_elsewhere(exported: Exported) -> None:
    operations = {operation.type: operation for operation in read_program(exported.package).function().operations}
    elsewhere = {"linear", "matmul", "scaled_dot_product_attention", "sin", "cos", "gather", "cast", "conv_transpose"}
    assert not elsewhere & operations.keys()
    assert {"conv", "einsum", "layer_norm", "instance_norm", "softmax"} <= operations.keys()


def test_neural_engine_package_has_four_axes_and_pixels_last(exported: Exported) -> None:
    function = read_program(exported.package).function()
    ports = set(function.outputs) | {port.name for port in function.inputs}
    shapes = {
        port.name: tuple(port.type.shape)
        for operation in function.operations
        if operation.type != "const"
        for port in operation.outputs
        if port.name not in ports
    }
    assert max(len(shape) for shape in shapes.values()) == 4
    # Small enough for a last axis of one are the time, and nothing else.
    short = {shape for shape in shapes.values() if shape[-1] == 1}
    assert short <= {(1, size, 1, 1) for size in range(400)}


def test_gpu_package_attends_once_an_attention_in_a_batch_of_one(exported_cross: Exported) -> None:
    operations = read_program(exported_cross.package).function().operations
    attentions = [operation for operation in operations if operation.type == "scaled_dot_product_attention"]
    modules = [module for module in exported_cross.denoiser.modules() if type(module).__name__ == "Attention"]
    assert len(attentions) == len(modules)
    assert {operation.outputs[0].type.shape[0] for operation in attentions} == {1}
    assert not {"einsum", "softmax", "sin", "cos", "split"} & {operation.type for operation in operations}


class Layers(nn.Module):
    """Lowered temporal layers in a row."""

    def __init__(self, kinds: tuple[str, ...], rewriting: Rewriting) -> None:
        super().__init__()
        self.layers = nn.ModuleList(rewriting.temporal(random_layer(kind, space="tiny")) for kind in kinds)
        self.text = rewriting.text

    def forward(self, video: Tensor, text: Tensor) -> Tensor:
        for layer in self.layers:
            video = layer(video, self.text(text))
        return video


@pytest.mark.parametrize(
    ("lowering", "kinds"),
    [
        ("neural_engine", ("cross_attention_1d", "cross_attention_3d")),
        ("gpu", ("conv1d", "conv3d", "self_attention_1d", "self_attention_3d")),
    ],
)
def test_kinds_that_the_exported_networks_lack_convert_too(
    lowering: Lowering, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    rewriting = REWRITINGS[lowering](3)
    video, text = clip_and_text("tiny", frames=3)
    module = Layers(kinds, rewriting).eval()
    component = Component(
        name="layers",
        module=module,
        inputs=(
            InputPort(name="video", shape=tuple(video.shape[1:])),
            InputPort(name="text", shape=tuple(text.shape)),
        ),
        outputs=(OutputPort(name="mixed"),),
        operations=fused_operations(module, rewriting),
    )
    path = tmp_path / "layers.mlpackage"
    save(convert(trace(component), component), path)
    checks = (*check_package(read_package(path), component), *parity_checks(compute_parity(path, component)))
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize("width", [48, 320])
def test_sinusoid_of_the_host_is_that_of_the_network(width: int) -> None:
    times = torch.tensor([0.0, 1.0, 249.75, 999.0])
    expected = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)(times)
    # Diffusers multiplies in float32: 1000 rounded to 24 bits is off by 6e-5.
    assert (time_embedding(times, width) - expected).abs().max() < 1e-4


def test_sinusoid_needs_an_even_width() -> None:
    with pytest.raises(ValueError, match="must be even, got 7"):
        time_embedding(torch.zeros(1), 7)


@pytest.mark.parametrize(
    ("setting", "units", "expected"),
    [
        ("auto", "cpu_and_ne", "neural_engine"),
        ("auto", "all", "gpu"),
        ("auto", "cpu_and_gpu", "gpu"),
        ("gpu", "cpu_and_ne", "gpu"),
        ("neural_engine", "cpu_only", "neural_engine"),
    ],
)
def test_auto_follows_the_compute_units(setting: Any, units: ComputeUnits, expected: str) -> None:
    scenario = Scenario(frames=8, height=32, width=32, denoising_steps=4, compute_units=units)
    assert chosen_lowering(setting, scenario) == expected


def test_unknown_lowering_is_named() -> None:
    with pytest.raises(ConfigError, match=r"export\.lowering is 'tpu', must be one of auto, neural_engine, gpu"):
        lower(toy_denoiser(("none",) * 5), frames=8, lowering="tpu")  # type: ignore[arg-type]  # what is refused
