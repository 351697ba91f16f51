"""This machine's CPU or CUDA GPU as a device of its own; torch is imported only when something is measured."""

from __future__ import annotations

import gc
import os
import platform
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from latency_models.jobs import Availability
from nas.core.errors import ConfigError
from nas.core.profile import DeviceInfo, ProfileRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from latency_models.jobs import MeasurementJob, MeasurementPlan
    from nas.core.cost import ComputeUnit, Origin

# On a shared machine a record may take this many times its planned seconds to get its share of the processor.
_MOST_STRETCH = 4.0
# Levels that are timed beside the network anchor, for as long as networks are.
_WHOLE = ("network", "pipeline")


class TorchHostBackend:
    """Times torch modules on this machine.

    With one CPU thread the clock is the thread's own processor time: on an idle machine it equals wall time, on a
    shared one it leaves out the time other processes held the core. Otherwise it is wall time, with CUDA synchronised.

    Between samples an anchor is timed by the same clock; ``summaries`` divides by it, because shared and virtual
    machines change speed by tens of per cent within seconds. Blocks use a small built-in anchor. Whole networks need
    one of their own size: caches and memory slow down under other load than arithmetic does. Measured on a shared
    2-core machine whose load was switched on and off: ratios of a network to the built-in anchor moved by 10 %
    (standard deviation), to a chain of convolutions by 11 %, to the bare backbone of the same space by 2 %.

    Args:
        device: ``cpu`` or ``cuda``.
        threads: CPU threads torch may use while measuring.
        network_anchor: What whole networks are timed beside, best the bare backbone of their space; without it the
            built-in anchor.
    """

    origin: Origin = "measured"

    def __init__(
        self,
        device: Literal["cpu", "cuda"] = "cpu",
        *,
        threads: int = 1,
        network_anchor: MeasurementJob | None = None,
    ) -> None:
        if device not in ("cpu", "cuda"):
            raise ConfigError(f"torch host device must be 'cpu' or 'cuda', got {device!r}")
        if threads < 1:
            raise ConfigError(f"torch host threads must be at least 1, got {threads}")
        self.device = device
        self.threads = threads
        self.name = f"host-{device}"
        self._network_anchor_job = network_anchor
        self._anchors: dict[str, Callable[[], Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the anchors behind: another process builds its own."""
        return self.__dict__ | {"_anchors": {}}

    def availability(self) -> Availability:
        """Say whether torch is installed, and for CUDA whether it sees a GPU."""
        try:
            import torch
        except ImportError as error:
            return Availability(available=False, reason=f"torch cannot be imported: {error}")
        if self.device == "cuda" and not torch.cuda.is_available():
            return Availability(available=False, reason="torch sees no CUDA GPU")
        return Availability(available=True)

    def describe(self) -> DeviceInfo:
        """Describe this machine; the name is ``host-cpu`` or ``host-cuda`` and never a phone's."""
        import torch

        if self.device == "cuda":
            properties = torch.cuda.get_device_properties(0)
            chip, memory_bytes = properties.name, properties.total_memory
        else:
            chip, memory_bytes = _processor_name(), _memory_bytes()
        unit: ComputeUnit = "cuda" if self.device == "cuda" else "cpu"
        return DeviceInfo(
            name=self.name,
            chip=chip,
            compute_unit=unit,
            threads=self.threads,
            memory_mb=memory_bytes / 1e6,
            os_build=f"{platform.system()} {platform.release()}",
            software=f"torch {torch.__version__}",
        )

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool = True) -> ProfileRecord:
        """Measure one job: memory traced in its first call, then warm-up and timed calls with anchors between."""
        import torch

        with torch.inference_mode(), _fixed_threads(self.threads):
            function, arguments = job.make()
            peak_mb, method = self._trace_memory(function, arguments) if memory else (None, None)
            with _collector_off():
                samples, anchors = self._sample(lambda: function(*arguments), job, plan)
        return ProfileRecord(
            subject=job.subject,
            level=job.level,
            architecture=job.architecture,
            block=job.block,
            scenario=plan.scenario,
            device=self.describe(),
            samples_ms=tuple(samples),
            anchor_ms=tuple(anchors),
            warmup=plan.warmup,
            peak_memory_mb=peak_mb,
            memory_method=method,
            tool=f"torch {torch.__version__}, {self._clock_name()}",
            taken_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            origin=self.origin,
            source=f"torch host beside anchor {self._anchor_name(job.level)}",
        )

    def _sample(
        self, call: Callable[[], Any], job: MeasurementJob, plan: MeasurementPlan
    ) -> tuple[list[float], list[float]]:
        clock = self._clock()
        anchor = self._anchor(job.level)
        samples: list[float] = []
        around: list[float] = []
        anchor()
        before = _timed(anchor, clock)
        budget_ms = 1e3 * (plan.network_seconds if job.level in _WHOLE else plan.seconds)
        deadline = time.monotonic() + _MOST_STRETCH * budget_ms / 1e3
        spent_ms = 0.0
        while len(samples) < plan.warmup + plan.max_repeats:
            enough = len(samples) >= plan.warmup + plan.min_repeats
            if enough and (spent_ms > budget_ms or time.monotonic() > deadline):
                break
            sample = _timed(call, clock)
            # A long job spans more of the machine's swings, so its anchor is run a few times.
            runs = max(1, min(9, round(0.1 * sample / before)))
            times = sorted(_timed(anchor, clock) for _ in range(runs))
            after = times[len(times) // 2]
            spent_ms += sample + sum(times)
            samples.append(sample)
            around.append(0.5 * (before + after))
            before = after
        return samples, around

    def _trace_memory(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[float, str]:
        function(*arguments)  # first calls allocate workspaces that stay
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            function(*arguments)
            torch.cuda.synchronize()
            return (torch.cuda.max_memory_allocated() - held) / 1e6, "cuda allocator peak above held"
        from latency_models.backends.torch_memory import peak_allocated_bytes

        return peak_allocated_bytes(lambda: function(*arguments)) / 1e6, "cpu allocator peak above held"

    def _clock(self) -> Callable[[], int]:
        if self.device == "cuda":
            import torch

            def synchronised_ns() -> int:
                torch.cuda.synchronize()
                return time.perf_counter_ns()

            return synchronised_ns
        return time.thread_time_ns if self._uses_thread_clock() else time.perf_counter_ns

    def _uses_thread_clock(self) -> bool:
        return self.device == "cpu" and self.threads == 1 and hasattr(time, "thread_time_ns")

    def _clock_name(self) -> str:
        if self.device == "cuda":
            return "synchronised wall clock"
        return "processor time of one thread" if self._uses_thread_clock() else "wall clock"

    def _anchor_name(self, level: str) -> str:
        job = self._network_anchor_job
        return job.subject if job is not None and level in _WHOLE else "built-in"

    def _anchor(self, level: str) -> Callable[[], Any]:
        """Return the level's anchor, built once and kept."""
        name = self._anchor_name(level)
        if name not in self._anchors:
            job = self._network_anchor_job
            self._anchors[name] = self._built_in_anchor() if job is None or name == "built-in" else _bound(job)
        return self._anchors[name]

    def _built_in_anchor(self) -> Callable[[], Any]:
        """Build a fixed network of the kinds of operation the video networks are made of."""
        import torch
        from torch import nn
        from torch.nn import functional

        with torch.random.fork_rng():
            torch.manual_seed(0)
            image = torch.randn(8, 64, 4, 4, device=self.device)
            norm = nn.GroupNorm(8, 64).to(self.device)
            convolution = nn.Conv2d(64, 64, 3, padding=1).to(self.device)
            projection = nn.Linear(64, 64).to(self.device)

        def anchor() -> Any:
            hidden = convolution(functional.silu(norm(image)))
            tokens = projection(hidden.flatten(2).transpose(1, 2)).unflatten(2, (4, 16)).transpose(1, 2)
            mixed = functional.scaled_dot_product_attention(tokens, tokens, tokens)
            flat = mixed.transpose(1, 2).flatten(2).transpose(1, 2).reshape(8, 64, 4, 4)
            return convolution(functional.silu(norm(flat + hidden)))

        return anchor


def _bound(job: MeasurementJob) -> Callable[[], Any]:
    function, arguments = job.make()
    return lambda: function(*arguments)


def _timed(call: Callable[[], Any], clock: Callable[[], int]) -> float:
    """Milliseconds of one call; at least one nanosecond, as a coarse clock may not move."""
    start = clock()
    call()
    return max(clock() - start, 1) / 1e6


@contextmanager
def _fixed_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _collector_off() -> Iterator[None]:
    # No collection here: with torch loaded one takes 0.2 s, several times the measurement itself.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123  # not a file of ours
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        import psutil

        return int(psutil.virtual_memory().total)
