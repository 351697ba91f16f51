"""Prior of a device: a roofline for every operation on the unit that runs it, segments, crossings; nothing measured.

latency = call + sum over blocks [ sum over operations max(compute, weights, activations) + overhead
                                   + segments begun + crossings ]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latency_models.devices import WeightFormat
from latency_models.failures import Infeasible, failed_networks
from latency_models.features import BlockFeatures, block_features
from latency_models.placement import Placement, place
from latency_models.pricing import BlockPrice, IntervalRatios, WorkloadPrice
from latency_models.residency import MemoryTarget, resident_weight_bytes
from latency_models.step_times import rates_of, step_seconds, steps_of
from nas.core.cost import ComputeUnit, Infeasibility
from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from latency_models.devices import DeviceSpec, Figure, UnitSpec
    from latency_models.lowering import OperationFeatures
    from nas.core.cost import Origin
    from nas.core.scenario import ComputeUnits, Precision, Scenario
    from nas.core.workload import Workload

# Real allocators keep buffers that liveness would free and pad rows; nothing is calibrated here.
_PRIOR_MEMORY_FACTOR = 2.0
_PLAIN = WeightFormat()


class RooflinePredictor:
    """Uncalibrated prior of a device's latency and memory.

    Its interval is the device's ``prior_factor`` either way; the coverage is asserted from published spreads, not
    checked, and no estimate of it is ever in domain.

    Args:
        device: Rates, limits and memory.
        precision: Number format of the scenario.
        compute_units: Core ML setting of the scenario.
        coverage: Stated coverage of the interval.
        weights: How weights are stored.
        lowerings: Lowerings by compute unit that take the place of the device file's: ``split_einsum_v2``.
        failures: Blocks and whole networks that are known not to compile, load or run.
    """

    origin: Origin = "predicted"

    def __init__(
        self,
        device: DeviceSpec,
        *,
        precision: Precision = "float16",
        compute_units: ComputeUnits = "cpu_and_ne",
        coverage: float = 0.9,
        weights: WeightFormat = _PLAIN,
        lowerings: Sequence[tuple[str, str]] = (),
        failures: Iterable[Infeasible] = (),
    ) -> None:
        self.spec = device
        self.device = device.name
        self.units = placed_units(device, compute_units, precision, lowerings=lowerings)
        self.unit = self.units[0]
        self.precision = precision
        self.compute_units = compute_units
        self.weights = weights
        self._memory = MemoryTarget.of_unit(self.unit, weights=weights)
        self._known: dict[tuple[OperationFeatures, ...], _Timed] = {}
        known = tuple(failures)
        self._failed = {(item.subject, item.compute_unit): item for item in known if item.level == "block"}
        self._failed_networks = failed_networks(known, self.unit.compute_unit, device.name)
        self.name = f"roofline prior of {device.name} ({self.unit.compute_unit}), uncalibrated"
        factor = device.prior_factor.value
        wide = (1.0 / factor, factor)
        self.ratios = IntervalRatios(
            coverage=coverage,
            latency=wide,
            outside=wide,
            memory=(1.0 / _PRIOR_MEMORY_FACTOR, _PRIOR_MEMORY_FACTOR),
        )

    def check_scenario(self, scenario: Scenario) -> None:
        """Raise when precision or compute units are not those of this predictor.

        Raises:
            ConfigError: They differ.
        """
        if (scenario.precision, scenario.compute_units) != (self.precision, self.compute_units):
            raise ConfigError(
                f"{self.name} was made for {self.precision} on {self.compute_units}, "
                f"asked for {scenario.precision} on {scenario.compute_units}"
            )

    def price(self, workload: Workload) -> WorkloadPrice:
        """Price one call of ``workload``."""
        timed = [(block, self._timed(block)) for block in block_features(workload, self.unit.lowered)]
        return WorkloadPrice(
            blocks=tuple(
                BlockPrice(
                    block=block.block,
                    latency_ms=time.latency_ms,
                    activation_mb=(block.held_bytes + block.inside_bytes) / 1e6,
                    compute_unit=time.compute_unit,
                    in_domain=False,
                    kind=block.spec.kind,
                )
                for block, time in timed
            ),
            overhead_ms=self.unit.call_overhead_ms.value,
            weights_mb=resident_weight_bytes(workload, self._memory) / 1e6,
            parameters=workload.parameters,
            infeasible=tuple(fault for block, time in timed for fault in self._faults(block, time.placement)),
        )

    def network_faults(self, digest: str) -> tuple[Infeasibility, ...]:
        """Return why the whole network does not run, as a profile says."""
        return self._failed_networks.get(digest, ())

    def _timed(self, block: BlockFeatures) -> _Timed:
        """Return the time of a block; a space's architectures share most of theirs."""
        known = self._known.get(block.operations)
        if known is None:
            placement = place(block.operations, self.units)
            times = unit_times_ms(block, placement, self.units, precision=self.precision, weights=self.weights)
            known = self._known[block.operations] = _Timed(
                latency_ms=sum(times) + switching_ms(placement, self.units, self.spec.crossing_ms),
                compute_unit=self.units[times.index(max(times))].compute_unit,
                placement=placement,
            )
        return known

    def _faults(self, block: BlockFeatures, placement: Placement) -> tuple[Infeasibility, ...]:
        used = sorted(set(placement.units))
        failed = [self._failed.get((block.spec.signature, self.units[unit].compute_unit)) for unit in used]
        return infeasibilities(block, placement, [item.on(block.block, self.device) for item in failed if item])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """Time of a block in a call, the unit it spends most of it on, and where its operations are."""

    latency_ms: float
    compute_unit: ComputeUnit
    placement: Placement


def placed_units(
    device: DeviceSpec,
    compute_units: ComputeUnits,
    precision: Precision,
    *,
    lowerings: Sequence[tuple[str, str]] = (),
) -> tuple[UnitSpec, ...]:
    """Return the units that operations can be placed on, most preferred first.

    CPU and GPU have no window of their own: what one operation holds is limited by what the app may hold.
    """
    units = []
    for unit in device.relowered(lowerings).units_for(compute_units, precision):
        limits = unit.limits
        if limits.window_mb is None and len(device.units) > 1:
            limits = replace(limits, window_mb=device.usable_memory_mb)
        units.append(replace(unit, limits=limits))
    return tuple(units)


def home_units(
    device: DeviceSpec, compute_unit: ComputeUnit, compute_units: ComputeUnits, precision: Precision
) -> tuple[UnitSpec, ...]:
    """Return the units that operations of networks whose home is ``compute_unit`` can be placed on, that one first.

    It alone when the setting or the precision leaves it out, as when a profile says that it ran there all the same;
    the device's first unit when it has no such unit.
    """
    own = next((unit for unit in device.units if unit.compute_unit == compute_unit), device.units[0])
    if len(device.units) == 1 or precision not in own.precisions:
        return (own,)
    placed = placed_units(device, compute_units, precision)
    home = [unit for unit in placed if unit.compute_unit == compute_unit]
    return (*home, *(unit for unit in placed if unit.compute_unit != compute_unit)) if home else (own,)


def placed_ms(
    block: BlockFeatures,
    device: DeviceSpec,
    units: tuple[UnitSpec, ...],
    *,
    precision: Precision,
    weights: WeightFormat = _PLAIN,
) -> float:
    """Return the time of a block in a network whose home is the first of ``units``, switching included."""
    placement = place(block.operations, units)
    times = unit_times_ms(block, placement, units, precision=precision, weights=weights)
    return sum(times) + switching_ms(placement, units, device.crossing_ms)


def unit_times_ms(
    block: BlockFeatures,
    placement: Placement,
    units: Sequence[UnitSpec],
    *,
    precision: Precision,
    weights: WeightFormat = _PLAIN,
) -> list[float]:
    """Return the time of a block's operations on each unit, without switching between them."""
    times = []
    for position, unit in enumerate(units):
        pairs = zip(block.operations, placement.units, strict=True)
        operations = [operation for operation, chosen in pairs if chosen == position]
        seconds = step_seconds(steps_of(operations, unit, weights), rates_of(unit, precision))
        times.append(1e3 * float(seconds.sum()))
    return times


def switching_ms(placement: Placement, units: Sequence[UnitSpec], crossing_ms: Figure) -> float:
    """Return the time of the segments a block begins and of the crossings between them; 0 when it stays at home."""
    begun = placement.segments[1:]
    return len(begun) * crossing_ms.value + sum(units[position].segment_overhead_ms.value for position in begun)


def infeasibilities(
    block: BlockFeatures, placement: Placement, failed: Iterable[Infeasibility] = ()
) -> tuple[Infeasibility, ...]:
    """Return why a block does not run: refusals of every unit, or failures on record on the units it is placed on."""
    refused = [
        Infeasibility(block=block.block, compute_unit=item.compute_unit, reason=item.reason, source=item.source)
        for item in placement.refused
    ]
    return tuple(dict.fromkeys([*refused, *failed]))
