"""Calibrated predictor: time of each block within networks, roofline for blocks never seen, overhead and weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import exp
from typing import TYPE_CHECKING

from latency_models.constants import FittedConstant, with_constants
from latency_models.devices import DeviceSpec, UnitSpec, WeightFormat, get
from latency_models.effects import LEAST_SHARE
from latency_models.failures import Infeasible, failed_networks
from latency_models.features import BlockFeatures, block_features
from latency_models.gaussian import NORMAL_90
from latency_models.placement import place
from latency_models.predictors.roofline import home_units, infeasibilities, placed_ms
from latency_models.pricing import BlockPrice, IntervalRatios, WorkloadPrice, refuse_other_scenario
from latency_models.profiles import label_units
from latency_models.residency import PLAIN, MemoryTarget, resident_weight_bytes
from latency_models.summaries import AnchorReference
from nas.core.cost import ComputeUnit, Infeasibility, Origin
from nas.core.errors import ConfigError
from nas.core.scenario import Precision

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEntry:
    """Time of one block within networks, before its weights' share.

    ``measured`` is False where only whole networks and blocks of its kind speak for it.
    """

    signature: str
    latency_ms: float
    measured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KindEffect:
    """What a block of a kind that is not in the table takes: prior time x ``scale`` + ``extra_ms``."""

    kind: str
    scale: float
    extra_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTable:
    """Times on one OS version and compute unit.

    Attributes:
        num_records: Timed records of this group; the rest of what is known comes from the other groups.
        ratio: Time against the group with the most networks, mean over blocks; 1 for that group itself.
        ratio_sd: Standard deviation of the logarithm of ``ratio``; intervals of this group are wider by it.
        network_anchor: Machine speed that its times refer to, or None.
        overhead_ms: Time of a call that no block accounts for.
        ms_per_weight_mb: Extra time per MB of weights, which a block measured alone keeps in cache.
        kinds: Effects on the prior of blocks that are not in the table; the kind ``""`` stands for all other kinds.
    """

    os_build: str
    compute_unit: ComputeUnit
    num_records: int
    ratio: float
    ratio_sd: float
    network_anchor: AnchorReference | None
    overhead_ms: float
    ms_per_weight_mb: float
    entries: tuple[TableEntry, ...]
    kinds: tuple[KindEffect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRise:
    """Measured rise of memory while one block runs alone."""

    signature: str
    inside_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedModel:
    """Every coefficient of a calibrated predictor; what ``storage`` writes.

    Attributes:
        os_build: OS version that is priced, one of ``tables``; with ``compute_unit``.
        prior_device: Device file whose roofline prices blocks that are not in the table.
        scenario: ``call_label`` it holds for.
        tables: One for each OS version and compute unit that was measured.
        infeasible: What did not compile, load or run.
        weights: How the networks' weights are stored.
        lowerings: Lowerings by compute unit that take the place of the device file's.
        constants: Constants of the prior device fitted on the measured blocks, with ``working_set_factor``.
        rises: Measured rises of memory inside blocks.
        inside_scale: Measured over liveness rise of blocks alone, for blocks that were not measured.
        memory_scale: Slope of measured activation memory on the estimate; with ``memory_offset_mb`` its intercept.
    """

    device: str
    os_build: str
    compute_unit: ComputeUnit
    prior_device: str
    scenario: str
    precision: Precision
    tables: tuple[GroupTable, ...]
    infeasible: tuple[Infeasible, ...] = ()
    weights: WeightFormat = PLAIN
    lowerings: tuple[tuple[str, str], ...] = ()
    constants: tuple[FittedConstant, ...] = ()
    working_set_factor: float = 1.0
    rises: tuple[BlockRise, ...]
    inside_scale: float
    memory_scale: float
    memory_offset_mb: float
    ratios: IntervalRatios
    data_sha256: str
    num_networks: int
    origin: Origin = "predicted"

    @property
    def table(self) -> GroupTable:
        """The table that is priced.

        Raises:
            ConfigError: There is none of ``os_build`` and ``compute_unit``; the known ones are listed.
        """
        for table in self.tables:
            if (table.os_build, table.compute_unit) == (self.os_build, self.compute_unit):
                return table
        known = ", ".join(f"{table.os_build!r} on {table.compute_unit!r}" for table in self.tables)
        raise ConfigError(
            f"the calibration of {self.device!r} has no OS version {self.os_build!r} on {self.compute_unit!r}, "
            f"it has {known}",
            hint="profile at least a few networks there and calibrate again",
        )

    def fitted(self, spec: DeviceSpec) -> DeviceSpec:
        """Return the prior device with the networks' lowerings and the constants that were fitted."""
        spec = spec.relowered(self.lowerings)
        if not self.constants:
            return spec
        samples = sum(table.num_records for table in self.tables)
        return with_constants(spec, self.constants, self.working_set_factor, samples=samples)

    @property
    def network_anchor(self) -> AnchorReference | None:
        """Machine speed that the priced times refer to, or None."""
        return self.table.network_anchor


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
        """Conformal ends of the intervals, widened by what is not known of the priced OS version and unit."""
        ratios, sd = self.model.ratios, self._table.ratio_sd
        if sd == 0.0:
            return ratios
        wide = exp(NORMAL_90 * sd)
        return replace(
            ratios,
            latency=(ratios.latency[0] / wide, ratios.latency[1] * wide),
            outside=(ratios.outside[0] / wide, ratios.outside[1] * wide),
            latency_law=None if ratios.latency_law is None else replace(ratios.latency_law, extra_sd=sd),
        )

    @property
    def name(self) -> str:
        """Name with the digest of the data it was calibrated on, and the OS version where there are several."""
        model = self.model
        where = f" on {model.os_build} {model.compute_unit}" if len(model.tables) > 1 else ""
        return f"block table + {model.num_networks} networks ({model.data_sha256[:12]}){where}"

    def at(self, *, os_build: str | None = None, compute_unit: ComputeUnit | None = None) -> CalibratedPredictor:
        """Return the predictor of another measured OS version or compute unit.

        Raises:
            ConfigError: It was not measured; what was is listed.
        """
        model = replace(
            self.model, os_build=os_build or self.model.os_build, compute_unit=compute_unit or self.model.compute_unit
        )
        _ = model.table
        return CalibratedPredictor(model=model)

    def check_scenario(self, scenario: Scenario) -> None:
        """Raise ``ConfigError`` when ``scenario`` is not the one that was measured."""
        refuse_other_scenario(self.model.scenario, scenario, predictor=self.name)

    def price(self, workload: Workload) -> WorkloadPrice:
        """Price one call of ``workload``."""
        features = self.features(workload)
        return WorkloadPrice(
            blocks=tuple(self._price_block(block) for block in features),
            overhead_ms=self._table.overhead_ms,
            weights_mb=self.weights_mb(workload),
            parameters=workload.parameters,
            infeasible=tuple(fault for block in features for fault in self._faults(block)),
        )

    def network_faults(self, digest: str) -> tuple[Infeasibility, ...]:
        """Return why the whole network does not run, as the profile says."""
        return self._failed_networks.get(digest, ())

    def features(self, workload: Workload) -> tuple[BlockFeatures, ...]:
        """Return the features of a workload's blocks, with memory as the device's unit holds it."""
        return block_features(workload, self._units[0].lowered)

    def block_ms(self, block: BlockFeatures) -> float:
        """Return the time of one block within networks, in ms."""
        entry = self._entries.get(block.spec.signature)
        if entry is not None:
            base_ms, extra_ms = entry.latency_ms, 0.0
        else:
            effect = self._kinds.get(block.spec.kind) or self._kinds[""]
            base_ms = effect.scale * self._prior_ms(block)
            extra_ms = effect.extra_ms
        extra_ms += self._table.ms_per_weight_mb * block.weight_bytes / 1e6
        return max(LEAST_SHARE * base_ms, base_ms + extra_ms)

    def weights_mb(self, workload: Workload) -> float:
        """Return the memory of a workload's weights as the priced unit holds them."""
        return resident_weight_bytes(workload, self._memory) / 1e6

    def _prior_ms(self, block: BlockFeatures) -> float:
        model = self.model
        return placed_ms(block, self._device, self._units, precision=model.precision, weights=model.weights)

    def _price_block(self, block: BlockFeatures) -> BlockPrice:
        model = self.model
        entry = self._entries.get(block.spec.signature)
        return BlockPrice(
            block=block.block,
            latency_ms=self.block_ms(block),
            activation_mb=max(0.0, model.memory_offset_mb + model.memory_scale * self.raw_activation_mb(block)),
            compute_unit=model.compute_unit,
            in_domain=entry is not None and entry.measured,
            kind=block.spec.kind,
        )

    def raw_activation_mb(self, block: BlockFeatures) -> float:
        """Return the activation memory of the network while the block runs, in MB, before the device's line.

        Liveness, corrected by how far the block's measured rise is from its own liveness; blocks that were not
        measured rise as much more as the measured ones did.
        """
        rise_mb = self._rises.get(block.spec.signature)
        if rise_mb is None:
            return (block.held_bytes + self.model.inside_scale * block.inside_bytes) / 1e6
        return max(0.0, (block.held_bytes + block.inside_bytes - block.alone_bytes) / 1e6 + rise_mb)

    @cached_property
    def _table(self) -> GroupTable:
        return self.model.table

    @cached_property
    def _entries(self) -> dict[str, TableEntry]:
        return {entry.signature: entry for entry in self._table.entries}

    @cached_property
    def _kinds(self) -> dict[str, KindEffect]:
        return {effect.kind: effect for effect in self._table.kinds}

    @cached_property
    def _rises(self) -> dict[str, float]:
        return {rise.signature: rise.inside_mb for rise in self.model.rises}

    def _faults(self, block: BlockFeatures) -> tuple[Infeasibility, ...]:
        """Return why a block does not run: its failure on record, or what the device's limits say if it never ran."""
        failed = self._failed.get(block.spec.signature)
        if failed is not None:
            return (failed.on(block.block, self.model.device),)
        entry = self._entries.get(block.spec.signature)
        if entry is not None and entry.measured:
            return ()
        return infeasibilities(block, place(block.operations, self._units))

    @cached_property
    def _failed(self) -> dict[str, Infeasible]:
        unit = self.model.compute_unit
        return {
            item.subject: item for item in self.model.infeasible if item.level == "block" and item.compute_unit == unit
        }

    @cached_property
    def _failed_networks(self) -> dict[str, tuple[Infeasibility, ...]]:
        model = self.model
        return failed_networks(model.infeasible, model.compute_unit, model.device)

    @cached_property
    def _device(self) -> DeviceSpec:
        return self.model.fitted(get(self.model.prior_device))

    @cached_property
    def _memory(self) -> MemoryTarget:
        return MemoryTarget.of_unit(self._units[0], weights=self.model.weights)

    @cached_property
    def _units(self) -> tuple[UnitSpec, ...]:
        model = self.model
        return home_units(self._device, model.compute_unit, label_units(model.scenario), model.precision)
