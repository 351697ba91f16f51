"""Known devices as data: peak rates per compute unit, overheads and memory, each figure with source and date."""

from latency_models.devices.catalogue import DeviceSpec, Figure, UnitSpec, get, names

__all__ = ["DeviceSpec", "Figure", "UnitSpec", "get", "names"]
