"""The Mac that this runs on, through coremltools."""

from __future__ import annotations

import platform
import subprocess
from typing import TYPE_CHECKING

from latency_models.backends.coreml import CoreMLBackend, availability_of, missing_here
from nas.core.errors import UnavailableError
from nas.core.profile import DeviceInfo

if TYPE_CHECKING:
    from latency_models.backends.coreml import PackageOf
    from latency_models.devices import DeviceSpec
    from latency_models.jobs import Availability
    from nas.core.scenario import ComputeUnits

NAME = "coreml-host"


def availability() -> Availability:
    """Say whether this machine runs Core ML packages."""
    return availability_of(missing_here())


def connect(spec: DeviceSpec, package_of: PackageOf, *, compute_units: ComputeUnits) -> CoreMLBackend:
    """Return the backend of this Mac.

    Raises:
        UnavailableError: This is no Mac, or one with another chip than ``spec``.
    """
    state = availability()
    if not state.available:
        raise UnavailableError(
            f"backend 'coreml_host' cannot measure here: it {state.reason}",
            hint="`nas profile RUN --kit DIR` writes what to measure elsewhere",
        )
    chip = _system("machdep.cpu.brand_string").removeprefix("Apple ")
    if chip != spec.chip:
        raise UnavailableError(
            f"this Mac has a chip {chip!r}, {spec.name!r} has {spec.chip!r}", hint="nas list devices"
        )
    device = DeviceInfo(
        name=spec.name,
        chip=spec.chip,
        compute_unit=spec.unit_for(compute_units).compute_unit,
        threads=1,
        memory_mb=int(_system("hw.memsize")) / 1e6,
        os_build=_system("kern.osversion"),
        software="Core ML",
        product=_system("hw.model"),
        os=f"macOS {platform.mac_ver()[0]}",
    )
    return CoreMLBackend(NAME, device, package_of, compute_units=compute_units)


def _system(name: str) -> str:
    return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True).stdout.strip()
