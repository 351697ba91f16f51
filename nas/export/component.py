"""One network of an export: its module, its inputs and outputs, and what it is tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from nas.export.lowering import lower, time_embedding

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from nas.export.lowering import Lowering
    from nas.models.unet import VideoUNet

PortType = Literal["float16", "int32"]

# Noise; the largest times leave float16 the fewest digits behind the point.
SEED, TIME = 0, 999.0

INPUT_NAMES = ("sample", "time_embedding", "encoder_hidden_states")
OUTPUT_NAME = "velocity"
DESCRIPTION = "Denoiser of latent video: predicts the velocity from noisy latents, time and text."


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPort:
    """An input of fixed shape; ``text`` says what it means, for the package and its card."""

    name: str
    shape: tuple[int, ...]
    dtype: PortType = "float16"
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPort:
    """An output, float16 in the package; ``text`` says what it means."""

    name: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Component:
    """What one package is made from.

    Attributes:
        name: Stem of the package's file: ``denoiser``, ``text_encoder``, ``decoder``.
        module: Float32 on the CPU; takes the inputs positionally in their order and returns one tensor, or a tuple in
            the order of the outputs.
        inputs: In call order.
        outputs: In order.
        description: What the network is, one sentence.
        examples: Values that it is tried on, by input name; inputs not in it get standard normal numbers. Integer
            inputs must be in it.
        examples_text: The same in words: ``time 999``.
        operations: Core ML operations, by name, that a conversion makes of several torch calls; the others are counted.
        reference: The network before it was rewritten for the export, called like ``module``; None when ``module`` is
            that network itself.
    """

    name: str
    module: nn.Module
    inputs: tuple[InputPort, ...]
    outputs: tuple[OutputPort, ...]
    description: str = ""
    examples: Mapping[str, Tensor] = field(default_factory=dict)
    examples_text: str = ""
    operations: Mapping[str, int] = field(default_factory=dict)
    reference: Callable[..., Any] | None = None

    @property
    def texts(self) -> dict[str, str]:
        """What each input and output means, by name."""
        return {port.name: port.text for port in self.inputs} | {port.name: port.text for port in self.outputs}


def empty_inputs(component: Component, device: str = "cpu") -> tuple[Tensor, ...]:
    """Return zeros in the shapes of the inputs, in call order; floats are float32, as the module takes them."""
    types = {"float16": torch.float32, "int32": torch.int32}
    return tuple(torch.zeros(port.shape, dtype=types[port.dtype], device=device) for port in component.inputs)


def example_inputs(component: Component, *, seed: int = SEED) -> dict[str, Tensor]:
    """Return inputs to try a component on, by name in call order, all exact in float16.

    Raises:
        ValueError: An integer input has no example.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for port in component.inputs:
        if port.name in component.examples:
            inputs[port.name] = component.examples[port.name]
        elif port.dtype == "float16":
            inputs[port.name] = torch.randn(port.shape, generator=generator).half().float()
        else:
            raise ValueError(f"{component.name}: integer input {port.name!r} needs an example")
    return inputs


def example_words(component: Component, *, seed: int = SEED) -> str:
    """Say in words what ``example_inputs`` returns."""
    random = [port.name for port in component.inputs if port.name not in component.examples]
    parts = [f"standard normal {' and '.join(random)} (seed {seed})"] if random else []
    return ", ".join([*parts, component.examples_text] if component.examples_text else parts)


def denoiser_component(denoiser: VideoUNet, scenario: Scenario, *, lowering: Lowering) -> Component:
    """Return the denoiser for one clip: latents (1, T, C, H, W), sinusoid of the time (1, base), text (1, N, D).

    Args:
        denoiser: Network in float32 on the CPU (``nas.export.trace.exportable``).
        scenario: Frames and size.
        lowering: The compute unit that the network is rewritten for; its reference stays the network as it is.

    Raises:
        ConfigError: The scenario does not fit the backbone, or there is no such lowering.
    """
    spec = denoiser.spec
    latents = (1, scenario.frames, spec.latent_channels, *spec.latent_size(scenario))
    sample, time, text = INPUT_NAMES
    times = torch.full((1,), TIME)
    module = lower(denoiser, frames=scenario.frames, lowering=lowering)
    return Component(
        name="denoiser",
        module=module,
        inputs=(
            InputPort(
                name=sample,
                shape=latents,
                text="Noisy latents (1, frames, channels, height, width): (1 - t) x + t noise.",
            ),
            InputPort(
                name=time,
                shape=(1, spec.base_channels),
                text="Cosines, then sines, of 1000 t exp(-ln(10000) i / half) for i = 0 ... half - 1; t is 1 at noise.",
            ),
            InputPort(name=text, shape=(1, spec.text_tokens, spec.text_width), text="Text tokens (1, tokens, width)."),
        ),
        outputs=(OutputPort(name=OUTPUT_NAME, text="Velocity, noise minus data, in the shape of the latents."),),
        description=DESCRIPTION,
        examples={time: time_embedding(times, spec.base_channels).half().float()},
        examples_text=f"time {TIME:g}",
        operations=module.fused_operations(),
        reference=lambda latent, _sinusoid, tokens: denoiser(latent, times, tokens),
    )
