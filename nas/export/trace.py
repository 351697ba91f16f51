"""The denoiser as a graph of fixed shapes, traced with fake tensors: nothing is computed, whatever the size.

``torch.jit.trace`` would run the network once: hundreds of seconds at full size, and tens of gigabytes for attention
over all pixels of all frames. ``torch.export`` only follows shapes.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from nas.core.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.export import ExportedProgram

    from nas.core.scenario import Scenario
    from nas.models.unet import VideoUNet

INPUT_NAMES = ("sample", "timestep", "encoder_hidden_states")
OUTPUT_NAME = "velocity"

# Calls of torch functions that must come out of a conversion one for one, under the name of their Core ML operation.
CORE_ML_OPERATIONS = {
    "conv2d": "conv",
    "conv3d": "conv",
    "linear": "linear",
    "scaled_dot_product_attention": "scaled_dot_product_attention",
    "layer_norm": "layer_norm",
}


def input_shapes(denoiser: VideoUNet, scenario: Scenario) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input for one clip: latents (1, T, C, H, W), time (1,), text (1, N, D).

    Raises:
        ConfigError: The scenario does not fit the backbone.
    """
    spec = denoiser.spec
    height, width = spec.latent_size(scenario)
    shapes = (
        (1, scenario.frames, spec.latent_channels, height, width),
        (1,),
        (1, spec.text_tokens, spec.text_width),
    )
    return dict(zip(INPUT_NAMES, shapes, strict=True))


def used_parameters(denoiser: VideoUNet, scenario: Scenario) -> dict[str, Tensor]:
    """Return the parameters that a call in ``scenario`` uses: a clip of one frame skips the temporal layers."""
    return {
        name: parameter.detach()
        for name, parameter in denoiser.named_parameters()
        if scenario.frames > 1 or not name.startswith("temporal_layers.")
    }


def exportable(denoiser: VideoUNet) -> VideoUNet:
    """Return the denoiser itself when it is float32 on the CPU, a copy that is otherwise.

    Raises:
        VerificationError: A weight is not finite or leaves the range of float16; all such are named.
    """
    plain = all(item.dtype == torch.float32 and item.device.type == "cpu" for item in denoiser.parameters())
    model = denoiser if plain else copy.deepcopy(denoiser).to(device="cpu", dtype=torch.float32)
    limit = torch.finfo(torch.float16).max
    # Also true for a NaN, which no comparison holds for.
    bad = [name for name, item in model.named_parameters() if not bool(item.detach().abs().max() <= limit)]
    if bad:
        raise VerificationError(
            f"{len(bad)} weights do not fit into float16 (finite, at most {limit:.0f}): {', '.join(bad[:5])}",
            hint="train with weight decay, or check the checkpoint",
        )
    return model


def trace(denoiser: VideoUNet, scenario: Scenario) -> ExportedProgram:
    """Return the graph of one denoiser call for one clip, all shapes fixed.

    Args:
        denoiser: Network in float32 on the CPU; left as it is, its mode included.
        scenario: Frames and size.

    Raises:
        ConfigError: The scenario does not fit the backbone.
    """
    inputs = tuple(torch.zeros(shape) for shape in input_shapes(denoiser, scenario).values())
    with evaluating(denoiser), warnings.catch_warnings():
        # torch 2.13's own use of its tree nodes; gone when torch stops calling it.
        warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*", category=FutureWarning)
        program = torch.export.export(denoiser, inputs)
        # An empty table keeps attention, norms and linear layers whole; coremltools wants this form.
        return program.run_decompositions({})


def count_calls(denoiser: VideoUNet, scenario: Scenario) -> dict[str, int]:
    """Count what one call computes, by Core ML operation, from the torch side and without computing.

    The network runs once on the meta device while every call of a torch function in ``CORE_ML_OPERATIONS`` is counted.
    """
    shapes = input_shapes(denoiser, scenario).values()
    tensors = dict(denoiser.named_parameters()) | dict(denoiser.named_buffers())
    without_memory = {name: torch.empty_like(item, device="meta") for name, item in tensors.items()}
    counter = _CallCounter()
    with evaluating(denoiser), counter:
        functional_call(denoiser, without_memory, tuple(torch.empty(shape, device="meta") for shape in shapes))
    counts = Counter[str]()
    for function, number in counter.calls.items():
        if function in CORE_ML_OPERATIONS:
            counts[CORE_ML_OPERATIONS[function]] += number
    return {name: counts[name] for name in dict.fromkeys(CORE_ML_OPERATIONS.values())}


class _CallCounter(TorchFunctionMode):
    """Counts calls of torch functions by name; calls from inside a counted one are not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # torch's signature
        self.calls[getattr(func, "__name__", str(func))] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def evaluating(denoiser: VideoUNet) -> Iterator[None]:
    """Put the network into evaluation mode, without gradients, for as long as the block runs."""
    training = denoiser.training
    denoiser.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        denoiser.train(training)
