"""Roofline prior: per operation the slower of computing and moving bytes, plus fixed overheads; nothing measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.features import BlockFeatures, block_features
from latency_models.pricing import BlockPrice, IntervalRatios, WorkloadPrice
from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from latency_models.devices import DeviceSpec, UnitSpec
    from nas.core.cost import Origin
    from nas.core.scenario import ComputeUnits, Precision, Scenario
    from nas.core.workload import Workload

# Real allocators keep buffers that liveness would free and pad rows; nothing is calibrated here.
_PRIOR_MEMORY_FACTOR = 2.0


class RooflinePredictor:
    """Uncalibrated prior of a device's latency and memory.

    Its interval is the device's ``prior_factor`` either way; the coverage is asserted from published spreads, not
    checked, and no estimate of it is ever in domain.
    """

    origin: Origin = "predicted"

    def __init__(
        self,
        device: DeviceSpec,
        *,
        precision: Precision = "float16",
        compute_units: ComputeUnits = "cpu_and_ne",
        coverage: float = 0.9,
    ) -> None:
        self.spec = device
        self.device = device.name
        self.unit = device.unit_for(compute_units)
        self.precision = precision
        self.compute_units = compute_units
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
        blocks = tuple(
            BlockPrice(
                block=block.block,
                latency_ms=roofline_ms(block, self.unit, precision=self.precision),
                activation_mb=(block.held_bytes + block.inside_bytes) / 1e6,
                compute_unit=self.unit.compute_unit,
                in_domain=False,
                kind=block.spec.kind,
            )
            for block in block_features(workload)
        )
        return WorkloadPrice(
            blocks=blocks,
            overhead_ms=self.unit.call_overhead_ms.value,
            weights_mb=workload.weight_bytes / 1e6,
            parameters=workload.parameters,
        )


def roofline_ms(block: BlockFeatures, unit: UnitSpec, *, precision: Precision) -> float:
    """Return the time of one block: the sum over operations of max(compute, bytes) + overhead.

    Source:
        Williams, Waterman, Patterson, "Roofline" (CACM 2009), applied per operation.
    """
    peak = unit.peak_flops_at(precision)
    weights, memory = unit.weight_bandwidth.value, unit.memory_bandwidth.value
    overhead_s = unit.operation_overhead_ms.value / 1e3
    seconds = sum(
        max(operation.flops / peak, operation.weight_bytes / weights + operation.moved_bytes / memory) + overhead_s
        for operation in block.operations
    )
    return 1e3 * seconds
