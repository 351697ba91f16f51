"""What drove a search, from its journal and cost table: written beside the front, and shown by ``nas show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from nas.core.explanation import Explanation
from nas.core.explanation_words import step_words, words
from nas.core.units import count, latency, memory, ratio
from nas.search.explain import COVERAGE, Subject, block_values, kind_drives, slot_drives
from nas.search.optimality import optimality_bound
from nas.search.posterior import fit_posterior
from nas.search.relaxation import budget_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.evaluation import Evaluation
    from nas.core.explanation import BlockValue, OptimalityBound
    from nas.pipeline.context import Context
    from nas.runs.front import FrontFile
    from nas.search.exact.problem import PessimisticCosts, SearchCosts

_DRAWS = 32
_MOST_MEMBERS = 20


def explain(
    context: Context, costs: SearchCosts, evaluations: Sequence[Evaluation], front: FrontFile
) -> Explanation | None:
    """Return what drove a search; ``None`` with fewer than two qualities."""
    space = context.search_space
    generator = context.streams.numpy("explain")
    posterior = fit_posterior(space, evaluations, costs, generator, draws=_DRAWS)
    if posterior is None:
        return None
    subject = Subject.of(space, costs, front.budget, posterior)
    members = [
        (member.architecture.digest, tuple(space.to_options(member.architecture)))
        for member in _telling(front.members, front.selected)
    ]
    chosen = dict(members)[front.selected]
    pessimistic = cast("PessimisticCosts", costs) if hasattr(costs, "at_upper_ends") else None
    return Explanation(
        chosen=front.selected,
        judged=len(posterior.judged),
        draws=len(posterior.draws),
        coverage=COVERAGE,
        quality_estimator=front.quality_estimator,
        slots=slot_drives(subject, chosen, generator),
        kinds=kind_drives(subject, chosen),
        blocks=block_values(subject, members),
        budgets=() if pessimistic is None else budget_steps(subject, pessimistic),
        optimality=optimality_bound(posterior, costs, front.budget, front.reference),
    )


def _telling(members: Sequence[Evaluation], chosen: str) -> list[Evaluation]:
    """Return the chosen member, then up to ``_MOST_MEMBERS`` others, evenly over the front."""
    others = [member for member in members if member.architecture.digest != chosen]
    step = max(1.0, len(others) / _MOST_MEMBERS)
    spread = [others[int(index * step)] for index in range(min(len(others), _MOST_MEMBERS))]
    return [*(member for member in members if member.architecture.digest == chosen), *spread]


def explanation_text(explanation: Explanation) -> str:
    """Return an explanation as ``nas show`` prints it."""
    head = (
        f"from {explanation.judged} judged candidates ({explanation.quality_estimator}); intervals hold "
        f"{explanation.coverage:.0%} of {explanation.draws} posterior draws"
    )
    lines = [head]
    if explanation.optimality is not None:
        lines += ["", *_optimality_lines(explanation.optimality)]
    lines += ["", *_slot_lines(explanation), "", *_kind_lines(explanation), "", *_block_lines(explanation)]
    if explanation.budgets:
        lines += [
            "",
            "what another limit buys, best against best:",
            *(f"  {step_words(step)}" for step in explanation.budgets),
        ]
    return "\n".join(lines)


def _optimality_lines(bound: OptimalityBound) -> list[str]:
    return [
        f"share of the best reachable hypervolume: at least {ratio(bound.lower)} with probability "
        f"{bound.coverage:.0%}, median {ratio(bound.median)}",
        f"  provided that {bound.assumption}",
    ]


def _slot_lines(explanation: Explanation) -> list[str]:
    head = (
        f"{'slot':<24}{'latency':>12}{'share':>9}{'memory':>12}{'share':>9}{'parameters':>12}{'share':>9}"
        f"{'quality':>32}{'share':>9}"
    )
    rows = [
        f"{item.slot:<24}{latency(item.latency_ms):>12}{ratio(item.latency_share):>9}{memory(item.peak_memory_mb):>12}"
        f"{ratio(item.memory_share):>9}{count(item.parameters):>12}{ratio(item.parameters_share):>9}"
        f"{words(item.quality):>32}{ratio(item.quality_share.mean):>9}"
        for item in explanation.slots
    ]
    return ["what each slot decides (range of its options, share of the variance):", head, *rows]


def _kind_lines(explanation: Explanation) -> list[str]:
    head = f"{'kind':<24}{'latency':>12}{'memory':>12}{'parameters':>12}{'quality':>32}"
    rows = [
        f"{item.kind:<24}{latency(item.latency_ms):>12}{memory(item.peak_memory_mb):>12}{count(item.parameters):>12}"
        f"{words(item.quality):>32}"
        for item in explanation.kinds
    ]
    return ["what each kind adds to a slot's plainest option:", head, *rows]


def _block_lines(explanation: Explanation) -> list[str]:
    rows = [_block_row(block) for block in explanation.blocks if block.digest == explanation.chosen]
    return [f"what each block of the chosen network {explanation.chosen} is worth:", *rows]


def _block_row(block: BlockValue) -> str:
    text = (
        f"  {block.slot:<22}{block.option}: costs {latency(block.latency_ms)}, {memory(block.peak_memory_mb)}, "
        f"brings {words(block.quality)}"
    )
    if block.better is None:
        return text
    better = block.better
    sure = f"p = {better.probability:.2f}"
    return f"{text}; {better.option} would bring {words(better.quality)} more at no more cost ({sure})"


def explanation_data(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON."""
    from nas.core.schema import to_data

    return cast("dict[str, Any]", to_data(explanation))
