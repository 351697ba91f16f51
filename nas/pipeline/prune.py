"""The verb ``prune``: from an image network and limits to a plan file, and the distilled pruned network.

Everything lies in ``<directory>/<name>``: ``prune.yaml`` (settings with defaults), ``teacher`` (toy only), ``robust``,
``removals.jsonl`` (every measured removal), ``plan.yaml``, ``distillation`` and ``pruning.json``. What is there is not
done again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from nas.core.errors import ConfigError, InputError
from nas.core.files import read_json, write_json, write_text_atomically
from nas.core.rng import RandomStreams
from nas.core.schema import with_schema
from nas.pipeline.checks import device_faults
from nas.pipeline.prune_costs import BlockCosts, latency_of, price_blocks, problem_of
from nas.runs.lock import RunLock
from nas.training.pruning_choice import (
    Choice,
    LossRise,
    PruningProblem,
    added_rise,
    choose_exactly,
    choose_greedily,
    exchange,
    score_units,
    write_choice,
)
from search_spaces.plan import LatencyOrigin, PlannedUnit, PruningPlan, make_plan, write_plan
from search_spaces.pruning import (
    SourceUNet,
    Unit,
    full_layout,
    layout_cost,
    layout_without,
    removable_units,
)
from search_spaces.sources import SOURCES, get_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nas.config.prune import PruneConfig
    from nas.core.protocols import Progress
    from nas.models.unet import VideoUNet
    from nas.training.pruning_choice import Measure

Report = dict[str, Any]


def check_prune(config: PruneConfig) -> None:
    """Check what the schema cannot.

    Raises:
        ConfigError: With every fault at once.
    """
    found = [f"device.{key}: {message}" for key, message in device_faults(config.device)]
    if config.source.name not in SOURCES:
        found.append(f"source.name: {config.source.name!r} is none of {', '.join(sorted(SOURCES))}")
    elif config.scores is None and config.source.weights is None and config.data.type == "shards":
        found.append(
            "source.weights: no network is trained on shards here, and removals from fresh weights would give rises "
            "that mean nothing; give SD v1.5's weights, or a file of scores"
        )
    elif config.scores is None and config.source.name != "toy_image" and config.data.type == "procedural":
        found.append(
            f"data: {config.source.name!r} needs latents of its own VAE, the procedural clips are the toy's; give "
            "source.weights and `data: {type: shards, path: DIR}`, or a file of scores: removals from fresh weights "
            "would give rises that mean nothing"
        )
    shards = config.data.path if config.data.type == "shards" else None
    for path, name in ((config.source.weights, "source.weights"), (config.scores, "scores"), (shards, "data.path")):
        if path is not None and not Path(path).exists():
            found.append(f"{name}: does not exist, got {path!r}")
    if config.distillation.start_from_teacher:
        found.append("distillation.start_from_teacher: must be false, kept blocks are numbered anew")
    if found:
        raise ConfigError("\n".join([f"prune {config.run.name!r}: {len(found)} problems", *found]))


def price_list(config: PruneConfig) -> Report:
    """What ``--dry-run`` shows: every unit with what it takes, and the limits; nothing is written."""
    source = get_source(config.source.name)
    costs = price_blocks(config, source)
    problem = problem_of(config, source, costs)
    problem.require_possible()
    whole = full_layout(source)
    return {
        "source": source.name,
        "latency_ms": latency_of(source, whole, costs),
        "parameters": round(layout_cost(source, whole, costs.parameters)),
        "predictor": costs.predictor,
        "limits": {limit.name: limit.most for limit in problem.limits},
        "units": [{"name": unit.name, **unit_costs(source, unit, costs)} for unit in removable_units(source)],
    }


def perform(config: PruneConfig, *, progress: Callable[[str], Progress], say: Callable[[str], None]) -> Report:
    """Do the whole pruning, or go on with it.

    Raises:
        BudgetError: No pruning meets the limits.
        InputError: The folder holds another pruning, or a file is damaged.
        TrainingError: A loss is not finite.
    """
    folder = _claim(config)
    with RunLock(folder):
        source = get_source(config.source.name)
        costs = price_blocks(config, source)
        problem = problem_of(config, source, costs)
        problem.require_possible()
        if config.scores is not None:
            scores = read_scores(Path(config.scores), source)
            choices = choose(config, problem, scores, _adding(source, scores), progress=progress("choice"))
            plan = plan_of(config, source, choices[0], scores, costs, origin=f"given: {config.scores}")
            return _finish(folder, config, problem, plan, choices, say=say, further={})
        return _measured(config, folder, source, costs, problem, progress=progress, say=say)


def choose(
    config: PruneConfig,
    problem: PruningProblem,
    scores: Mapping[str, LossRise],
    measure: Measure,
    *,
    progress: Progress,
) -> list[Choice]:
    """The choices that the YAML asks for, the smallest measured rise first."""
    found = []
    if config.method in ("greedy", "best"):
        found.append(choose_greedily(problem, measure, per_round=config.per_round, progress=progress))
    if config.method in ("exact", "best"):
        exact = choose_exactly(problem, scores, measure)
        found.append(exchange(problem, exact, scores, measure, tries=config.exchanges, progress=progress))
    return sorted(found, key=lambda choice: choice.rise.mean)


def plan_of(
    config: PruneConfig,
    source: SourceUNet,
    choice: Choice,
    scores: Mapping[str, LossRise],
    costs: BlockCosts,
    *,
    origin: str,
) -> PruningPlan:
    """The plan of a choice, with the score and the latency of every unit."""
    layout = layout_without(source, choice.removed)
    latency = LatencyOrigin(
        origin=costs.origin,
        device=costs.device,
        predictor=costs.predictor,
        frames=config.scenario.frames,
        height=config.scenario.height,
        width=config.scenario.width,
        source_ms=round(latency_of(source, full_layout(source), costs), 4),
        pruned_ms=round(latency_of(source, layout, costs), 4),
    )
    units = tuple(
        PlannedUnit(
            name=unit.name,
            removed=unit.name in choice.removed,
            loss_rise=round(scores[unit.name].mean, 6),
            standard_error=round(scores[unit.name].standard_error, 6),
            latency_ms=round(unit_costs(source, unit, costs)["latency_ms"], 5),
        )
        for unit in removable_units(source)
    )
    return make_plan(
        source,
        layout,
        name=config.run.name.replace("-", "_"),
        method=choice.method,
        scores=origin,
        latency=latency,
        units=units,
    )


def unit_costs(source: SourceUNet, unit: Unit, costs: BlockCosts) -> dict[str, float]:
    """What the removal of one unit alone saves."""
    whole, without = full_layout(source), layout_without(source, {unit.name})
    return {
        name: layout_cost(source, whole, table) - layout_cost(source, without, table)
        for name, table in (("latency_ms", costs.latency_ms), ("parameters", costs.parameters))
    }


def read_scores(path: Path, source: SourceUNet) -> dict[str, LossRise]:
    """Read loss rises by unit.

    Raises:
        InputError: The file is no such JSON, or units are missing or unknown.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: must map units to loss rises, got {type(data).__name__}")
    wanted = [unit.name for unit in removable_units(source)]
    missing, unknown = sorted(set(wanted) - set(data)), sorted(set(data) - set(wanted))
    if missing or unknown:
        raise InputError(
            f"{path}: of the units of {source.name} {len(missing)} are missing {missing[:4]}, "
            f"{len(unknown)} are unknown {unknown[:4]}",
            hint="`nas prune CONFIG --dry-run` lists the units",
        )
    return {name: _rise(data[name], where=f"{path}: {name}") for name in wanted}


def _rise(value: Any, *, where: str) -> LossRise:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return LossRise(mean=float(value), standard_error=0.0)
    try:
        return LossRise(mean=float(value["mean"]), standard_error=float(value.get("standard_error", 0.0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: must be a number or {{mean: …, standard_error: …}}, got {value!r}") from error


def _adding(source: SourceUNet, scores: Mapping[str, LossRise]) -> Measure:
    return lambda removed: LossRise(mean=added_rise(source, scores, removed), standard_error=0.0)


def _measured(
    config: PruneConfig,
    folder: Path,
    source: SourceUNet,
    costs: BlockCosts,
    problem: PruningProblem,
    *,
    progress: Callable[[str], Progress],
    say: Callable[[str], None],
) -> Report:
    from nas.models.pruned import build_pruned
    from nas.pipeline.prune_networks import removal_loss, source_material
    from nas.training.pruning import distil_pruned, train_robustly

    streams = RandomStreams(config.run.seed)
    teacher, data, held_out = source_material(config, folder, source, streams, progress=progress)
    metrics = folder / "metrics.jsonl"
    copy = build_pruned(cast("VideoUNet", teacher.denoiser), source, full_layout(source), name=f"{source.name}_robust")
    robust = teacher.with_denoiser(copy)
    train_robustly(
        robust,
        teacher,
        source,
        data,
        options=config.robust,
        folder=folder / "robust",
        streams=streams,
        metrics=metrics,
        progress=progress("robust training"),
    )
    measure = removal_loss(config, folder, source, teacher, cast("VideoUNet", robust.denoiser), held_out, streams)
    scores = score_units(source, measure, progress=progress("importance"))
    choices = choose(config, problem, scores, measure, progress=progress("choice"))
    origin = f"measured on {config.importance.batches} batches of {config.importance.batch_size} held-out images"
    plan = plan_of(config, source, choices[0], scores, costs, origin=origin)
    say(write_choice(problem, choices[0]))
    write_plan(folder / "plan.yaml", plan)
    pruned = build_pruned(cast("VideoUNet", robust.denoiser), source, plan.layout, name=plan.name)
    distilled = distil_pruned(
        teacher.with_denoiser(pruned),
        teacher,
        data,
        options=config.distillation,
        folder=folder / "distillation",
        streams=streams,
        metrics=metrics,
        progress=progress("distillation"),
    )
    further = {"distillation_loss": distilled.loss, "network": str(folder / "distillation" / "denoiser")}
    return _finish(folder, config, problem, plan, choices, say=say, further=further)


def _claim(config: PruneConfig) -> Path:
    """Make the folder of a pruning, or check that it is this one's."""
    folder = Path(config.run.directory) / config.run.name
    text = yaml.safe_dump(json.loads(config.model_dump_json(exclude_none=True)), sort_keys=False, allow_unicode=True)
    path = folder / "prune.yaml"
    if not path.exists():
        write_text_atomically(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise InputError(
            f"{folder}: holds a pruning with other settings (prune.yaml)",
            hint="give run.name another name, or remove the folder",
        )
    return folder


def _finish(
    folder: Path,
    config: PruneConfig,
    problem: PruningProblem,
    plan: PruningPlan,
    choices: list[Choice],
    *,
    say: Callable[[str], None],
    further: Report,
) -> Report:
    write_plan(folder / "plan.yaml", plan)
    for choice in choices[1:]:
        say(f"not taken: {write_choice(problem, choice)}")
    report = {
        "plan": str(folder / "plan.yaml"),
        "digest": plan.digest,
        "parameters": plan.parameters,
        "source_parameters": plan.source_parameters,
        "latency_ms": plan.latency.pruned_ms if plan.latency else None,
        "source_latency_ms": plan.latency.source_ms if plan.latency else None,
        "latency_origin": plan.latency.predictor if plan.latency else None,
        "scores": plan.scores,
        "choices": [
            {
                "method": choice.method,
                "removed": sorted(choice.removed),
                "loss_rise": choice.rise.mean,
                "standard_error": choice.rise.standard_error,
                "added_rises": choice.added_rises,
                **problem.costs(choice.removed),
            }
            for choice in choices
        ],
        "seed": config.run.seed,
        **further,
    }
    write_json(folder / "pruning.json", with_schema("pruning", 1, report))
    return report
