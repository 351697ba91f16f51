"""Two exports of the toy space that together hold every temporal kind; made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import search_spaces
from nas.core.artefacts import ExportedModel, TrainedModel
from nas.core.cost import BlockCost, CostEstimate, Interval
from nas.core.evaluation import Quality
from nas.core.scenario import Scenario
from nas.export import ExportMetadata, MeasuredFigure, export_denoiser
from nas.export.component import denoiser_component
from nas.models.build import build_denoiser
from nas.models.unet import VideoUNet

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.export.component import Component
    from nas.export.lowering import Lowering

SCENARIO = Scenario(frames=8, height=32, width=32, denoising_steps=4)
CONVOLUTIONS_AND_SELF = ("conv1d", "conv3d", "self_attention_1d", "self_attention_3d", "none")
CROSS = ("none", "none", "cross_attention_1d", "cross_attention_3d", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A network, the folder it was exported to and the record."""

    denoiser: VideoUNet
    folder: Path
    model: ExportedModel

    @property
    def package(self) -> Path:
        return self.folder / self.model.packages[0]


def toy_architecture(kinds: tuple[str, ...]) -> Architecture:
    space = search_spaces.get("tiny")
    options = [
        next(index for index, option in enumerate(space.options(slot)) if option[f"{slot}.kind"] == kind)
        for slot, kind in zip(space.slots(), kinds, strict=True)
    ]
    return space.from_options(options)


def toy_denoiser(kinds: tuple[str, ...], *, seed: int = 0) -> VideoUNet:
    """A network as after training: no norm at one, no bias at zero, nothing that a conversion could fold away."""
    torch.manual_seed(seed)
    denoiser = build_denoiser(search_spaces.get("tiny"), toy_architecture(kinds))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return denoiser


def component_of(denoiser: VideoUNet, lowering: Lowering = "neural_engine") -> Component:
    """The denoiser as ``exported`` has it; ``exported_cross`` is for the GPU."""
    return denoiser_component(denoiser, SCENARIO, lowering=lowering)


def full_metadata(denoiser: VideoUNet) -> ExportMetadata:
    cost = CostEstimate(
        latency_ms=252.0,
        latency_interval_ms=Interval(low=234.0, high=272.0, coverage=0.9),
        peak_memory_mb=32.0,
        memory_interval_mb=Interval(low=31.0, high=33.3, coverage=0.9),
        parameters=1,
        blocks=(BlockCost(block="overhead", latency_ms=252.0, memory_mb=32.0),),
        device="host-cpu",
        scenario="8 frames",
        predictor="block table",
        origin="predicted",
    )
    return ExportMetadata(
        author="A. N. Author",
        license="Apache-2.0",
        trained=TrainedModel(
            architecture=denoiser.architecture,
            folder="train/x",
            sha256="ab" * 32,
            stage="adversarial",
            steps=300,
            metrics=(("mean", 0.84),),
        ),
        cost=cost,
        quality=Quality(score=0.67, standard_error=0.02, estimator="supernet", fidelity="64 held-out clips"),
        figures=(MeasuredFigure(name="latency | host", value="244 ms", origin="measured", where="host-cpu"),),
    )


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Convolutions and self-attention for the Neural Engine, with full metadata."""
    denoiser = toy_denoiser(CONVOLUTIONS_AND_SELF)
    folder = tmp_path_factory.mktemp("export") / "network"
    model = export_denoiser(denoiser, SCENARIO, folder, lowering="neural_engine", metadata=full_metadata(denoiser))
    return Exported(denoiser=denoiser, folder=folder, model=model)


@pytest.fixture(scope="session")
def exported_cross(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Cross-attention for the GPU, freshly built as a new network is, without metadata."""
    torch.manual_seed(0)
    denoiser = build_denoiser(search_spaces.get("tiny"), toy_architecture(CROSS))
    folder = tmp_path_factory.mktemp("export") / "network"
    model = export_denoiser(denoiser, SCENARIO, folder, lowering="gpu")
    return Exported(denoiser=denoiser, folder=folder, model=model)
