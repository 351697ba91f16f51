"""A space small enough to check by hand, a backend that needs no clock, and records made to order."""

from __future__ import annotations

from itertools import count, product
from typing import TYPE_CHECKING, Any

import pytest

from latency_models.jobs import Availability, MeasurementJob, MeasurementPlan
from latency_models.profiles import call_label
from nas.core.architecture import Architecture, ChoiceSpec, ChoiceValue
from nas.core.errors import ArchitectureError
from nas.core.profile import DeviceInfo, ProfileRecord
from nas.core.scenario import Scenario
from nas.core.workload import BlockSpec, Operation, TensorSpec, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DEVICE = DeviceInfo(
    name="host-cpu", chip="test", compute_unit="cpu", threads=1, memory_mb=1e4, os_build="os", software="torch 0"
)


_CALLS = count()


class Builder:
    """Writes a workload operation by operation."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.tensors: dict[str, TensorSpec] = {}
        self.blocks: list[tuple[str, BlockSpec]] = []

    def tensor(self, name: str, elements: int) -> str:
        self.tensors[name] = TensorSpec(name=name, shape=(elements,), element_bytes=4)
        return name

    def block(self, name: str, spec: BlockSpec) -> None:
        self.blocks.append((name, spec))

    def operation(self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], *, parameters: int) -> None:
        block = self.blocks[-1][0]
        self.operations.append(
            Operation(
                name=f"{block}.{name}",
                block=block,
                kind="matmul",
                flops=2000 * parameters,
                parameters=parameters,
                weight_bytes=4 * parameters,
                inputs=inputs,
                outputs=outputs,
            )
        )

    def build(self, calls: int) -> Workload:
        return Workload(
            operations=tuple(self.operations),
            tensors=tuple(self.tensors.values()),
            blocks=tuple(self.blocks),
            repeats=(("denoiser", calls),),
        )


class SmallSpace:
    """Three slots behind blocks of 4000, 1000 and 4000 elements, with a skip from the first to the last."""

    name = "small"
    version = 1
    kinds = ("none", "thin", "wide", "mix")
    elements = (4000, 1000, 4000)

    @property
    def identifier(self) -> str:
        return "small/1"

    def choices(self) -> tuple[ChoiceSpec, ...]:
        return tuple(ChoiceSpec(name=f"{slot}.kind", values=self.kinds) for slot in self.slots())

    def slots(self) -> tuple[str, ...]:
        return ("first", "middle", "last")

    def options(self, slot: str) -> tuple[Mapping[str, ChoiceValue], ...]:
        return tuple({f"{slot}.kind": kind} for kind in self.kinds)

    def count(self) -> int:
        return len(self.kinds) ** 3

    def encode(self, architecture: Architecture) -> tuple[int, ...]:
        return self.to_options(architecture)

    def decode(self, indices: Sequence[int]) -> Architecture:
        return self.from_options(indices)

    def from_options(self, options: Sequence[int]) -> Architecture:
        pairs = zip(self.slots(), options, strict=True)
        return Architecture(self.identifier, {f"{slot}.kind": self.kinds[option] for slot, option in pairs})

    def to_options(self, architecture: Architecture) -> tuple[int, ...]:
        return tuple(self.kinds.index(str(architecture[f"{slot}.kind"])) for slot in self.slots())

    def validate(self, architecture: Architecture) -> None:
        if set(architecture) != {f"{slot}.kind" for slot in self.slots()}:
            raise ArchitectureError(f"not of {self.identifier}")

    def all(self) -> Iterator[Architecture]:
        for options in product(range(len(self.kinds)), repeat=3):
            yield self.from_options(options)

    def workload(self, architecture: Architecture, scenario: Scenario) -> Workload:
        builder = Builder()
        flow = builder.tensor("input", 500)
        skip = ""
        for slot, elements in zip(self.slots(), self.elements, strict=True):
            builder.block(f"{slot}.base", BlockSpec.of("base", elements=elements, joined=int(slot == "last")))
            joined = (flow, skip) if slot == "last" else (flow,)
            output = builder.tensor(f"{slot}.base.out", elements)
            builder.operation("run", joined, (output,), parameters=50 + elements)
            flow = self._temporal(builder, slot, str(architecture[f"{slot}.kind"]), flow=output, elements=elements)
            skip = flow if slot == "first" else skip
        return builder.build(scenario.denoiser_calls)

    def _temporal(self, builder: Builder, slot: str, kind: str, *, flow: str, elements: int) -> str:
        if kind == "none":
            return flow
        inner = {"thin": elements // 2, "wide": 3 * elements, "mix": elements}[kind]
        name = f"{slot}.temporal"
        builder.block(name, BlockSpec.of(kind, elements=elements, inner=inner))
        middle, output = builder.tensor(f"{name}.inner", inner), builder.tensor(f"{name}.out", elements)
        builder.operation("in", (flow,), (middle,), parameters=inner)
        builder.operation("out", (middle, flow), (output,), parameters=2 * inner + 7)
        return output


class CountingBackend:
    """Returns a fixed time per subject and counts how often each was measured; may fail at a given call."""

    name = "host-cpu"
    origin = "measured"

    def __init__(self, *, fail_at: int | None = None, missing: str = "", device: DeviceInfo = DEVICE) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.fail_at = fail_at
        self.missing = missing
        self.device = device

    def availability(self) -> Availability:
        return Availability(available=not self.missing, reason=self.missing)

    def describe(self) -> DeviceInfo:
        return self.device

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool) -> ProfileRecord:
        if self.fail_at is not None and len(self.calls) >= self.fail_at:
            raise RuntimeError("device lost")
        self.calls.append((job.subject, memory))
        moment = f"call {next(_CALLS)}"
        memory_mb = 1.0 if memory else None
        return make_record(job.subject, level=job.level, scenario=plan.scenario, memory_mb=memory_mb, taken_at=moment)


def make_record(subject: str = "net", **changes: Any) -> ProfileRecord:
    """Build a record; ``changes`` are fields, ``memory_mb`` the peak."""
    memory_mb = changes.pop("memory_mb", 1.0)
    values: dict[str, Any] = {
        "subject": subject,
        "level": "network",
        "scenario": call_label(SCENARIO),
        "device": DEVICE,
        "samples_ms": (9.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0),
        "warmup": 1,
        "peak_memory_mb": memory_mb,
        "memory_method": None if memory_mb is None else "test",
        "tool": "test",
        "taken_at": "2026-01-01T00:00:00",
        "origin": "measured",
        "source": "test",
    }
    return ProfileRecord(**{**values, **changes})


SCENARIO = Scenario(
    frames=8, height=32, width=32, denoising_steps=4, guidance=True, precision="float32", compute_units="cpu_only"
)


@pytest.fixture
def scenario() -> Scenario:
    """Eight frames, four guided steps: eight denoiser calls."""
    return SCENARIO


@pytest.fixture
def space() -> SmallSpace:
    """A space of 64 architectures."""
    return SmallSpace()


@pytest.fixture
def record() -> Any:
    """The record maker."""
    return make_record


@pytest.fixture
def counting_backend() -> type[CountingBackend]:
    """The backend class."""
    return CountingBackend


@pytest.fixture
def workload_builder() -> type[Builder]:
    """The workload writer."""
    return Builder
