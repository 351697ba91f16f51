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
    pairs = [
        ("latency_ms", recorded.latency_ms, present.latency_ms),
        ("upper end of latency_ms", recorded.latency_interval_ms.high, present.latency_interval_ms.high),
        ("peak_memory_mb", recorded.peak_memory_mb, present.peak_memory_mb),
        ("upper end of peak_memory_mb", recorded.memory_interval_mb.high, present.memory_interval_mb.high),
    ]
    pairs += _optional_pairs(recorded, present)
    return texts + [
        f"{name} was {before:.6g} and is {now:.6g}"
        for name, before, now in pairs
        if not isclose(before, now, rel_tol=_PRICE_TOLERANCE)
    ]


def _optional_pairs(recorded: CostEstimate, present: CostEstimate) -> list[tuple[str, float, float]]:
    """Return what only some costs have: the package's size, one-sided ends, further devices."""
    pairs: list[tuple[str, float, float]] = []
    if recorded.package_mb is not None and present.package_mb is not None:
        pairs.append(("package_mb", recorded.package_mb, present.package_mb))
    if recorded.upper is not None and present.upper is not None:
        pairs.append(("one-sided end of latency_ms", recorded.upper.latency_ms, present.upper.latency_ms))
        pairs.append(("one-sided end of peak_memory_mb", recorded.upper.memory_mb, present.upper.memory_mb))
    for before, now in zip(recorded.devices, present.devices, strict=False):
        where = f" on {now.device}"
        pairs.append((f"latency_ms{where}", before.latency_ms, now.latency_ms))
        pairs.append((f"upper end of latency_ms{where}", before.latency_interval_ms.high, now.latency_interval_ms.high))
        pairs.append((f"peak_memory_mb{where}", before.peak_memory_mb, now.peak_memory_mb))
    return pairs
