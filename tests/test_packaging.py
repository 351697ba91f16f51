"""What an installation holds: every package and every data file that the code reads."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
SOURCES = ("nas", "latency_models", "search_spaces")
NOT_READ = {".pyc"}


def folders() -> dict[str, Path]:
    found = [file.parent for source in SOURCES for file in (ROOT / source).rglob("__init__.py")]
    return {".".join(folder.relative_to(ROOT).parts): folder for folder in found}


def test_every_package_is_installed() -> None:
    assert sorted(set(folders()) - set(SETTINGS["packages"])) == []


def test_every_data_file_is_installed() -> None:
    installed: set[Path] = set()
    for package in SETTINGS["packages"]:
        folder = ROOT.joinpath(*package.split("."))
        for pattern in (*SETTINGS["package-data"]["*"], *SETTINGS["package-data"].get(package, ())):
            installed |= set(folder.glob(pattern))
    wanted = {
        file
        for source in SOURCES
        for file in (ROOT / source).rglob("*")
        if file.is_file() and file.suffix not in {".py", *NOT_READ}
    }
    assert sorted(str(file.relative_to(ROOT)) for file in wanted - installed) == []
