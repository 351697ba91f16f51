"""The ``search`` stage: price, screen and judge candidates, then write the front and choose one member."""

from __future__ import annotations

import logging
import sys
from contextlib import closing, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING

from nas.core.errors import InputError
from nas.core.pareto import reference_point
from nas.core.units import latency_with_interval, memory_with_interval
from nas.pipeline.chances import chance_words, choose, front_chances
from nas.pipeline.context import present
from nas.pipeline.engine import level_summaries, make_engine
from nas.pipeline.executor_checks import level_resources, task_resources
from nas.pipeline.explain import explain
from nas.pipeline.feasible import feasible_prices
from nas.pipeline.foreknowledge import read_foreknowledge
from nas.pipeline.quality import make_levels
from nas.pipeline.scenario_checks import scenario_warnings
from nas.pipeline.selection import selection_effect
from nas.runs.explanation import write_explanation
from nas.runs.front import FrontFile, write_front
from nas.runs.journal import Journal
from nas.runs.outcomes import Outcomes
from nas.search.loop import search
from nas.search.prices import cost_differences

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.config.search import RayExecutor, SerialExecutor
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import CostModel, Executor, Progress
    from nas.pipeline.context import Context
    from nas.runs.front import DeviceChances, SelectionEffect
    from nas.search.ledger import EvaluationLog, Watcher


logger = logging.getLogger(__name__)


def perform(context: Context, folder: Path, progress: Progress) -> str:
    """Search the space of a run; goes on with the journal it finds.

    Raises:
        BudgetError: Nothing meets the budget: found on the tables before anything is trained, or by the search, whose
            message holds the nearest miss.
        InputError: The predictor, the journal or what ``search.warm_start`` names cannot be read.
        UnavailableError: The executor cannot start, was lost, or can never run what a task reserves.
    """
    section = present(context.config.search, "search")
    for line in scenario_warnings(context.config):
        logger.warning("%s", line)
    table, budget, costs = feasible_prices(context)
    known = read_foreknowledge(section.warm_start, context.search_space, latency=costs.hint_ms)
    journal, watcher = _journal(context, folder, section.mirror)
    # Ray tells of lost workers and nodes on standard output, which is for the command's one document.
    with redirect_stdout(sys.stderr), closing(_executor(section.executor)) as executor:
        executor.prepare(list(level_resources(context.config).values()))  # before anything is trained
        levels = make_levels(context, folder, progress)
        result = search(
            context.search_space,
            make_engine(context, levels, costs=costs, budget=budget, known=known),
            cost_model=table,
            quality_estimator=levels,
            budget=budget,
            journal=journal,
            evaluations=section.evaluations,
            batch=section.batch,
            executor=executor,
            progress=progress,
            mode=section.mode,
            outcomes=Outcomes(folder / "outcomes.jsonl"),
            watcher=watcher,
        )
    latency_ms, memory_mb, quality = reference_point(result.evaluations, budget)
    reference = (latency_ms, memory_mb, quality)
    members = tuple(_with_split(member, table) for member in result.front.members)
    effect = selection_effect(context, table, result.evaluations, members, budget)
    chances = front_chances(table, members, budget, device=context.config.device.name, effect=effect)
    chosen = choose(result.front, section.select, chances)
    front = FrontFile(
        members=members,
        budget=budget,
        selected=chosen.architecture.digest,
        selection=section.select,
        hypervolume=result.front.hypervolume(reference),
        reference=reference,
        quality_estimator=f"{levels[-1].estimator.name}, {levels[-1].estimator.fidelity}",
        screened=result.screened,
        complete=result.complete,
        selection_effect=effect,
        chances=chances,
        levels=level_summaries(levels, result.evaluations),
    )
    write_front(folder / "front.json", front)
    explanation = explain(context, costs, result.evaluations, front)
    if explanation is not None:
        write_explanation(folder / "explain.json", explanation)
    cost = chosen.cost
    return (
        f"{len(result.front.members)} of {result.complete} judged candidates on the front, "
        f"{f'{result.judged_below} judged at cheaper levels, ' if len(levels) > 1 else ''}{result.screened} screened; "
        f"chose {chosen.architecture.digest} ({section.select}): "
        f"{latency_with_interval(cost.latency_ms, cost.latency_interval_ms, cost.origin)}, "
        f"{memory_with_interval(cost.peak_memory_mb, cost.memory_interval_mb, cost.origin)}, "
        f"{cost.parameters:,} parameters{_effect_words(effect, chosen)}{_chance_words(chances, chosen)}"
    )


def _journal(context: Context, folder: Path, mirror: bool | str) -> tuple[EvaluationLog, Watcher | None]:
    """Return the journal of a search, and who is told what is being judged: both write the copy where one is wanted."""
    journal = Journal(folder / "evaluations.jsonl")
    if mirror is False:
        return journal, None
    from nas.search.optuna_mirror import MirroredJournal, OptunaMirror

    path = context.path("optuna.journal" if mirror is True else mirror)
    mirrored = MirroredJournal(journal, OptunaMirror(path, context.search_space, context.config.run.name))
    return mirrored, mirrored


def _with_split(member: Evaluation, table: CostModel) -> Evaluation:
    """Return a member of the front with the split of its cost, which the journal does not keep.

    Raises:
        InputError: It was priced otherwise: the journal is of several calibrations.
    """
    again = table.estimate(member.architecture)
    differences = cost_differences(member.cost, again)
    if differences:
        raise InputError(
            f"evaluation {member.number} of the journal was priced with another calibration than the present one: "
            f"{'; '.join(differences)}",
            hint="start the search afresh: nas search RUN --force",
        )
    return replace(member, cost=member.cost.with_split_of(again))


def _chance_words(chances: Sequence[DeviceChances], chosen: Evaluation) -> str:
    words = chance_words(chances, chosen.architecture.digest)
    return f"; {words}" if words else ""


def _effect_words(effect: SelectionEffect | None, chosen: Evaluation) -> str:
    corrected = effect.interval(chosen.architecture.digest) if effect else None
    if corrected is None:
        return ""
    allowed = latency_with_interval(chosen.cost.latency_ms, corrected, chosen.cost.origin)
    return f"; allowing for its having been selected {allowed}"


def _executor(section: SerialExecutor | RayExecutor) -> Executor:
    if section.type == "ray":
        from nas.search.executors.ray_cluster import RayExecutor as Ray

        return Ray(
            workers=section.workers,
            address=section.address,
            retries=section.retries,
            resources=task_resources(section),
            grows=section.grows,
        )
    from nas.search.executors.serial import SerialExecutor as Serial

    return Serial()
