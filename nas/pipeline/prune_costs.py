"""What every block of an image network costs on the device of a pruning, and the limits that follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import latency_models
from nas.core.errors import ConfigError
from nas.pipeline.costs import prior_of, weights_of
from nas.training.pruning_choice import Limit, PruningProblem
from search_spaces.pruning import (
    CostTable,
    Layout,
    SourceUNet,
    backbone_of,
    cost_by_block,
    full_layout,
    image_workload,
    layout_cost,
    parameter_table,
    possible_depths,
)

if TYPE_CHECKING:
    from latency_models import CostPredictor
    from nas.config.prune import PruneConfig
    from nas.core.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCosts:
    """Latency and parameters by block and number of levels, and where the latency is from."""

    latency_ms: CostTable
    parameters: CostTable
    predictor: str
    origin: str
    device: str


def price_blocks(config: PruneConfig, source: SourceUNet) -> BlockCosts:
    """Price every block in the whole network, once for each possible number of levels: the middle's size depends on it.

    Raises:
        ConfigError: The device is unknown, the predictor does not hold for the scenario, or the size does not divide.
        InputError: The predictor's file is missing or damaged.
    """
    scenario = config.scenario.build()
    predictor = _predictor(config)
    predictor.check_scenario(scenario)
    return BlockCosts(
        latency_ms={depth: _latencies(source, depth, scenario, predictor) for depth in possible_depths(source)},
        parameters=parameter_table(source),
        predictor=predictor.name,
        origin=predictor.origin,
        device=predictor.device,
    )


def problem_of(config: PruneConfig, source: SourceUNet, costs: BlockCosts) -> PruningProblem:
    """The limits of a pruning in absolute figures."""
    budget, whole = config.budget, full_layout(source)
    limits = []
    for name, table, absolute, ratio in (
        ("latency_ms", costs.latency_ms, budget.latency_ms, budget.latency_ratio),
        ("parameters", costs.parameters, budget.parameters, budget.parameters_ratio),
    ):
        most = ratio * layout_cost(source, whole, table) if ratio is not None else absolute
        if most is not None:
            limits.append(Limit(name=name, table=table, most=float(most)))
    return PruningProblem(source=source, limits=tuple(limits))


def latency_of(source: SourceUNet, layout: Layout, costs: BlockCosts) -> float:
    """Milliseconds of one call."""
    return layout_cost(source, layout, costs.latency_ms)


def _latencies(source: SourceUNet, depth: int, scenario: Scenario, predictor: CostPredictor) -> dict[str, float]:
    spec = backbone_of(source, full_layout(source, depth=depth), name=source.name)
    price = predictor.price(image_workload(spec, scenario))
    return cost_by_block(spec, {**{block.block: block.latency_ms for block in price.blocks}, "call": price.overhead_ms})


def _predictor(config: PruneConfig) -> CostPredictor:
    if config.predictor is None:
        return latency_models.RooflinePredictor(
            prior_of(config.device),
            precision=config.scenario.precision,
            compute_units=config.scenario.compute_units,
            weights=weights_of(config.device),
        )
    path = Path(config.predictor)
    predictor = latency_models.load_predictor(path / "calibrate" / "predictor.json" if path.is_dir() else path)
    if predictor.device != config.device.name:
        raise ConfigError(
            f"predictor {config.predictor!r} is of device {predictor.device!r}, the YAML names {config.device.name!r}"
        )
    return predictor
