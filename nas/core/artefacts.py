"""Files a run produces for others: trained weights and exported packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas.core.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """Weights of one architecture; ``folder`` is in the diffusers layout, relative to the run directory."""

    architecture: Architecture
    folder: str
    sha256: str
    stage: str
    steps: int
    metrics: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureCheck:
    """One fact of an exported package held against the source network."""

    name: str
    expected: Any
    found: Any
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A Core ML package and what was checked on it after reloading."""

    architecture: Architecture
    package: str
    sha256: str
    precision: str
    minimum_os: str
    package_bytes: int
    parameters: int
    operations: tuple[tuple[str, int], ...]
    checks: tuple[StructureCheck, ...]
    seconds: float
    peak_rss_mb: float
