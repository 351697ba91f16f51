"""Fit the additive correction of a block table, and the memory line, on whole-network measurements.

scikit-learn is imported inside functions: predicting does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latency_models.predictors.block_table import KindCorrection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

_PENALTIES = tuple(float(value) for value in np.logspace(-3, 4, 15))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRow:
    """One whole network as the fit sees it; every figure adds up over its blocks.

    ``kind_ms`` is table time by block kind and ``kind_count`` the number of blocks of that kind.
    """

    subject: str
    measured_ms: float
    kind_ms: dict[str, float]
    kind_count: dict[str, int]
    weights_mb: float

    @property
    def table_ms(self) -> float:
        """Sum of the block table."""
        return sum(self.kind_ms.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFit:
    """Correction of the table sum: constant, per MB of weights, common to all blocks, and per block kind.

    The corrections per kind include the common one.
    """

    overhead_ms: float
    table_scale: float
    block_extra_ms: float
    ms_per_weight_mb: float
    corrections: tuple[KindCorrection, ...]
    penalty: float


def fit_latency(rows: Sequence[NetworkRow]) -> LatencyFit:
    """Fit what the table sum misses, by ridge regression on relative errors.

    Features are table time and count, of all blocks and per block kind, and the weight bytes; only those that vary
    between the rows.
    The penalty is chosen by generalised leave-one-out, so that with few or noisy networks the table itself remains,
    shifted by a constant that is never penalised. Time overhead is the part of the fit that no feature carries; it can
    be negative (a block measured alone pays for a call that it does not pay inside a network).
    """
    from sklearn.linear_model import RidgeCV

    measured = np.array([row.measured_ms for row in rows])
    table = np.array([row.table_ms for row in rows])
    names, columns = _features(rows)
    mean, spread = columns.mean(axis=0), columns.std(axis=0)
    keep = spread > 1e-9 * np.maximum(np.abs(mean), 1e-12)
    names = [name for name, kept in zip(names, keep, strict=True) if kept]
    mean, spread = mean[keep], spread[keep]
    typical = float(np.median(measured))
    standard = (columns[:, keep] - mean) / spread * typical
    # A large scale makes the penalty on the constant negligible.
    constant = np.full((len(rows), 1), 1e4 * typical)
    design = np.hstack([constant, standard]) / measured[:, None]
    model = RidgeCV(alphas=_PENALTIES, fit_intercept=False).fit(design, (measured - table) / measured)
    slopes = model.coef_[1:] * typical / spread
    overhead = float(model.coef_[0]) * 1e4 * typical - float(slopes @ mean)
    by_name = dict(zip(names, (float(value) for value in slopes), strict=True))
    table_scale, block_extra_ms = 1.0 + by_name.get(("ms", ""), 0.0), by_name.get(("count", ""), 0.0)
    kinds = sorted({kind for _, kind in by_name if kind})
    corrections = tuple(
        KindCorrection(
            kind=kind,
            scale=table_scale + by_name.get(("ms", kind), 0.0),
            extra_ms=block_extra_ms + by_name.get(("count", kind), 0.0),
        )
        for kind in kinds
    )
    return LatencyFit(
        overhead_ms=overhead,
        table_scale=table_scale,
        block_extra_ms=block_extra_ms,
        ms_per_weight_mb=by_name.get(("weights", ""), 0.0),
        corrections=corrections,
        penalty=float(model.alpha_),
    )


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


def _features(rows: Sequence[NetworkRow]) -> tuple[list[tuple[str, str]], FloatArray]:
    kinds = sorted({kind for row in rows for kind in row.kind_ms})
    names = [("ms", ""), ("count", ""), ("weights", "")]
    names += [("ms", kind) for kind in kinds] + [("count", kind) for kind in kinds]
    columns = [
        [row.table_ms, float(sum(row.kind_count.values())), row.weights_mb]
        + [row.kind_ms.get(kind, 0.0) for kind in kinds]
        + [float(row.kind_count.get(kind, 0)) for kind in kinds]
        for row in rows
    ]
    return names, np.array(columns, dtype=float)
