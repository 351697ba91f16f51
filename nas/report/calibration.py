"""Cross-validated predictions of a calibration report as predicted-against-measured figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.report.figures import AgreementFigure


def calibration_figures(body: Mapping[str, Any]) -> tuple[AgreementFigure, ...]:
    """Placeholder until the calibration file's form is known."""
    del body
    return ()
