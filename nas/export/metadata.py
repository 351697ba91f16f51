"""What a package says about itself: author, licence, what it is, how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.artefacts import TrainedModel
from nas.core.cost import CostEstimate, Origin
from nas.core.evaluation import Quality
from nas.core.files import canonical_json
from nas.core.provenance import versions
from nas.core.schema import to_data
from nas.export.component import DESCRIPTION

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.core.scenario import Scenario

PREFIX = "mobile-video-nas"
ARCHITECTURE_ENTRY = f"{PREFIX}.architecture"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFigure:
    """A figure for the model card: ``latency on host-cpu``, ``252 ms (234-272)``, measured."""

    name: str
    value: str
    origin: Origin
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportMetadata:
    """Facts that the network does not carry; what is absent is left out of the package and the card.

    Attributes:
        author: Who made the weights.
        license: Licence of the weights.
        description: What the network is, one sentence.
        trained: How the weights came about; without it the card says that they are untrained.
        cost: Cost that the search saw.
        quality: Quality that the search saw.
        figures: Further figures with their origin.
        costed_weights: Form of the weights that the cost is of, where the package stores another.
    """

    author: str = ""
    license: str = ""
    description: str = DESCRIPTION
    trained: TrainedModel | None = None
    cost: CostEstimate | None = None
    quality: Quality | None = None
    figures: tuple[MeasuredFigure, ...] = ()
    costed_weights: str = ""


def package_entries(
    architecture: Architecture, scenario: Scenario, metadata: ExportMetadata, *, lowering: str
) -> dict[str, str]:
    """Return the package's own metadata entries: key and text, choices and scenario as canonical JSON."""
    trained = metadata.trained
    entries = {
        "architecture": architecture.digest,
        "space": architecture.space,
        "choices": canonical_json(dict(architecture.choices)),
        "lowering": lowering,
        "scenario": canonical_json(to_data(scenario)),
        "versions": canonical_json(tool_versions()),
        "training": f"{trained.stage}, {trained.steps} steps, weights {trained.sha256}" if trained else "untrained",
    }
    return {f"{PREFIX}.{key}": value for key, value in entries.items()}


def tool_versions() -> dict[str, str | None]:
    """Return the versions of what made the package."""
    wanted = ("python", "mobile-video-nas", "coremltools", "torch", "diffusers", "numpy")
    found = versions()
    return {name: found[name] for name in wanted}
