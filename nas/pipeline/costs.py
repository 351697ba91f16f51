"""From the run's files to priced candidates: the calibrated predictor, or the device's prior where there is none."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import latency_models
from latency_models import Demands, JointCostTable, WeightFormat, scan_profile
from latency_models.chances import split_level
from latency_models.eligibility import Eligibility
from latency_models.failures import failures_on_record
from latency_models.predictors.roofline import RooflinePredictor, placed_units
from latency_models.profiles import shape_label
from latency_models.residency import keeps_arenas
from nas.core.profile import ProfileSet
from nas.pipeline.further_devices import known_predictor, with_fleet
from nas.pipeline.phases import build_pipeline
from nas.pipeline.scenarios import context_at, stage_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models import CostPredictor, CostTable, DeviceSpec, Infeasible, Pipeline
    from latency_models.devices import UnitSpec, WeightForm
    from nas.config.budget import DeviceLimits
    from nas.config.run import DeviceSection, FurtherDevice, RunConfig, ScenarioSection
    from nas.core.cost import Budget, ComputeUnit, CostEstimate
    from nas.core.protocols import SearchSpace
    from nas.core.scenario import ScenarioPoint
    from nas.pipeline.context import Context
    from nas.search.exact import AdditiveCosts, SearchCosts

_RECORDS = ("profile", "records.jsonl")
_log = logging.getLogger(__name__)
# What a host's blocks fall back to when they were not measured.
_HOST_PRIORS = {"host-cpu": "host_cpu", "host-cuda": "host_cuda"}


def prior_device(context: Context) -> DeviceSpec:
    """Return the device whose figures are the prior of the run's device.

    Raises:
        ConfigError: The device is unknown; known names are listed.
    """
    return prior_of(context.config.device)


def prior_of(section: DeviceSection) -> DeviceSpec:
    """Return the device whose figures are the prior of a run's device, with its lowerings; see ``prior_device``."""
    return latency_models.device(_HOST_PRIORS.get(section.name, section.name)).relowered(lowerings_of(section))


def weights_of(section: DeviceSection) -> WeightFormat:
    """Return how a run's networks store their weights."""
    weights = section.weights
    if weights is None:
        return WeightFormat()
    return WeightFormat(bits=float(weights.bits), form=cast("WeightForm", weights.form))


def lowerings_of(section: DeviceSection) -> tuple[tuple[str, str], ...]:
    """Return the lowerings by compute unit that a run has in place of its device's own."""
    return tuple(sorted((section.lowerings or {}).items()))


def prior_predictor(config: RunConfig, failures: Iterable[Infeasible] = ()) -> RooflinePredictor:
    """Return the uncalibrated prior of a run's device; what failed on it is infeasible."""
    return RooflinePredictor(
        prior_of(config.device),
        precision=config.scenario.precision,
        compute_units=config.scenario.compute_units,
        coverage=config.budget.coverage,
        weights=weights_of(config.device),
        failures=failures,
    )


def load_predictor(context: Context) -> CostPredictor:
    """Return the run's calibrated predictor; the uncalibrated prior when the YAML has no ``calibrate`` section.

    Failures among imported records of the device count in both.


    Raises:
        InputError: The predictor's file is missing or damaged.
    """
    if context.config.calibrate is not None:
        return latency_models.load_predictor(stage_folder(context, "calibrate") / "predictor.json")
    return prior_predictor(context.config, _failures(context))


def _failures(context: Context) -> tuple[Infeasible, ...]:
    """Return what failed by the records in the run's profile, which may have been imported; none without any."""
    reading = scan_profile(context.path(*_RECORDS), device=context.config.device.name)
    for line in reading.lines():
        _log.warning("%s", line)
    records = reading.profiles.records
    shape = shape_label(context.scenario)
    return failures_on_record(ProfileSet(records=tuple(item for item in records if shape_label(item) == shape)))


def load_cost_table(context: Context) -> CostTable:
    """Return the table that prices a generation with every architecture of the run's space, in the run's scenario."""
    predictor = load_predictor(context)
    pipeline = _pipeline(context, predictor)
    config = context.config
    failures = () if config.budget.runs_on is None else _failures(context)
    demands = demands_of(config.device, config.budget, config.scenario, failures)
    return latency_models.compile_cost_table(context.space, context.scenario, predictor, pipeline, demands)


def demands_of(
    device: DeviceSection, limits: DeviceLimits, scenario: ScenarioSection, failures: tuple[Infeasible, ...] = ()
) -> Demands:
    """Return what limits ask of costs on a device besides its predictor.

    Raises:
        ConfigError: A demanded unit is none that the scenario allows; see ``nas.pipeline.checks``.
    """
    eligibility = None
    if limits.runs_on is not None:
        units = demanded_units(device, limits.runs_on, scenario)
        eligibility = Eligibility(device=device.name, units=units, failures=failures)
    probability = limits.probability
    level = None if probability is None else split_level(probability, limits.num_uncertain)
    return Demands(weights=weights_of(device), eligibility=eligibility, level=level)


def demanded_units(
    device: DeviceSection, runs_on: tuple[ComputeUnit, ...], scenario: ScenarioSection
) -> tuple[UnitSpec, ...]:
    """Return the units of ``runs_on`` that the scenario allows on a device, most preferred first; may be none."""
    allowed = placed_units(prior_of(device), scenario.compute_units, scenario.precision)
    return tuple(unit for unit in allowed if unit.compute_unit in runs_on)


def load_prices(context: Context) -> CostTable | JointCostTable:
    """Return what prices every candidate of the search: a table, or one for each scenario that is a choice.

    Blocks are priced once for all numbers of denoising steps.
    """
    if context.joint is None:
        first, *others = _device_tables(context)
        return with_fleet(context.config, first, others)
    tables: list[CostTable] = []
    by_call: dict[ScenarioPoint, list[CostTable]] = {}
    for point in context.joint.points:
        own = context_at(context, point)
        call = replace(point, denoising_steps=None)
        contexts = [own, *(on_device(own, section) for section in own.config.devices or ())]
        if call in by_call:
            pairs = zip(contexts, by_call[call], strict=True)
            found = [known.with_steps(at.scenario, _pipeline(at, known.predictor)) for at, known in pairs]
        else:
            found = by_call[call] = _device_tables(own)
        tables.append(with_fleet(own.config, found[0], found[1:]))
    return JointCostTable(context.joint, tables)


def _device_tables(context: Context) -> list[CostTable]:
    """Return the tables of the run's own device and of every further one."""
    tables = [load_cost_table(context)]
    for section in context.config.devices or ():
        own = on_device(context, section)
        predictor = known_predictor(section) or prior_predictor(own.config)
        demands = demands_of(section, section.budget, own.config.scenario)
        tables.append(
            latency_models.compile_cost_table(own.space, own.scenario, predictor, _pipeline(own, predictor), demands)
        )
    return tables


def on_device(context: Context, section: FurtherDevice) -> Context:
    """Return the run as it is on a further device; its own phases where it states some."""
    changes = {"device": section, "phases": section.phases or context.config.phases}
    return replace(context, config=context.config.model_copy(update=changes))


def _pipeline(context: Context, predictor: CostPredictor) -> Pipeline:
    unit = prior_device(context).unit_for(context.scenario.compute_units).compute_unit
    return build_pipeline(context, predictor, keeps_arenas=keeps_arenas(unit))


def additive_costs(table: CostTable | JointCostTable, budget: Budget | None = None) -> SearchCosts:
    """Return prices in the form that engines which solve fronts work on, with the limits beyond latency and memory."""
    from nas.search.exact import JointCosts

    if isinstance(table, JointCostTable):
        return JointCosts(parts=tuple(_additive(part, budget) for part in table.tables))
    return _additive(table, budget)


def _additive(table: CostTable, budget: Budget | None) -> AdditiveCosts:
    from nas.pipeline.fleet_costs import FleetCosts
    from nas.search.exact import AdditiveCosts, SlotSum
    from nas.search.exact.requirements import Requirement

    costs = table.slot_costs()
    own_ms = SlotSum.of(costs.latency_ms, base=costs.base_latency_ms)
    requirements = []
    if budget is not None and budget.package_mb is not None:
        sizes = SlotSum.of(costs.package_mb, base=costs.base_package_mb)
        requirements.append(Requirement(name="package_mb", table=sizes, limit=budget.package_mb))
    more = FleetCosts.of(table.fleet, own_ms, costs.runs, budget)
    return AdditiveCosts(
        latency_ms=more.latency_ms,
        latency_high_ms=SlotSum.of(costs.latency_high_ms, base=costs.base_latency_high_ms),
        weights_mb=SlotSum.of(costs.weights_mb, base=costs.base_weights_mb),
        activation_mb=costs.activation_mb,
        base_activation_mb=costs.base_activation_mb,
        activation_high_ratio=costs.activation_high_ratio,
        held_high_mb=costs.held_high_mb,
        floor_mb=costs.floor_mb,
        floor_high_mb=costs.floor_high_mb,
        parameters=SlotSum.of(costs.parameters, base=float(costs.base_parameters)),
        runs=more.runs,
        requirements=(*requirements, *more.requirements),
        memory_requirements=more.memory_requirements,
        other_latencies_ms=more.other_latencies_ms,
    )


def latency_range_ms(table: CostTable | JointCostTable, space: SearchSpace) -> tuple[float, float]:
    """Return the upper ends, as limits are held against them, of the cheapest and the dearest architecture.

    Exact, because a table's latency adds over slots: each slot's cheapest and dearest option are found on their own.
    Of several scenarios the cheapest and the dearest count.
    """
    if isinstance(table, JointCostTable):
        ranges = [latency_range_ms(part, part.space) for part in table.tables]
        return min(low for low, _ in ranges), max(high for _, high in ranges)
    import numpy as np

    ends: tuple[list[int], list[int]] = ([], [])
    for position, count in enumerate(table.num_options):
        rows = np.zeros((count, len(table.num_options)), dtype=np.int64)
        rows[:, position] = np.arange(count)
        upper = table.score(rows).latency_upper_ms
        ends[0].append(int(upper.argmin()))
        ends[1].append(int(upper.argmax()))
    cheapest, dearest = (table.estimate(space.from_options(options)) for options in ends)
    return _upper_ms(cheapest), _upper_ms(dearest)


def _upper_ms(cost: CostEstimate) -> float:
    return cost.latency_interval_ms.high if cost.upper is None else cost.upper.latency_ms
