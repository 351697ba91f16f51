"""A predictor and a space compiled to arrays: millions of candidates a second, and single estimates from the same."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from latency_models.chances import UpperRatios, upper_ratios
from latency_models.demands import NO_DEMANDS, Demands
from latency_models.domain import SummedDistances
from latency_models.pricing import DENOISER_ALONE, WorkloadPrice, assemble
from latency_models.profiles import call_label
from latency_models.table_arrays import FloatArray, Scores, SlotCosts, SlotOption, slot_arrays, sum_ms
from nas.core.errors import ArchitectureError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from latency_models.domain import Domain
    from latency_models.fleet import Fleet
    from latency_models.phases import Pipeline
    from latency_models.pricing import BlockPrice, CostPredictor
    from nas.core.architecture import Architecture
    from nas.core.cost import CostEstimate
    from nas.core.protocols import SearchSpace
    from nas.core.scenario import Scenario

_CHUNK = 65536


class CostTable:
    """Cost of every architecture of a space, as sums and one maximum over its slots.

    Latency, weights and parameters add up over slots; activation memory is the largest over all blocks, each computed
    with its network around it. That is exact because a temporal layer keeps the shape of what flows through it.
    """

    def __init__(
        self,
        space: SearchSpace,
        scenario: Scenario,
        predictor: CostPredictor,
        *,
        base: WorkloadPrice,
        slots: tuple[tuple[SlotOption, ...], ...],
        order: dict[str, tuple[int, int, int]],
        pipeline: Pipeline = DENOISER_ALONE,
        demands: Demands = NO_DEMANDS,
        fleet: Fleet | None = None,
    ) -> None:
        self.space = space
        self.scenario = scenario
        self.predictor = predictor
        self.pipeline = pipeline
        self.demands = demands
        self.fleet = fleet
        self._base = base
        self._slots = slots
        self._order = order
        self._arrays = [slot_arrays(options) for options in slots]
        self._upper = _limit_ratios(predictor, demands)
        domain = predictor.ratios.domain
        self._distances = None if domain is None else _distances(domain, base, slots)
        stuck = bool(base.infeasible or pipeline.infeasible)
        self._runs = tuple(np.array([not (stuck or option.infeasible) for option in options]) for options in slots)

    @property
    def num_options(self) -> tuple[int, ...]:
        """Number of options of each slot."""
        return tuple(len(options) for options in self._slots)

    def with_steps(self, scenario: Scenario, pipeline: Pipeline) -> CostTable:
        """Return the table of a scenario whose denoiser calls are the same but for their number.

        Raises:
            ValueError: A call of ``scenario`` is another.
        """
        if call_label(scenario) != call_label(self.scenario):
            raise ValueError(f"this table is of calls {call_label(self.scenario)!r}, not {call_label(scenario)!r}")
        return CostTable(
            self.space,
            scenario,
            self.predictor,
            base=self._base,
            slots=self._slots,
            order=self._order,
            pipeline=pipeline,
            demands=self.demands,
        )

    def with_fleet(self, fleet: Fleet) -> CostTable:
        """Return the table with further devices, which ``estimate`` prices too; ``score`` is of the own device."""
        return CostTable(
            self.space,
            self.scenario,
            self.predictor,
            base=self._base,
            slots=self._slots,
            order=self._order,
            pipeline=self.pipeline,
            demands=self.demands,
            fleet=fleet,
        )

    def estimate(self, architecture: Architecture) -> CostEstimate:
        """Return the cost of one architecture with intervals and a breakdown by block.

        With a failure of the whole network on record it is infeasible, which ``score`` cannot know.
        """
        price = self.price(architecture)
        faults = price.infeasible + self.predictor.network_faults(architecture.digest)
        whole = replace(price, infeasible=faults)
        cost = assemble(whole, self.predictor, self.scenario, self.pipeline, level=self.demands.level)
        return cost if self.fleet is None else self.fleet.add(cost, architecture)

    def price(self, architecture: Architecture) -> WorkloadPrice:
        """Return the price of one call, summed over the slots."""
        options = self.space.to_options(architecture)
        chosen = [self._slots[slot][option] for slot, option in enumerate(options)]
        blocks = [*self._base.blocks, *(block for option in chosen for block in option.blocks)]
        blocks.sort(key=lambda block: self._order[block.block])
        return WorkloadPrice(
            blocks=tuple(blocks),
            overhead_ms=self._base.overhead_ms,
            weights_mb=self._base.weights_mb + sum(option.weights_mb for option in chosen),
            parameters=self._base.parameters + sum(option.parameters for option in chosen),
            infeasible=self._base.infeasible + tuple(fault for option in chosen for fault in option.infeasible),
            package_mb=(self._base.package_mb or 0.0) + sum(option.package_mb for option in chosen),
        )

    def score(self, options: NDArray[np.integer]) -> Scores:
        """Score candidates given as option indices.

        Options, not digests, are looked up: that a whole network failed when it was measured, although all its blocks
        run, only ``estimate`` says.

        Args:
            options: Whole numbers of shape (N, number of slots); ``options[n, s]`` is the option in slot ``s``.

        Raises:
            ValueError: Wrong shape or an index out of range.
        """
        self._check(options)
        parts = [self._score_chunk(options[start : start + _CHUNK]) for start in range(0, len(options), _CHUNK)]
        if not parts:
            parts = [self._score_chunk(options)]
        joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        return Scores(
            latency_ms=joined[0],
            latency_low_ms=joined[1],
            latency_high_ms=joined[2],
            peak_memory_mb=joined[3],
            memory_low_mb=joined[4],
            memory_high_mb=joined[5],
            parameters=joined[6].astype(np.int64),
            in_domain=joined[7].astype(bool),
            infeasible=joined[8].astype(np.bool_),
            latency_upper_ms=joined[9],
            memory_upper_mb=joined[10],
            package_mb=joined[11],
        )

    def slot_costs(self) -> SlotCosts:
        """Return what ``score`` adds up, for solvers that work on the table itself.

        Distances from the calibration networks do not add up: upper ends are those of networks in the domain, which
        ``score`` and ``estimate`` may exceed beyond it.
        """
        ratios, calls = self.predictor.ratios, self.scenario.denoiser_calls
        inside = self._base.overhead_ms + sum_ms(self._base.blocks, in_domain=True)
        outside = sum_ms(self._base.blocks, in_domain=False)
        near, far, memory, others_ms = ratios.latency[1], ratios.outside[1], ratios.memory[1], None
        if self._upper is not None:
            near, far, memory = self._upper.latency, self._upper.outside, self._upper.memory
            others_ms = self._upper.others_ms(self.pipeline)
        terms = self.pipeline.memory()
        return SlotCosts(
            base_latency_ms=calls * (inside + outside) + self.pipeline.latency_ms.value,
            latency_ms=tuple(calls * (rows[0] + rows[1]) for rows in self._arrays),
            base_latency_high_ms=calls * (inside * near + outside * far)
            + (self.pipeline.latency_ms.high if others_ms is None else others_ms),
            latency_high_ms=tuple(calls * (rows[0] * near + rows[1] * far) for rows in self._arrays),
            base_weights_mb=self._base.weights_mb + terms.weights_mb + terms.arenas_mb,
            weights_mb=tuple(rows[2] for rows in self._arrays),
            base_activation_mb=max([terms.activation_mb, *(block.activation_mb for block in self._base.blocks)]),
            activation_mb=tuple(rows[3] for rows in self._arrays),
            activation_high_ratio=memory,
            held_high_mb=terms.arenas_mb * (memory - 1.0),
            floor_mb=terms.floor_mb(),
            floor_high_mb=terms.floor_mb(memory),
            base_parameters=self._base.parameters,
            parameters=tuple(rows[4] for rows in self._arrays),
            runs=self._runs,
            base_package_mb=self._base.package_mb or 0.0,
            package_mb=tuple(rows[5] for rows in self._arrays),
        )

    def _check(self, options: NDArray[np.integer]) -> None:
        if options.ndim != 2 or options.shape[1] != len(self._slots):
            raise ValueError(f"options must have shape (N, {len(self._slots)}), got {options.shape}")
        if not np.issubdtype(options.dtype, np.integer):
            raise ValueError(f"options must be whole numbers, got {options.dtype}")
        limits = np.array(self.num_options)
        if len(options) and (options.min() < 0 or bool((options.max(axis=0) >= limits).any())):
            raise ValueError(f"option indices must lie in 0 to {[int(limit) - 1 for limit in limits]}")

    def _score_chunk(self, options: NDArray[np.integer]) -> tuple[FloatArray, ...]:
        ratios, calls = self.predictor.ratios, self.scenario.denoiser_calls
        inside = np.full(len(options), self._base.overhead_ms + sum_ms(self._base.blocks, in_domain=True))
        outside = np.full(len(options), sum_ms(self._base.blocks, in_domain=False))
        weights = np.full(len(options), self._base.weights_mb)
        activation = np.full(len(options), max((b.activation_mb for b in self._base.blocks), default=0.0))
        parameters = np.full(len(options), float(self._base.parameters))
        package = np.full(len(options), self._base.package_mb or 0.0)
        stuck = np.full(len(options), float(bool(self._base.infeasible or self.pipeline.infeasible)))
        for column, table, runs in zip(options.T, self._arrays, self._runs, strict=True):
            row = table[:, column]  # (6, N)
            inside += row[0]
            outside += row[1]
            weights += row[2]
            np.maximum(activation, row[3], out=activation)
            parameters += row[4]  # exact in double precision below 2**53
            package += row[5]
            stuck += ~runs[column]
        other, terms = self.pipeline.latency_ms, self.pipeline.memory()
        within = (outside == 0.0) & self.pipeline.in_domain
        low, high = np.array(ratios.latency)
        distance = np.zeros(len(options))
        if self._distances is not None and ratios.domain is not None:
            distance = self._distances.of(options)
            beyond = distance > ratios.domain.limit
            within &= ~beyond
            low, high = np.full(len(options), low), np.full(len(options), high)
            low[beyond], high[beyond] = ratios.latency_at(distance[beyond])
        high_ms = calls * (inside * high + outside * ratios.outside[1]) + other.high
        high_mb = terms.peak_mb(weights, activation, ratios.memory[1])
        upper, upper_ms, upper_mb = self._upper, high_ms, high_mb
        if upper is not None:
            near = ratios.upper_at(upper, distance)
            upper_ms = calls * (inside * near + outside * upper.outside) + upper.others_ms(self.pipeline)
            upper_mb = terms.peak_mb(weights, activation, upper.memory)
        return (
            calls * (inside + outside) + other.value,
            calls * (inside * low + outside * ratios.outside[0]) + other.low,
            high_ms,
            terms.peak_mb(weights, activation),
            terms.peak_mb(weights, activation, ratios.memory[0]),
            high_mb,
            parameters,
            within.astype(float),
            stuck,
            upper_ms,
            upper_mb,
            package,
        )


def compile_cost_table(
    space: SearchSpace,
    scenario: Scenario,
    predictor: CostPredictor,
    pipeline: Pipeline = DENOISER_ALONE,
    demands: Demands = NO_DEMANDS,
) -> CostTable:
    """Price every option of every slot once and put the results into arrays.

    ``pipeline`` is what a generation runs besides the denoiser; its costs are the same for every architecture.
    ``demands`` say how weights are stored, which units must run every block, and with what probability limits hold.

    Raises:
        ConfigError: The predictor does not hold for the scenario.
        ArchitectureError: The space's cost does not add up over its slots (checked on a few architectures).
        InputError: A price is no finite number; says of which option.
    """
    predictor.check_scenario(scenario)
    counts = [len(space.options(slot)) for slot in space.slots()]
    bare = [0] * len(counts)
    base = demands.add(predictor, space.workload(space.from_options(bare), scenario))
    order = {block.block: (index, 0, 0) for index, block in enumerate(base.blocks)}
    slots = []
    for slot, count in enumerate(counts):
        options = [SlotOption(blocks=(), weights_mb=0.0, parameters=0)]
        for option in range(1, count):
            chosen = [*bare[:slot], option, *bare[slot + 1 :]]
            price = demands.add(predictor, space.workload(space.from_options(chosen), scenario))
            added = _added_blocks(price, base)
            order.update({block.block: (after, 1 + slot, index) for index, (after, block) in enumerate(added)})
            options.append(
                SlotOption(
                    blocks=tuple(block for _, block in added),
                    weights_mb=price.weights_mb - base.weights_mb,
                    parameters=price.parameters - base.parameters,
                    infeasible=tuple(fault for fault in price.infeasible if fault not in base.infeasible),
                    package_mb=(price.package_mb or 0.0) - (base.package_mb or 0.0),
                )
            )
        slots.append(tuple(options))
    _check_finite(base, slots, space, predictor)
    table = CostTable(
        space, scenario, predictor, base=base, slots=tuple(slots), order=order, pipeline=pipeline, demands=demands
    )
    _check_additive(table, counts)
    return table


def _check_finite(
    base: WorkloadPrice, slots: Sequence[tuple[SlotOption, ...]], space: SearchSpace, predictor: CostPredictor
) -> None:
    """Refuse prices that are no numbers: a damaged predictor would have every comparison come out false."""
    priced = {"the bare backbone": [base.overhead_ms, base.weights_mb, *_block_figures(base.blocks)]}
    for name, row in zip(space.slots(), slots, strict=True):
        for index, option in enumerate(row):
            priced[f"option {index} of {name!r}"] = [option.weights_mb, *_block_figures(option.blocks)]
    for where, figures in priced.items():
        if not all(map(isfinite, figures)):
            raise InputError(
                f"{predictor.name} prices {where} of {space.identifier!r} at what is no finite number",
                hint="its file is damaged: calibrate again",
            )


def _block_figures(blocks: tuple[BlockPrice, ...]) -> list[float]:
    return [figure for block in blocks for figure in (block.latency_ms, block.activation_mb)]


def _distances(domain: Domain, base: WorkloadPrice, slots: tuple[tuple[SlotOption, ...], ...]) -> SummedDistances:
    return SummedDistances.of_parts(
        domain,
        domain.figures(base.blocks, base.weights_mb),
        [np.array([domain.figures(option.blocks, option.weights_mb) for option in options]) for options in slots],
    )


def _added_blocks(price: WorkloadPrice, base: WorkloadPrice) -> list[tuple[int, BlockPrice]]:
    """Return the blocks that ``base`` lacks, each with the index of the base block it follows (-1 for none)."""
    index = {block.block: number for number, block in enumerate(base.blocks)}
    after, added = -1, []
    for block in price.blocks:
        if block.block in index:
            after = index[block.block]
        else:
            added.append((after, block))
    return added


def _check_additive(table: CostTable, counts: list[int]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(4):
        architecture = table.space.from_options([int(generator.integers(count)) for count in counts])
        workload = table.space.workload(architecture, table.scenario)
        direct, summed = (
            assemble(price, table.predictor, table.scenario, table.pipeline)
            for price in (table.demands.add(table.predictor, workload), table.price(architecture))
        )
        if {fault.block for fault in summed.infeasible} != {fault.block for fault in direct.infeasible}:
            raise ArchitectureError(
                f"space {table.space.identifier!r}: what runs of {architecture.digest} does not follow from its slots"
            )
        for name in ("latency_ms", "peak_memory_mb", "parameters", "package_mb"):
            ours, theirs = getattr(summed, name), getattr(direct, name)
            if abs(ours - theirs) > 1e-6 * max(1.0, abs(theirs)):
                raise ArchitectureError(
                    f"space {table.space.identifier!r}: {name} of {architecture.digest} does not add up over slots: "
                    f"{ours} from the table, {theirs} from its workload"
                )


def _limit_ratios(predictor: CostPredictor, demands: Demands) -> UpperRatios | None:
    if demands.level is None:
        return None
    return upper_ratios(predictor.ratios, demands.level).at_least_predicted()
