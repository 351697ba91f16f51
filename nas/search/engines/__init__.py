"""Search engines by name; their modules load when one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from nas.core.cost import Budget
from nas.core.errors import ConfigError, InputError
from nas.core.schema import from_data

if TYPE_CHECKING:
    from nas.core.protocols import SearchEngine, SearchSpace
    from nas.core.rng import RandomStreams
    from nas.search.exact import SearchCosts, SlotSum

ENGINES = {
    "evolving": "nas.search.engines.evolving:GreedyEvolving",
    "exhaustive": "nas.search.engines.exhaustive:ExhaustiveSearch",
    "model_based": "nas.search.engines.model_based:ModelBasedSearch",
    "optuna": "nas.search.engines.optuna_samplers:OptunaSearch",
    "random": "nas.search.engines.random_search:RandomSearch",
    "regularised": "nas.search.engines.regularised:RegularisedEvolution",
}

NO_LIMITS = Budget()


def names() -> tuple[str, ...]:
    """Return the engines' names, sorted."""
    return tuple(sorted(ENGINES))


def get(name: str) -> Any:
    """Return the class of the engine called ``name``; its settings are its ``Options``.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in ENGINES:
        close = get_close_matches(name, ENGINES, n=1)
        raise ConfigError(
            f"search engine {name!r} is unknown; allowed: {', '.join(names())}",
            hint=f"did you mean {close[0]!r}?" if close else None,
        )
    module, attribute = ENGINES[name].split(":")
    return getattr(import_module(module), attribute)


def build(
    name: str,
    space: SearchSpace,
    options: Any,
    streams: RandomStreams,
    *,
    costs: SearchCosts | None = None,
    budget: Budget | None = None,
    hints: Callable[[], tuple[SlotSum, ...]] | None = None,
) -> SearchEngine:
    """Return a fresh engine.

    Args:
        name: One of ``names()``.
        space: Where it searches.
        options: Its ``Options``, or a mapping of their fields; fields left out keep their defaults.
        streams: The run's random streams.
        costs: Known costs by slot and option; engines with ``needs_costs`` use them.
        budget: Limits that such an engine keeps to by itself; none when left out.
        hints: For engines with ``takes_hints``: asked for figures that quality may be a multiple of, besides latency.

    Raises:
        ConfigError: The name or an option is wrong, or the engine needs costs and there are none.
    """
    engine = get(name)
    if isinstance(options, Mapping):
        options = _decode(name, engine.Options, options)
    if not getattr(engine, "needs_costs", False):
        return cast("SearchEngine", engine(space, options, streams))
    if costs is None:
        raise ConfigError(
            f"search engine {name!r} works on a table of costs by slot and option, and none was given",
            hint="pass costs to engines.build, or choose an engine that learns costs: optuna, random",
        )
    sizes = tuple(len(space.options(slot)) for slot in space.slots())
    if costs.sizes != sizes:
        raise ConfigError(
            f"the table of costs has {costs.sizes} options by slot, space {space.identifier!r} has {sizes}"
        )
    more = {"hints": hints} if hints is not None and getattr(engine, "takes_hints", False) else {}
    return cast("SearchEngine", engine(space, options, streams, costs=costs, budget=budget or NO_LIMITS, **more))


def _decode(name: str, kind: Any, options: Mapping[str, Any]) -> Any:
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        close = get_close_matches(unknown[0], known, n=1)
        raise ConfigError(
            f"search engine {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"allowed: {', '.join(known) or 'none'}",
            hint=f"did you mean {close[0]!r}?" if close else None,
        )
    try:
        return from_data(kind, dict(options), where=f"search.engine ({name})")
    except InputError as error:
        raise ConfigError(error.message) from error
