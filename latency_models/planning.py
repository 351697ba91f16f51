"""What to measure for a space: every distinct block, and whole networks spread over how full their slots are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.errors import ConfigError

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.core.protocols import SearchSpace
    from nas.core.rng import RandomStreams
    from nas.core.scenario import Scenario
    from nas.core.workload import BlockSpec

_MOST_DRAWS = 1000


def covering_architectures(space: SearchSpace) -> tuple[Architecture, ...]:
    """Return architectures that together hold every block of ``space``: the bare one, and one option at a time.

    They suffice because a block's spec depends on its own slot alone.
    """
    slots = space.slots()
    found: dict[str, Architecture] = {}
    for position, slot in enumerate(slots):
        for option in range(len(space.options(slot))):
            chosen = [option if other == position else 0 for other in range(len(slots))]
            architecture = space.from_options(chosen)
            found.setdefault(architecture.digest, architecture)
    return tuple(found.values())


def distinct_blocks(space: SearchSpace, scenario: Scenario) -> dict[str, BlockSpec]:
    """Return every block any architecture of ``space`` can hold, by signature, in order of first appearance."""
    found: dict[str, BlockSpec] = {}
    for architecture in covering_architectures(space):
        for _, spec in space.workload(architecture, scenario).blocks:
            found.setdefault(spec.signature, spec)
    return found


def choose_networks(space: SearchSpace, count: int, streams: RandomStreams) -> tuple[Architecture, ...]:
    """Choose distinct architectures to measure whole: the bare backbone, then a random one for each fill in turn.

    Uniform draws would nearly always fill most slots, while a search under a budget ends among sparse networks; so
    the number of filled slots goes round from none to all.

    Raises:
        ConfigError: The space has fewer architectures than asked for.
    """
    slots = space.slots()
    counts = [len(space.options(slot)) for slot in slots]
    if count < 1 or count > space.count():
        raise ConfigError(f"cannot choose {count} networks of {space.identifier!r}, which has {space.count()}")
    generator = streams.python("calibration-networks")
    chosen: dict[str, Architecture] = {}
    draws = 0
    while len(chosen) < count:
        if draws >= _MOST_DRAWS * count:
            raise ConfigError(f"space {space.identifier!r} is too small to draw {count} distinct networks at random")
        fill = draws % (len(slots) + 1)
        filled = set(generator.sample(range(len(slots)), fill))
        options = [generator.randrange(1, size) if i in filled and size > 1 else 0 for i, size in enumerate(counts)]
        architecture = space.from_options(options)
        chosen.setdefault(architecture.digest, architecture)
        draws += 1
    return tuple(chosen.values())
