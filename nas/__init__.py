"""Hardware-aware neural architecture search for on-device video diffusion; public names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Architecture": "nas.core.architecture",
    "Budget": "nas.core.cost",
    "CostEstimate": "nas.core.cost",
    "Evaluation": "nas.core.evaluation",
    "ParetoFront": "nas.core.pareto",
    "Quality": "nas.core.evaluation",
    "Scenario": "nas.core.scenario",
    "Workload": "nas.core.workload",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
