"""What can be built: search spaces, their architectures and analytic workloads, without torch."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from nas.core.errors import ConfigError
from search_spaces.backbone import BackboneSpec
from search_spaces.categorical import CategoricalSpace
from search_spaces.snapgen_v import snapgen_v
from search_spaces.temporal import TemporalSpace
from search_spaces.tiny import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BackboneSpec", "CategoricalSpace", "TemporalSpace", "get", "names"]

_SPACES: dict[str, Callable[[], TemporalSpace]] = {"snapgen_v": snapgen_v, "tiny": tiny}


def names() -> tuple[str, ...]:
    """Names of the known search spaces."""
    return tuple(sorted(_SPACES))


def get(name: str) -> TemporalSpace:
    """Return the search space of a name (``tiny``) or an identifier with version (``tiny/1``).

    Raises:
        ConfigError: The name or version is unknown; known ones and the nearest are listed.
    """
    plain, _, version = name.partition("/")
    if plain not in _SPACES:
        near = get_close_matches(plain, _SPACES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown search space {name!r}; known are {', '.join(names())}{hint}")
    space = _build(plain)
    if version and version != str(space.version):
        raise ConfigError(f"search space {name!r}: this release knows version {space.identifier!r}")
    return space


@cache
def _build(name: str) -> TemporalSpace:
    return _SPACES[name]()
