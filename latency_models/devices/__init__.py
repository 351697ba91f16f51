"""Known devices as data: rates, overheads, limits and memory, each figure with source and date."""

from latency_models.devices.catalogue import DeviceSpec, get, names, read_listings
from latency_models.devices.figures import Figure
from latency_models.devices.units import KindRate, Limits, UnitSpec, Unsupported, WeightForm, WeightFormat

__all__ = [
    "DeviceSpec",
    "Figure",
    "KindRate",
    "Limits",
    "UnitSpec",
    "Unsupported",
    "WeightForm",
    "WeightFormat",
    "get",
    "names",
    "read_listings",
]
