"""What one task reserves on the machine that it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Processors, GPUs and memory of one task; a part of a processor or of one GPU is allowed."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("cpus", self.cpus), ("gpus", self.gpus), ("memory_mb", self.memory_mb or 0.0)):
            if not isfinite(value) or value < 0:
                raise ValueError(f"resources.{name} must be finite and not negative, got {value}")
        if self.cpus == self.gpus == 0:
            raise ValueError("resources of a task must hold a part of a processor or of a GPU, got none of both")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"resources.gpus must be a whole number above 1, got {self.gpus}")

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} processors"]
        if self.gpus:
            parts.append(f"{self.gpus:g} GPUs")
        if self.memory_mb is not None:
            parts.append(f"{self.memory_mb:g} MB")
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
