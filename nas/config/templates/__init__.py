"""Starter files that ship with the package; ``examples/`` links to them."""

from __future__ import annotations

from importlib.resources import files

from nas.core.errors import ConfigError

TEMPLATES = ("demo", "snapgen_v")


def read_template(name: str) -> str:
    """Return a starter file's text.

    Raises:
        ConfigError: There is no such template.
    """
    if name not in TEMPLATES:
        raise ConfigError(f"template {name!r} is unknown; known: {', '.join(TEMPLATES)}")
    return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
