"""A calibrated predictor as JSON: every coefficient, device and data digest, never pickle."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from latency_models.predictors.block_table import CalibratedModel, CalibratedPredictor
from nas.core.files import read_json, write_json
from nas.core.schema import check_schema, from_data, to_data, with_schema

if TYPE_CHECKING:
    from pathlib import Path


def save_predictor(path: Path, predictor: CalibratedPredictor) -> None:
    """Write ``predictor`` to ``path``, atomically."""
    body = {"tool": f"mobile-video-nas {_tool_version()}", "model": to_data(predictor.model)}
    write_json(path, with_schema("predictor", 2, body))


def load_predictor(path: Path) -> CalibratedPredictor:
    """Read what ``save_predictor`` wrote.

    Raises:
        InputError: The file is missing, damaged, or of another version or kind.
    """
    body = check_schema(read_json(path), "predictor", 2, where=str(path))
    return CalibratedPredictor(model=from_data(CalibratedModel, body.get("model"), where=str(path)))


def _tool_version() -> str:
    try:
        return version("mobile-video-nas")
    except PackageNotFoundError:
        return "unknown"
