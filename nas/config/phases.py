"""The ``phases`` section of a run's YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from nas.config.section import Count, Positive, Section

if TYPE_CHECKING:
    from typing import Self


class NoPhase(Section):
    """The phase is left out of every cost."""

    type: Literal["none"] = "none"


class WorkloadPhase(Section):
    """The phase is described operation by operation and priced by the predictor of the denoiser.

    Text encoder: CLIP ViT-L/14. Decoder: Stable Diffusion's image decoder, ``frames`` latent frames in a call.
    """

    type: Literal["workload"]
    frames: Count = 1


class ProfiledPhase(Section):
    """The phase is measured in the profile stage: the toy space's own modules, on this host."""

    type: Literal["profiled"]


class StatedPhase(Section):
    """A figure from elsewhere, of one call: its ends are stated, not checked, and ``source`` says by whom.

    Memory that nobody has stated is left out, and shown as unknown.
    """

    type: Literal["stated"]
    latency_ms: Positive
    low_ms: Positive
    high_ms: Positive
    calls: Count = 1
    weights_mb: Annotated[float, Field(ge=0.0)] | None = None
    activation_mb: Annotated[float, Field(ge=0.0)] | None = None
    origin: Literal["measured", "published"]
    source: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _ends_hold_the_figure(self) -> Self:
        if not self.low_ms <= self.latency_ms <= self.high_ms:
            raise ValueError(
                f"needs low_ms <= latency_ms <= high_ms, got {self.low_ms}, {self.latency_ms}, {self.high_ms}"
            )
        if (self.weights_mb is None) != (self.activation_mb is None):
            raise ValueError("give both weights_mb and activation_mb, or neither")
        return self


Phase = Annotated[NoPhase | WorkloadPhase | ProfiledPhase | StatedPhase, Field(discriminator="type")]


class PhasesSection(Section):
    """What a generation runs besides the denoiser; latency and memory limits hold for all of it.

    ``memory``: all networks stay loaded (``together``), or each is loaded, run and unloaded (``in_turn``); what loading
    costs belongs to ``overhead``, the time between the phases.
    """

    memory: Literal["together", "in_turn"] = "together"
    text_encoder: Phase = NoPhase()
    decoder: Phase = NoPhase()
    overhead: Annotated[NoPhase | ProfiledPhase | StatedPhase, Field(discriminator="type")] = NoPhase()
