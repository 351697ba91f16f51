"""Peak bytes that a torch call takes from the CPU allocator, from the allocator's own events.

torch is imported inside the function: this package must load without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def peak_allocated_bytes(call: Callable[[], Any]) -> int:
    """Return the most that torch's CPU allocator gave out above what it had given out before ``call``.

    Every tensor and every workspace a kernel asks the allocator for counts, to the byte; memory that libraries take
    from the system themselves does not. The result of ``call`` counts.

    The legacy profiler is used because it hands out the events without writing to stderr, as the kineto profiler does;
    both give the same events (tests/latency_models/test_torch_host.py). It is not part of torch's documented interface.
    """
    from torch import autograd
    from torch._C import _profiler

    options = _profiler._ExperimentalConfig()
    config = _profiler.ProfilerConfig(_profiler.ProfilerState.CPU, False, True, False, False, False, options)
    autograd._enable_profiler_legacy(config)
    try:
        result = call()
    finally:
        threads = autograd._disable_profiler_legacy()
    del result
    live = peak = 0
    for events in threads:
        for event in events:
            if str(event.kind()) == "memory_alloc":
                live += event.cpu_memory_usage()
                peak = max(peak, live)
    return peak
