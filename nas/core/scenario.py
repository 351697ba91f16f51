"""The conditions under which a cost is stated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Precision = Literal["float32", "float16", "bfloat16"]
ComputeUnits = Literal["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"]

# Choices of a joint space that are of the scenario: ``scenario.frames``.
SCENARIO_SLOT = "scenario"
ELEMENT_BYTES: dict[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Frames, size, steps and precision for which a cost holds.

    Attributes:
        frames: Latent frames the denoiser sees in one call.
        height: Height of the decoded video in pixels; the space knows the latent's down-sampling.
        width: Width of the decoded video in pixels.
        denoising_steps: Calls of the denoiser in one generation without guidance.
        guidance: Whether classifier-free guidance doubles the calls.
        precision: Number format of weights and activations.
        compute_units: Core ML compute units the network may use; ignored on other hosts.
    """

    frames: int
    height: int
    width: int
    denoising_steps: int
    guidance: bool = False
    precision: Precision = "float16"
    compute_units: ComputeUnits = "cpu_and_ne"

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width", "denoising_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"scenario.{name} must be at least 1, got {getattr(self, name)}")

    @property
    def denoiser_calls(self) -> int:
        """Denoiser calls of one generation: steps, twice with guidance."""
        return self.denoising_steps * (2 if self.guidance else 1)

    @property
    def element_bytes(self) -> int:
        """Bytes of one weight or activation element."""
        return ELEMENT_BYTES[self.precision]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioPoint:
    """What a search chose of its scenario beside the architecture; None where it was not a choice.

    Attributes:
        denoising_steps: Calls of the denoiser in one generation without guidance.
        frames: Latent frames.
        size: Height and width of the decoded video in pixels.
        weight_bits: Bits of a stored weight.
    """

    denoising_steps: int | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None
    weight_bits: int | None = None

    def applied(self, scenario: Scenario) -> Scenario:
        """Return ``scenario`` with what was chosen in place of its own; bits are no part of it."""
        height, width = self.size or (scenario.height, scenario.width)
        return replace(
            scenario,
            denoising_steps=self.denoising_steps or scenario.denoising_steps,
            frames=self.frames or scenario.frames,
            height=height,
            width=width,
        )

    @property
    def text(self) -> str:
        """For people: ``4 steps, 16 frames, 512x512, 8-bit weights``; empty where nothing was a choice."""
        parts = (
            f"{self.denoising_steps} step{'s' if self.denoising_steps > 1 else ''}" if self.denoising_steps else "",
            f"{self.frames} frames" if self.frames else "",
            f"{self.size[0]}x{self.size[1]}" if self.size else "",
            f"{self.weight_bits}-bit weights" if self.weight_bits else "",
        )
        return ", ".join(part for part in parts if part)


def scenario_point(choices: Mapping[str, Any]) -> ScenarioPoint:
    """Return what an architecture's choices say of its scenario; nothing is chosen where it is of no joint space."""
    chosen = {name.rpartition(".")[2]: value for name, value in choices.items() if name.startswith(f"{SCENARIO_SLOT}.")}
    size = chosen.pop("size", None)
    height, width = map(int, str(size).split("x")) if size else (None, None)
    return ScenarioPoint(**chosen, size=None if height is None or width is None else (height, width))
