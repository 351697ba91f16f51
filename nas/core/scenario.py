"""The conditions under which a cost is stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "float16", "bfloat16"]
ComputeUnits = Literal["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"]

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
