"""Cost tables of several scenarios as one: the last option of a candidate says which of them prices it."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from latency_models.table_arrays import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from latency_models.cost_table import CostTable
    from nas.core.architecture import Architecture
    from nas.core.cost import CostEstimate
    from nas.core.protocols import SearchSpace


class JointCostTable:
    """Cost of every architecture of a space whose last slot is the scenario.

    Args:
        space: The joint space.
        tables: One table for each option of the last slot, in its order, over the other slots.

    Raises:
        ValueError: There are not as many tables as the last slot has options.
    """

    def __init__(self, space: SearchSpace, tables: Sequence[CostTable]) -> None:
        scenarios = len(space.options(space.slots()[-1]))
        if len(tables) != scenarios:
            raise ValueError(f"a joint table needs one table for each of {scenarios} scenarios, got {len(tables)}")
        self.space = space
        self.tables = tuple(tables)

    @property
    def num_options(self) -> tuple[int, ...]:
        """Number of options of each slot, the number of scenarios last."""
        return (*self.tables[0].num_options, len(self.tables))

    def estimate(self, architecture: Architecture) -> CostEstimate:
        """Return the cost of one architecture in its own scenario, with intervals and a breakdown by block."""
        *options, scenario = self.space.to_options(architecture)
        table = self.tables[scenario]
        return table.estimate(table.space.from_options(options))

    def score(self, options: NDArray[np.integer]) -> Scores:
        """Score candidates given as option indices (N, slots + 1), the scenario's last.

        Raises:
            ValueError: Wrong shape or an index out of range.
        """
        if options.ndim != 2 or options.shape[1] != len(self.num_options):
            raise ValueError(f"options must have shape (N, {len(self.num_options)}), got {options.shape}")
        scenario = options[:, -1]
        if len(options) and not 0 <= scenario.min() <= scenario.max() < len(self.tables):
            raise ValueError(f"the last option must lie in 0 to {len(self.tables) - 1}")
        rows = [np.flatnonzero(scenario == index) for index in range(len(self.tables))]
        parts = [table.score(options[own, :-1]) for table, own in zip(self.tables, rows, strict=True)]
        order = np.argsort(np.concatenate(rows), kind="stable")
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])[order] for field in fields(Scores)
        }
        return Scores(**columns)
