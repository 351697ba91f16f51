"""Whether two costs of one architecture are of the same price list."""

from __future__ import annotations

from math import isclose
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.core.cost import CostEstimate

# Sums of some hundred doubles in another order differ by about 1e-14; another calibration by far more than this.
_PRICE_TOLERANCE = 1e-9


def cost_differences(recorded: CostEstimate, present: CostEstimate) -> list[str]:
    """Say where two costs of one architecture differ by more than the rounding of sums on another machine."""
    texts = [
        f"{name} was {getattr(recorded, name)!r} and is {getattr(present, name)!r}"
        for name in ("predictor", "device", "scenario", "origin", "parameters")
        if getattr(recorded, name) != getattr(present, name)
    ]
    pairs = (
        ("latency_ms", recorded.latency_ms, present.latency_ms),
        ("upper end of latency_ms", recorded.latency_interval_ms.high, present.latency_interval_ms.high),
        ("peak_memory_mb", recorded.peak_memory_mb, present.peak_memory_mb),
        ("upper end of peak_memory_mb", recorded.memory_interval_mb.high, present.memory_interval_mb.high),
    )
    return texts + [
        f"{name} was {before:.6g} and is {now:.6g}"
        for name, before, now in pairs
        if not isclose(before, now, rel_tol=_PRICE_TOLERANCE)
    ]
