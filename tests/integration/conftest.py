"""Small runs that several tests share."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.integration.small_run import SMALL_RUN, nas

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with its profile stage done, to be copied by the tests."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.yaml").write_text(SMALL_RUN.replace("DIRECTORY", str(folder)))
    result = nas("profile", "small.yaml", folder=folder)
    assert result.returncode == 0, result.stderr
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="session")
def finished(profiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with every stage done, never interrupted."""
    run = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(profiled, run)
    result = nas("run", str(run), folder=run.parent)
    assert result.returncode == 0, result.stderr
    return run
