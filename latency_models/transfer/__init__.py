"""Few-shot latency of a new device: other devices' profiles plus a handful of its own measurements.

Works on any table of network features, devices and latencies; knows nothing of search spaces.
"""

from __future__ import annotations

from latency_models.transfer.choice import choose_networks
from latency_models.transfer.sources import SourceModels, fit_sources
from latency_models.transfer.table import LatencyTable
from latency_models.transfer.target import TargetPrediction, TargetPredictor, fit_target

__all__ = [
    "LatencyTable",
    "SourceModels",
    "TargetPrediction",
    "TargetPredictor",
    "choose_networks",
    "fit_sources",
    "fit_target",
]
