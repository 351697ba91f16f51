"""The engine of a run: the one its YAML names, with what is known before, around it the levels of quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.pipeline.context import present
from nas.runs.front import LevelSummary
from nas.search import engines
from nas.search.engines.halving import SuccessiveHalving
from nas.search.engines.model_based import start_of
from nas.search.engines.warm import WarmStarted, good_designs
from nas.search.levels import LevelModels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchEngine
    from nas.pipeline.context import Context
    from nas.search.exact import SearchCosts, SlotSum
    from nas.search.judging import QualityLevel

DESIGNS_FROM_KNOWLEDGE = 12


def make_engine(
    context: Context,
    levels: Sequence[QualityLevel],
    *,
    costs: SearchCosts,
    budget: Budget,
    known: tuple[SlotSum, ...] = (),
) -> SearchEngine:
    """Return a fresh engine.

    Args:
        context: The run.
        levels: Its levels of quality; where there are several, candidates are promoted through them.
        costs: Known costs by slot and option.
        budget: Limits.
        known: What is known of quality before the search, one figure a source.
    """
    section, space = present(context.config.search, "search"), context.search_space
    models = LevelModels(sizes=costs.sizes, num_levels=len(levels), latency=costs.hint_ms, outside=known)
    options = section.engine.model_dump(exclude={"type"}, exclude_none=True)
    if section.engine.type == "model_based":
        options.setdefault("start", start_of(section.evaluations))
    engine = engines.build(
        section.engine.type,
        space,
        options,
        context.streams,
        costs=costs,
        budget=budget,
        hints=lambda: models.hints(len(levels) - 1),
    )
    if known:
        designs = good_designs(costs, budget, known, count=DESIGNS_FROM_KNOWLEDGE)
        engine = WarmStarted(engine, space, designs)
    if len(levels) == 1:
        return engine
    ratio = context.config.quality.ratio if context.config.quality.type == "levels" else None
    prices = [level.price for level in levels]
    return SuccessiveHalving(
        engine, space, models, context.streams, prices=prices, costs=costs, budget=budget, ratio=ratio
    )


def level_summaries(levels: Sequence[QualityLevel], evaluations: Sequence[Evaluation]) -> tuple[LevelSummary, ...]:
    """Return what each of several levels did; nothing where there is one."""
    if len(levels) == 1:
        return ()
    summaries = []
    for index, level in enumerate(levels):
        name = None if index == len(levels) - 1 else index
        mine = [one for one in evaluations if one.proposal.level == name]
        summaries.append(
            LevelSummary(
                estimator=level.estimator.name,
                fidelity=level.estimator.fidelity,
                price=level.price,
                complete=sum(one.state == "complete" for one in mine),
                failed=sum(one.state == "failed" for one in mine),
                seconds=sum(one.seconds for one in mine),
            )
        )
    return tuple(summaries)
