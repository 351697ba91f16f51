"""What can be built: search spaces, their architectures and analytic workloads, without torch."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from nas.core.errors import ConfigError
from search_spaces.backbone import BackboneSpec
from search_spaces.categorical import CategoricalSpace
from search_spaces.plan import PruningPlan, read_plan
from search_spaces.snapgen_v import snapgen_v
from search_spaces.temporal import TemporalSpace
from search_spaces.tiny import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BackboneSpec", "CategoricalSpace", "PruningPlan", "TemporalSpace", "get", "names", "read_plan"]

_SPACES: dict[str, Callable[[], TemporalSpace]] = {"snapgen_v": snapgen_v, "tiny": tiny}


def names() -> tuple[str, ...]:
    """Names of the known search spaces."""
    return tuple(sorted(_SPACES))


# Spaces whose image network is a pruning plan's.
PLANNED: dict[str, Callable[[PruningPlan], TemporalSpace]] = {"snapgen_v": snapgen_v}


def get(name: str, plan: PruningPlan | None = None) -> TemporalSpace:
    """Return the search space of a name (``tiny``) or an identifier with version (``tiny/1``).

    Args:
        name: Name or identifier.
        plan: Gives the image network, for spaces that read one; the space's own where left out.

    Raises:
        ConfigError: The name or version is unknown, or the space reads no plan; known ones and the nearest are listed.
    """
    plain, _, version = name.partition("/")
    if plain not in _SPACES:
        near = get_close_matches(plain, _SPACES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown search space {name!r}; known are {', '.join(names())}{hint}")
    if plan is not None and plain not in PLANNED:
        raise ConfigError(f"search space {plain!r} reads no pruning plan; those that do: {', '.join(sorted(PLANNED))}")
    space = _build(plain) if plan is None else PLANNED[plain](plan)
    if version and version != str(space.version):
        raise ConfigError(f"search space {name!r}: this release knows version {space.identifier!r}")
    return space


@cache
def _build(name: str) -> TemporalSpace:
    return _SPACES[name]()
