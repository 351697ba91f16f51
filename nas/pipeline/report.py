"""The ``report`` stage: one page from the run's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.pipeline.context import Context


def perform(context: Context, folder: Path, progress: Progress) -> str:  # noqa: ARG001  # every stage is called alike
    """Write ``report/index.html``."""
    from nas.report.html import build_report

    page = build_report(context.directory.path)
    progress.update(1, 1)
    return str(page.resolve())
