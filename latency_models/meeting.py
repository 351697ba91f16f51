"""The probability that a device keeps a budget with an architecture, before and after a search selected it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from latency_models.chances import basis_words, chance_below, moved, upper_ratios
from latency_models.pricing import parts_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models.chances import UpperRatios
    from latency_models.cost_table import CostTable
    from latency_models.pricing import WorkloadPrice
    from nas.core.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a selection does to upper ends of latency; see ``latency_models.selection.Correction``."""

    shift_ratio: float = 1.0
    widening_ratio: float = 1.0


class Meeting:
    """Probabilities that the device of a table keeps limits on latency and memory.

    They rest on the distribution of the predictor's errors, whatever probability the table's own ends are for. Of both
    limits together it is what Boole's inequality leaves: at least that.

    Args:
        table: Prices the architectures.
        latency_ms: Limit; None for none.
        memory_mb: Limit; None for none.
    """

    def __init__(self, table: CostTable, *, latency_ms: float | None, memory_mb: float | None) -> None:
        self._table = table
        self._latency_ms = latency_ms
        self._memory_mb = memory_mb
        self._ratios: Callable[[float], UpperRatios] = lru_cache(maxsize=4096)(self._ratios_at)

    def probability(self, architecture: Architecture, after: Moved | None = None) -> float:
        """Return the probability that ``architecture`` keeps the limits; 1 without limits, 0 where it does not run.

        With ``after`` it allows for the architecture's having been selected.
        """
        table, after = self._table, after or Moved()
        price = table.price(architecture)
        if price.infeasible or table.pipeline.infeasible or table.predictor.network_faults(architecture.digest):
            return 0.0
        missed = 0.0
        if self._latency_ms is not None:
            missed += 1.0 - chance_below(self._latency_end(price, after), self._latency_ms)
        if self._memory_mb is not None:
            missed += 1.0 - chance_below(self._memory_end(price), self._memory_mb)
        return max(0.0, 1.0 - missed)

    def basis(self) -> str:
        """Say what the probabilities rest on."""
        return basis_words(self._table.predictor.ratios)

    def _latency_end(self, price: WorkloadPrice, after: Moved) -> Callable[[float], float]:
        table, ratios = self._table, self._table.predictor.ratios
        inside_ms, outside_ms = parts_ms(price, table.scenario.denoiser_calls)
        predicted_ms = inside_ms + outside_ms + table.pipeline.latency_ms.value
        distance = 0.0 if ratios.domain is None else ratios.domain.distance(price)

        def end_ms(level: float) -> float:
            upper = self._ratios(level)
            near = float(ratios.upper_at(upper, distance))
            plain_ms = inside_ms * near + outside_ms * upper.outside + upper.others_ms(table.pipeline)
            return moved(plain_ms, predicted_ms, shift_ratio=after.shift_ratio, widening_ratio=after.widening_ratio)

        return end_ms

    def _memory_end(self, price: WorkloadPrice) -> Callable[[float], float]:
        terms = self._table.pipeline.memory()
        weights_mb = np.array([price.weights_mb])
        activation_mb = np.array([max((block.activation_mb for block in price.blocks), default=0.0)])
        return lambda level: float(terms.peak_mb(weights_mb, activation_mb, self._ratios(level).memory)[0])

    def _ratios_at(self, level: float) -> UpperRatios:
        return upper_ratios(self._table.predictor.ratios, level)
