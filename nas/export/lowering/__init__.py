"""One trained denoiser in the form each compute unit runs best: two rewritings of the torch network, equal to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nas.core.errors import ConfigError
from nas.export.lowering.gpu import GpuRewriting
from nas.export.lowering.host import time_embedding
from nas.export.lowering.network import LoweredUNet
from nas.export.lowering.neural_engine import NeuralEngineRewriting

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from nas.export.lowering.network import Rewriting
    from nas.models.unet import VideoUNet

__all__ = ["LOWERINGS", "LoweredUNet", "Lowering", "chosen_lowering", "lower", "time_embedding"]

Lowering = Literal["neural_engine", "gpu"]
LOWERINGS: tuple[Lowering, ...] = ("neural_engine", "gpu")


def chosen_lowering(setting: Literal["auto", "neural_engine", "gpu"], scenario: Scenario) -> Lowering:
    """Return the lowering that ``export.lowering`` means: ``auto`` is that of the scenario's compute units."""
    if setting != "auto":
        return setting
    return "neural_engine" if scenario.compute_units == "cpu_and_ne" else "gpu"


def lower(denoiser: VideoUNet, *, frames: int, lowering: Lowering) -> LoweredUNet:
    """Rewrite a denoiser for one compute unit and clips of ``frames`` frames; weights are shared, not copied.

    Args:
        denoiser: Network in float32; not changed.
        frames: Latent frames of every clip; one frame leaves the temporal layers out, as the network does.
        lowering: ``neural_engine``: convolutions of two axes instead of linear layers and three-dimensional
            convolutions, attention head by head in einsums, pixels on the last axis. ``gpu``: linear layers and one
            ``scaled_dot_product_attention`` an attention, its batch always one.

    Raises:
        ConfigError: There is no such lowering.
    """
    rewritings: dict[str, type[Rewriting]] = {"neural_engine": NeuralEngineRewriting, "gpu": GpuRewriting}
    if lowering not in rewritings:
        raise ConfigError(f"export.lowering is {lowering!r}, must be one of auto, {', '.join(rewritings)}")
    return LoweredUNet(denoiser, rewritings[lowering](frames))
