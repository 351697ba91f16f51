"""Which paths of a supernet a training step takes: fair single paths, or sandwiches of them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.core.rng import RandomStreams
    from nas.quality.options import SupernetOptions
    from search_spaces.temporal import TemporalSpace

    Path = tuple[int, ...]


def step_paths(space: TemporalSpace, step: int, *, options: SupernetOptions, streams: RandomStreams) -> list[Path]:
    """Options by slot of every path that step ``step`` trains, the one that others may learn from first."""
    if options.rule == "fair":
        return [_dropped(fair_path(space, step, streams=streams), step, options=options, streams=streams)]
    whole = options.rule == "sandwich"
    first = _largest(space) if whole else fair_path(space, step, streams=streams, filled=True)
    count = options.random_paths
    others = [fair_path(space, step * count + index, streams=streams, name="random") for index in range(count)]
    return [
        first,
        *(_dropped(path, step * count + index, options=options, streams=streams) for index, path in enumerate(others)),
        (0,) * len(space.slots()),
    ]


def fair_path(
    space: TemporalSpace, step: int, *, streams: RandomStreams, name: str = "path", filled: bool = False
) -> Path:
    """Options of path ``step``: every slot walks through its kinds in a fresh random order, again and again.

    So over as many steps as a slot has kinds each is trained exactly once (strict fairness, FairNAS, arXiv 1907.01845),
    slots independently of one another; options of a kind, which share weights, take turns in the same way. ``filled``
    leaves the empty option out.
    """
    prefix = f"supernet/{'filled/' if filled else ''}{name}"
    path = []
    for slot, kinds in _kinds(space):
        groups = kinds[filled:]  # the empty slot is the first option of every slot
        turn, place = divmod(step, len(groups))
        kind = int(streams.numpy(f"{prefix}/{slot}", turn).permutation(len(groups))[place])
        options = groups[kind]
        again, which = divmod(turn, len(options))
        path.append(options[int(streams.numpy(f"{prefix}/{slot}/{kind}", again).permutation(len(options))[which])])
    return tuple(path)


@lru_cache(maxsize=4)
def _kinds(space: TemporalSpace) -> tuple[tuple[str, tuple[tuple[int, ...], ...]], ...]:
    """Slots, and for each the options of every kind."""
    found = []
    for slot in space.slots():
        groups: dict[object, list[int]] = {}
        for index, option in enumerate(space.options(slot)):
            groups.setdefault(option[f"{slot}.kind"], []).append(index)
        found.append((slot, tuple(tuple(group) for group in groups.values())))
    return tuple(found)


@lru_cache(maxsize=4)
def _largest(space: TemporalSpace) -> Path:
    return space.to_options(space.largest())  # counts the parameters of every option, too slow for every step


def _dropped(path: Path, step: int, *, options: SupernetOptions, streams: RandomStreams) -> Path:
    if not options.drop_ratio:
        return path
    chances = streams.numpy("supernet/drop", step).random(len(path))
    return tuple(0 if chance < options.drop_ratio else option for option, chance in zip(path, chances, strict=True))
