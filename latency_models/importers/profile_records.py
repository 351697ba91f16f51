"""Our own profile files, ``nas/profile_record``: what another run measured of the same device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.importers.contract import ImportOptions, ImportResult
from latency_models.profiles import scan_profile
from nas.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read a profile file of any version.

    Raises:
        InputError: The file does not exist.
    """
    if not path.is_file():
        raise InputError(f"{path}: does not exist")
    reading = scan_profile(path)
    return ImportResult(located=reading.located, problems=reading.dropped)
