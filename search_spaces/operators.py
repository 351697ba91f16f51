"""Sampling, mutation, crossover, neighbours and distance over any search space; pure functions of a generator.

All of them work on options (one distinct setting per slot), so each result is canonical and the neighbour relation is
symmetric; on raw index vectors it would not be, because inactive positions forget their values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from nas.core.architecture import Architecture
    from nas.core.protocols import SearchSpace


def sample(space: SearchSpace, rng: Random) -> Architecture:
    """Draw one architecture, every one equally likely."""
    return space.from_options([rng.randrange(len(space.options(slot))) for slot in space.slots()])


def mutate(space: SearchSpace, architecture: Architecture, rng: Random, *, slots: int = 1) -> Architecture:
    """Give ``slots`` different slots another option each, drawn uniformly.

    Slots with a single option are left alone; when fewer slots can change, all of those do.

    Raises:
        ValueError: ``slots`` is below 1.
    """
    if slots < 1:
        raise ValueError(f"slots must be at least 1, got {slots}")
    options = list(space.to_options(architecture))
    sizes = [len(space.options(slot)) for slot in space.slots()]
    changeable = [index for index, size in enumerate(sizes) if size > 1]
    for index in rng.sample(changeable, min(slots, len(changeable))):
        drawn = rng.randrange(sizes[index] - 1)
        options[index] = drawn + (drawn >= options[index])
    return space.from_options(options)


def crossover(space: SearchSpace, first: Architecture, second: Architecture, rng: Random) -> Architecture:
    """Take every slot from one of two parents, each with probability one half."""
    pairs = zip(space.to_options(first), space.to_options(second), strict=True)
    return space.from_options([pair[rng.randrange(2)] for pair in pairs])


def neighbours(space: SearchSpace, architecture: Architecture) -> tuple[Architecture, ...]:
    """Every architecture that differs in exactly one slot, in a fixed order."""
    options = space.to_options(architecture)
    return tuple(
        space.from_options([*options[:index], other, *options[index + 1 :]])
        for index, slot in enumerate(space.slots())
        for other in range(len(space.options(slot)))
        if other != options[index]
    )


def hamming(space: SearchSpace, first: Architecture, second: Architecture) -> int:
    """Number of slots in which two architectures differ."""
    pairs = zip(space.to_options(first), space.to_options(second), strict=True)
    return sum(one != other for one, other in pairs)
