"""Names that files use for devices, compute units and networks, and ours."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, TypedDict

from latency_models.devices import get, names
from nas.core.architecture import Architecture
from nas.core.profile import DeviceInfo, Level, PlannedOperation
from nas.core.workload import BlockSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import ComputeUnit
    from nas.core.scenario import ComputeUnits

HOSTS = ("host-cpu", "host-cuda")

# Apple's model identifiers; the name on the box is what device files are called after.
PRODUCTS = {
    "iPhone12,1": "iPhone 11", "iPhone12,3": "iPhone 11 Pro", "iPhone12,5": "iPhone 11 Pro Max",
    "iPhone13,1": "iPhone 12 mini", "iPhone13,2": "iPhone 12", "iPhone13,3": "iPhone 12 Pro",
    "iPhone13,4": "iPhone 12 Pro Max", "iPhone14,4": "iPhone 13 mini", "iPhone14,5": "iPhone 13",
    "iPhone14,2": "iPhone 13 Pro", "iPhone14,3": "iPhone 13 Pro Max", "iPhone14,7": "iPhone 14",
    "iPhone14,8": "iPhone 14 Plus", "iPhone15,2": "iPhone 14 Pro", "iPhone15,3": "iPhone 14 Pro Max",
    "iPhone15,4": "iPhone 15", "iPhone15,5": "iPhone 15 Plus", "iPhone16,1": "iPhone 15 Pro",
    "iPhone16,2": "iPhone 15 Pro Max", "iPhone17,3": "iPhone 16", "iPhone17,4": "iPhone 16 Plus",
    "iPhone17,1": "iPhone 16 Pro", "iPhone17,2": "iPhone 16 Pro Max", "iPhone17,5": "iPhone 16e",
    "iPhone18,3": "iPhone 17", "iPhone18,1": "iPhone 17 Pro", "iPhone18,2": "iPhone 17 Pro Max",
    "iPhone18,4": "iPhone Air",
}  # fmt: skip

_UNITS: dict[str, ComputeUnit] = {
    "cpu": "cpu", "gpu": "gpu", "ane": "neural_engine", "ne": "neural_engine", "npu": "neural_engine",
    "neuralengine": "neural_engine", "neural_engine": "neural_engine", "neural engine": "neural_engine",
    "cuda": "cuda", "unknown": "unknown", "": "unknown",
}  # fmt: skip
_REQUESTED: dict[str, ComputeUnits] = {
    "all": "all", "cpuonly": "cpu_only", "cpuandgpu": "cpu_and_gpu", "cpuandneuralengine": "cpu_and_ne",
    "cpuandne": "cpu_and_ne", "cpu": "cpu_only", "gpu": "cpu_and_gpu", "ane": "cpu_and_ne",
    "neuralengine": "cpu_and_ne",
}  # fmt: skip


class Subject(TypedDict):
    """The fields of a record that say what was measured."""

    subject: str
    level: Level
    architecture: Architecture | None
    block: BlockSpec | None


def subject(text: str, *, level: Level = "network") -> Subject:
    """Read a block's signature, an architecture's text, or the name of a network that is not ours.

    Raises:
        ValueError: The text is empty.
    """
    text = text.strip()
    if not text:
        raise ValueError("names no block, architecture or model")
    if "(" in text and "=" in text:
        block = BlockSpec.parse(text)
        return Subject(subject=block.signature, level="block", architecture=None, block=block)
    if "/" in text.split()[0] and "=" in text:
        architecture = Architecture.from_text(text)
        return Subject(subject=architecture.digest, level="network", architecture=architecture, block=None)
    return Subject(subject=text, level=level, architecture=None, block=None)


def device_name(text: str) -> str:
    """Return our name of a device given by our name, its label, or the maker's identifier.

    Raises:
        ValueError: It is not known; the message has the nearest names.
    """
    known = _known_devices()
    key = _plain(PRODUCTS.get(text.strip(), text))
    if key in known:
        return known[key]
    near = [known[item] for item in get_close_matches(key, known, n=3, cutoff=0.5)]
    nearest = f"; nearest are {', '.join(dict.fromkeys(near))}" if near else ""
    raise ValueError(f"unknown device {text!r}{nearest}; `nas list devices` has all")


def loose_device_name(text: str) -> str:
    """Return our name of a device, or its own where we have none: for tables of devices that are not ours."""
    try:
        return device_name(text)
    except ValueError:
        return text


def compute_unit(text: str) -> ComputeUnit:
    """Return our name of the unit that something ran on.

    Raises:
        ValueError: It is not one of those that tools write.
    """
    unit = _UNITS.get(text.strip().lower())
    if unit is None:
        raise ValueError(f"unknown compute unit {text!r}; known are CPU, GPU, ANE")
    return unit


def requested_units(text: str) -> ComputeUnits:
    """Return our name of a Core ML setting, such as ``cpuAndNeuralEngine`` or ``CPU_AND_NE``.

    Raises:
        ValueError: It is no such setting.
    """
    found = _REQUESTED.get(_plain(text))
    if found is None:
        raise ValueError(f"unknown compute units {text!r}; known are all, cpu_only, cpu_and_gpu, cpu_and_ne")
    return found


def ran_on(plan: Sequence[PlannedOperation], requested: ComputeUnits | None) -> ComputeUnit:
    """Return the unit with most of the plan's cost; without a plan the one that the setting is for."""
    if plan:
        shares: dict[ComputeUnit, float] = {}
        for operation in plan:
            shares[operation.preferred] = shares.get(operation.preferred, 0.0) + (operation.cost_share or 1e-9)
        return max(shares, key=lambda unit: shares[unit])
    preferred: dict[str | None, ComputeUnit] = {
        "cpu_only": "cpu",
        "cpu_and_gpu": "gpu",
        "cpu_and_ne": "neural_engine",
    }
    return preferred.get(requested, "unknown")


def third_party(
    name: str, *, chip: str = "", unit: ComputeUnit = "unknown", software: str = "", os: str = ""
) -> DeviceInfo:
    """Describe a device of which a table gives little more than the name."""
    return DeviceInfo(
        name=name, chip=chip, compute_unit=unit, threads=1, memory_mb=None, os_build="", software=software, os=os
    )


@cache
def _known_devices() -> dict[str, str]:
    known = {_plain(name): name for name in HOSTS}
    for name in names():
        if not name.startswith("host_"):
            known |= {_plain(name): name, _plain(get(name).label): name}
    return known


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("+", "plus"))
