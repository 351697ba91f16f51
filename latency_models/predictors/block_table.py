"""Calibrated predictor: measured block table, roofline for what was not measured, additive correction per kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from latency_models.devices import DeviceSpec, UnitSpec, get
from latency_models.features import BlockFeatures, block_features
from latency_models.predictors.roofline import roofline_ms
from latency_models.pricing import BlockPrice, IntervalRatios, WorkloadPrice, refuse_other_scenario
from latency_models.summaries import AnchorReference
from nas.core.cost import ComputeUnit, Origin
from nas.core.scenario import Precision

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload

# A correction may not take more than this share of a block's table time away, whatever the few networks suggest.
_LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEntry:
    """Measured time of one block, and its measured rise of memory where there is one."""

    signature: str
    latency_ms: float
    inside_mb: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCorrection:
    """What whole networks say about the blocks of one kind: table time x ``scale`` + ``extra_ms`` each."""

    kind: str
    scale: float
    extra_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedModel:
    """Every coefficient of a calibrated predictor; what ``storage`` writes.

    Attributes:
        prior_device: Device file whose roofline prices blocks that were not measured.
        scenario: ``call_label`` it holds for.
        network_anchor: Machine speed that its times refer to, or None.
        fallback_scale: Measured over roofline time, fitted on the measured blocks.
        table_scale: Scale of table times of kinds without a correction of their own; ``block_extra_ms`` likewise.
        overhead_ms: Time of a call that no block accounts for.
        ms_per_weight_mb: Extra time per MB of weights, which a block measured alone keeps in cache.
        inside_scale: Measured over liveness rise inside blocks, for blocks that were not measured.
        memory_scale: Slope of measured activation memory on the estimate; with ``memory_offset_mb`` its intercept.
    """

    device: str
    compute_unit: ComputeUnit
    prior_device: str
    scenario: str
    precision: Precision
    network_anchor: AnchorReference | None
    table: tuple[TableEntry, ...]
    corrections: tuple[KindCorrection, ...]
    fallback_scale: float
    table_scale: float
    block_extra_ms: float
    overhead_ms: float
    ms_per_weight_mb: float
    inside_scale: float
    memory_scale: float
    memory_offset_mb: float
    ratios: IntervalRatios
    data_sha256: str
    num_networks: int
    origin: Origin = "predicted"


@dataclass(frozen=True, kw_only=True)
class CalibratedPredictor:
    """Prices workloads with a ``CalibratedModel``; sums over blocks, so a cost table of it is exact."""

    model: CalibratedModel

    @property
    def device(self) -> str:
        """Name of the measured device."""
        return self.model.device

    @property
    def origin(self) -> Origin:
        """``predicted``, or ``simulated`` when it was calibrated on a simulated phone."""
        return self.model.origin

    @property
    def ratios(self) -> IntervalRatios:
        """Conformal ends of the intervals."""
        return self.model.ratios

    @property
    def name(self) -> str:
        """Name with the digest of the data it was calibrated on."""
        return f"block table + {self.model.num_networks} networks ({self.model.data_sha256[:12]})"

    def check_scenario(self, scenario: Scenario) -> None:
        """Raise ``ConfigError`` when ``scenario`` is not the one that was measured."""
        refuse_other_scenario(self.model.scenario, scenario, predictor=self.name)

    def price(self, workload: Workload) -> WorkloadPrice:
        """Price one call of ``workload``."""
        return WorkloadPrice(
            blocks=tuple(self._price_block(block) for block in block_features(workload)),
            overhead_ms=self.model.overhead_ms,
            weights_mb=workload.weight_bytes / 1e6,
            parameters=workload.parameters,
        )

    def _price_block(self, block: BlockFeatures) -> BlockPrice:
        model = self.model
        entry = self._table.get(block.spec.signature)
        if entry is None:
            base_ms = model.fallback_scale * roofline_ms(block, self._unit, precision=model.precision)
        else:
            base_ms = entry.latency_ms
        fix = self._corrections.get(block.spec.kind)
        scale = model.table_scale if fix is None else fix.scale
        extra_ms = model.block_extra_ms if fix is None else fix.extra_ms
        extra_ms += model.ms_per_weight_mb * block.weight_bytes / 1e6
        return BlockPrice(
            block=block.block,
            latency_ms=max(_LEAST_SHARE * base_ms, scale * base_ms + extra_ms),
            activation_mb=max(0.0, model.memory_offset_mb + model.memory_scale * self.raw_activation_mb(block)),
            compute_unit=model.compute_unit,
            in_domain=entry is not None,
        )

    def raw_activation_mb(self, block: BlockFeatures) -> float:
        """Return bytes held around the block plus its measured rise (else its liveness rise, scaled), in MB."""
        entry = self._table.get(block.spec.signature)
        if entry is None or entry.inside_mb is None:
            return (block.held_bytes + self.model.inside_scale * block.inside_bytes) / 1e6
        return block.held_bytes / 1e6 + entry.inside_mb

    @cached_property
    def _table(self) -> dict[str, TableEntry]:
        return {entry.signature: entry for entry in self.model.table}

    @cached_property
    def _corrections(self) -> dict[str, KindCorrection]:
        return {correction.kind: correction for correction in self.model.corrections}

    @cached_property
    def _unit(self) -> UnitSpec:
        spec: DeviceSpec = get(self.model.prior_device)
        return next((unit for unit in spec.units if unit.compute_unit == self.model.compute_unit), spec.units[0])
