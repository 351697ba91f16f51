"""Further devices of a run: where their predictors are, their cost tables, and all of them beside the run's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import latency_models
from latency_models.fleet import Fleet, FleetDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models import CostTable
    from nas.config.run import FurtherDevice, RunConfig
    from nas.core.cost import DeviceBudget


def predictor_file(device: FurtherDevice) -> Path:
    """Return the file of a device's calibrated predictor; the YAML names it, or a run directory."""
    path = Path(device.predictor or "")
    return path / "calibrate" / "predictor.json" if path.is_dir() else path


def device_budgets(config: RunConfig) -> tuple[DeviceBudget, ...]:
    """Return the limits on the further devices of a run."""
    return tuple(device.budget.on(device.name) for device in config.devices or ())


def with_fleet(config: RunConfig, own: CostTable, others: Sequence[CostTable]) -> CostTable:
    """Return the run's own table together with those of its further devices, in the order of the YAML."""
    if not config.devices or config.search is None:
        return own
    devices = tuple(
        FleetDevice(name=section.name, table=table, weight=section.weight)
        for section, table in zip(config.devices, others, strict=True)
    )
    return own.with_fleet(Fleet(devices=devices, combination=config.search.devices))


def known_predictor(device: FurtherDevice) -> latency_models.CalibratedPredictor | None:
    """Return the calibrated predictor of a further device; None where its prior counts.

    Raises:
        InputError: The file is missing or damaged.
    """
    return None if device.predictor is None else latency_models.load_predictor(predictor_file(device))
