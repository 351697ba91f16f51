"""Probes: good designs with one option exchanged for one that hardly any judged architecture held.

The model expects options to matter about as much as those that it has seen. Where a few options of a few slots matter
far more, one that was never tried, or only together with other new ones, looks poor and certain, and would never be
proposed. A probe is chosen as if such options were as uncertain as options differ: by expected hypervolume, with that
spread added to the model's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.search import acquisition
from nas.search.candidates import known_points

if TYPE_CHECKING:
    from collections.abc import Collection

    from nas.core.cost import Budget
    from nas.search.exact import SearchCosts
    from nas.search.exact.tables import IntArray, SlotSum
    from nas.search.neighbours import Row
    from nas.search.quality_model import QualityModel

# An option held by this many judged architectures is known well enough.
_ENOUGH_TRIALS = 3
_MOST_MEMBERS = 20


def probe(
    members: IntArray,
    judged: IntArray,
    mean: SlotSum,
    *,
    known: Collection[Row],
    model: QualityModel,
    costs: SearchCosts,
    budget: Budget,
) -> Row | None:
    """Return the most promising probe; ``None`` when every option that fits was tried often enough.

    Args:
        members: Good architectures (N, L), of which up to ``_MOST_MEMBERS`` are changed.
        judged: Architectures judged or proposed (M, L), whose options count as tried.
        mean: The model's posterior mean; its options' spread is what a new one may differ by.
        known: What must not be proposed again.
        model: What is known of quality.
        costs: What is known of costs.
        budget: Limits that the probe keeps.
    """
    rows, trials = _exchanged(members, judged, costs.sizes)
    new = [index for index, row in enumerate(rows.tolist()) if tuple(row) not in known]
    rows, trials = rows[new], trials[new]
    inside = costs.feasible(rows, budget)
    rows, trials = rows[inside], trials[inside]
    if not len(rows):
        return None
    scored = costs.score(rows)
    figures = np.stack([scored.latency_ms, scored.peak_memory_mb], axis=1)
    expected, deviation = model.predict(rows)
    spread = float(np.std(np.concatenate([row - row.mean() for row in mean.slots])))
    deviation = np.sqrt(deviation**2 + spread**2 / (1.0 + trials))
    points = known_points(model.observations.options, -model.smoothed(), costs, budget)
    corner = acquisition.corner(np.concatenate([figures, points[:, :2]]), points[:, 2], budget)
    gains = acquisition.expected_gains(figures, -expected, deviation, points, corner)
    best = int(np.argmax(gains))
    return tuple(rows[best].tolist()) if gains[best] > 0 else None


def _exchanged(members: IntArray, judged: IntArray, sizes: tuple[int, ...]) -> tuple[IntArray, IntArray]:
    """Return members with one option exchanged for a hardly tried one (K, L), and how often that was tried (K,)."""
    parents = members[np.unique(np.linspace(0, len(members) - 1, _MOST_MEMBERS).round().astype(np.int64))]
    rows, trials = [parents[:0]], [np.zeros(0, dtype=np.int64)]
    for slot, size in enumerate(sizes):
        counts = np.bincount(judged[:, slot], minlength=size)
        for option in np.flatnonzero(counts < _ENOUGH_TRIALS):
            changed = parents.copy()
            changed[:, slot] = option
            rows.append(changed)
            trials.append(np.full(len(changed), counts[option]))
    return np.concatenate(rows), np.concatenate(trials)
