"""What a search works with: prices, budget and solver tables, once it is known that something keeps the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.pipeline.costs import additive_costs, latency_range_ms, load_prices
from nas.pipeline.further_devices import device_budgets
from nas.search.impossible import refuse_impossible

if TYPE_CHECKING:
    from latency_models import CostTable, JointCostTable
    from nas.core.cost import Budget
    from nas.pipeline.context import Context
    from nas.search.exact import SearchCosts


def feasible_prices(context: Context) -> tuple[CostTable | JointCostTable, Budget, SearchCosts]:
    """Return the prices of a run's candidates, its budget, and both as engines solve them.

    Raises:
        BudgetError: No candidate keeps the budget by the tables; names the binding limits and the smallest violation.
        InputError: A predictor cannot be read.
    """
    config, space = context.config, context.search_space
    table = load_prices(context)
    budget = config.budget.build(*latency_range_ms(table, space), devices=device_budgets(config))
    costs = additive_costs(table, budget)
    bare = table.estimate(space.from_options([0] * len(table.num_options)))
    refuse_impossible(costs, budget, space=space.identifier, faults=bare.infeasible)
    return table, budget, costs
