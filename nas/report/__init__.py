"""Turns a run directory into one self-contained HTML page and CSV tables; reads files only."""

from nas.report.html import build_report

__all__ = ["build_report"]
