"""A phone that is arithmetic: hidden true costs, seeded noise, warm-up, drift and throttling, for tests and trials."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

from latency_models.features import block_features
from latency_models.jobs import Availability
from latency_models.memory import memory_graph
from latency_models.predictors.roofline import home_units, placed_ms
from nas.core.errors import MeasurementError
from nas.core.profile import DeviceInfo, ProfileRecord
from nas.core.rng import RandomStreams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from latency_models.devices import DeviceSpec
    from latency_models.features import BlockFeatures
    from latency_models.jobs import MeasurementJob, MeasurementPlan
    from nas.core.cost import Origin
    from nas.core.scenario import ComputeUnits, Precision
    from nas.core.workload import Workload

_SAMPLES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedBehaviour:
    """How the simulated phone differs from its roofline.

    Attributes:
        seed: Of noise and of the hidden factors.
        session: Another number is another session on the same phone: other noise, same hidden factors.
        noise_ratio: Standard deviation of the logarithm of each sample.
        record_noise_ratio: Standard deviation of the logarithm of what all samples of one record have in common.
        block_noise_ratio: The same for records of blocks, on top.
        session_ratio: The same of what all records of one session have in common and the anchor does not see.
        interaction_ratio: The same of a hidden factor of each whole network, which no sum over blocks can know.
        kind_spread: Hidden factor of each block kind, drawn from exp(U(-spread, spread)).
        block_spread: Likewise of each block on its own, on top of its kind's.
        fusion_ratio: Share of every block's time that a whole network saves.
        network_overhead_ms: Time of a network call beyond its blocks.
        warmup_ratio: First sample is slower by this share, the second by half of it, and so on.
        drift_ratio: Slower by this share after a hundred records, the anchor alike.
        throttle_after: Records after which it is ``throttle_ratio`` slower; None for never.
        throttle_ratio: Share of slow-down when throttled.
        memory_overhead_mb: Rise of a network's memory beyond liveness.
    """

    seed: int = 0
    session: int = 0
    noise_ratio: float = 0.02
    record_noise_ratio: float = 0.0
    block_noise_ratio: float = 0.0
    session_ratio: float = 0.0
    interaction_ratio: float = 0.0
    kind_spread: float = 0.3
    block_spread: float = 0.0
    fusion_ratio: float = 0.1
    network_overhead_ms: float = 0.4
    warmup_ratio: float = 1.0
    drift_ratio: float = 0.0
    throttle_after: int | None = None
    throttle_ratio: float = 0.5
    memory_overhead_mb: float = 12.0


class SimulatedPhone:
    """Answers measurement jobs from workloads; every record says ``simulated``.

    Args:
        spec: Device whose roofline is the core of the truth.
        workloads: Workload per network subject; block subjects are looked up inside them.
        behaviour: Noise and hidden effects.
        precision: Number format of the scenario.
        compute_units: Core ML setting of the scenario.
    """

    origin: Origin = "simulated"

    def __init__(
        self,
        spec: DeviceSpec,
        workloads: Mapping[str, Workload],
        behaviour: SimulatedBehaviour | None = None,
        *,
        precision: Precision = "float16",
        compute_units: ComputeUnits = "cpu_and_ne",
    ) -> None:
        self.name = f"simulated-{spec.name}"
        self.spec = spec
        self.unit = spec.unit_for(compute_units)
        self._units = home_units(spec, self.unit.compute_unit, compute_units, precision)
        self.precision = precision
        self.behaviour = behaviour or SimulatedBehaviour()
        self._networks = {subject: block_features(workload) for subject, workload in workloads.items()}
        self._input_bytes = {subject: memory_graph(workload).input_bytes for subject, workload in workloads.items()}
        self._blocks = {block.spec.signature: block for blocks in self._networks.values() for block in blocks}
        self._records = 0

    def availability(self) -> Availability:
        """Always available."""
        return Availability(available=True)

    def describe(self) -> DeviceInfo:
        """Describe the simulated phone; its name says that it is one."""
        return DeviceInfo(
            name=self.name,
            chip=f"simulated {self.spec.chip}",
            compute_unit=self.unit.compute_unit,
            threads=1,
            memory_mb=self.spec.usable_memory_mb.value,
            os_build="simulated",
            software="latency_models.backends.simulated",
        )

    def true_ms(self, subject: str) -> float:
        """Return the hidden time of a block signature or network digest, without noise."""
        network = self._networks.get(subject)
        if network is None:
            return self._block_ms(self._block(subject))
        blocks_ms = sum(self._block_ms(block) for block in network)
        additive_ms = self.behaviour.network_overhead_ms + (1.0 - self.behaviour.fusion_ratio) * blocks_ms
        return additive_ms * self._hidden_factor(self.behaviour.interaction_ratio, f"network/{subject}")

    def true_memory_mb(self, subject: str) -> float:
        """Return the hidden rise of memory of a block signature or network digest."""
        network = self._networks.get(subject)
        if network is None:
            return self._block(subject).alone_bytes / 1e6
        peak_bytes = max(block.held_bytes + block.inside_bytes for block in network) - self._input_bytes[subject]
        return self.behaviour.memory_overhead_mb + peak_bytes / 1e6

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool = True) -> ProfileRecord:
        """Return a record of seeded samples; the job's ``make`` is not called."""
        behaviour = self.behaviour
        number, self._records = self._records, self._records + 1
        speed = 1.0 + behaviour.drift_ratio * number / 100.0
        throttled = behaviour.throttle_after is not None and number >= behaviour.throttle_after
        if throttled:
            speed += behaviour.throttle_ratio
        session = f"/{behaviour.session}" if behaviour.session else ""
        generator = RandomStreams(behaviour.seed).numpy(f"simulated/{job.subject}{session}", number)
        unseen = self._hidden_factor(behaviour.session_ratio, f"session/{behaviour.session}")
        unseen *= self._hidden_factor(behaviour.record_noise_ratio, f"record/{job.subject}{session}/{number}")
        if job.level == "block":
            unseen *= self._hidden_factor(behaviour.block_noise_ratio, f"block/{job.subject}{session}/{number}")
        truth = self.true_ms(job.subject) * speed * unseen
        count = max(plan.warmup + plan.min_repeats, _SAMPLES)
        slow_start = [behaviour.warmup_ratio * 0.5**index if index < 8 else 0.0 for index in range(count)]
        noise = [exp(behaviour.noise_ratio * float(value)) for value in generator.standard_normal(count)]
        return ProfileRecord(
            subject=job.subject,
            level=job.level,
            architecture=job.architecture,
            block=job.block,
            scenario=plan.scenario,
            device=self.describe(),
            samples_ms=tuple(truth * (1.0 + slow) * wobble for slow, wobble in zip(slow_start, noise, strict=True)),
            anchor_ms=(speed,) * count,
            warmup=plan.warmup,
            peak_memory_mb=self.true_memory_mb(job.subject) if memory else None,
            memory_method="simulated liveness" if memory else None,
            thermal_states=("serious" if throttled else "nominal",),
            tool="simulated phone",
            taken_at=f"record {number}",
            origin=self.origin,
            source="latency_models.backends.simulated",
        )

    def _hidden_factor(self, ratio: float, name: str) -> float:
        return exp(ratio * RandomStreams(self.behaviour.seed).python(name).gauss(0.0, 1.0)) if ratio else 1.0

    def _block(self, subject: str) -> BlockFeatures:
        if subject not in self._blocks:
            raise MeasurementError(f"{self.name} knows no block or network {subject!r}")
        return self._blocks[subject]

    def _block_ms(self, block: BlockFeatures) -> float:
        streams, behaviour = RandomStreams(self.behaviour.seed), self.behaviour
        hidden = behaviour.kind_spread * streams.python(f"kind/{block.spec.kind}").uniform(-1.0, 1.0)
        if behaviour.block_spread:
            hidden += behaviour.block_spread * streams.python(f"block/{block.spec.signature}").uniform(-1.0, 1.0)
        factor = exp(hidden)
        return factor * placed_ms(block, self.spec, self._units, precision=self.precision)
