"""Where a result comes from: versions, host, command and time."""

from __future__ import annotations

import os
import platform
import socket
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

PACKAGES = (
    "mobile-video-nas",
    "torch",
    "optuna",
    "coremltools",
    "numpy",
    "pandas",
    "diffusers",
    "ray",
    "accelerate",
    "av",
    "scikit-learn",
    "scipy",
    "pydantic",
)


def timestamp() -> str:
    """Return the time now in UTC, ISO 8601 with seconds: ``2026-11-21T10:15:02+00:00``."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str | None]:
    """Return the installed version of every package that can change a result; ``None`` where it is missing.

    Read from the packages' metadata, so nothing heavy is imported.
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def host() -> dict[str, Any]:
    """Return name, operating system, processor and the number of logical processors of this machine."""
    return {
        "name": socket.gethostname(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "logical_processors": os.cpu_count() or 1,
    }


def manifest(*, seed: int, command: list[str] | None = None) -> dict[str, Any]:
    """Return versions, host, command, seed and time: the body of a run's ``manifest.json``.

    Args:
        seed: The run's one seed.
        command: Command line; that of this process when left out.
    """
    return {
        "created_at": timestamp(),
        "command": list(sys.argv) if command is None else command,
        "seed": seed,
        "versions": versions(),
        "host": host(),
    }
