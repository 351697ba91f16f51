"""Fit the memory line on whole-network measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def fit_memory(estimated_mb: Sequence[float], measured_mb: Sequence[float]) -> tuple[float, float]:
    """Return (scale, offset) of measured activation memory on its estimate.

    Siegel's repeated medians, which single odd networks do not tilt; with no spread in the estimate, or a falling line,
    the scale is 1 and only the offset is fitted.
    """
    from scipy.stats import siegelslopes

    estimated, measured = np.asarray(estimated_mb, dtype=float), np.asarray(measured_mb, dtype=float)
    scale = 1.0
    if len(estimated) >= 5 and len(np.unique(estimated)) >= 3:
        slope = float(siegelslopes(measured, estimated)[0])
        scale = slope if slope > 0 else 1.0
    return scale, float(np.median(measured - scale * estimated))
