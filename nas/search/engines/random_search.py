"""Uniform random search: the baseline that every other engine has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.evaluation import Proposal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchSpace
    from nas.core.rng import RandomStreams


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomOptions:
    """Random search has nothing to set."""


class RandomSearch:
    """Draws every slot's option uniformly, so every architecture is equally likely.

    The first proposal is option 0 of every slot, the smallest architecture: when it does not fit, hardly any does.
    """

    Options = RandomOptions

    def __init__(self, space: SearchSpace, options: RandomOptions, streams: RandomStreams) -> None:  # noqa: ARG002  # every engine is built alike
        self._space = space
        self._streams = streams
        self._sizes = [len(space.options(slot)) for slot in space.slots()]
        self._batch = 0
        self._random: Random | None = None

    def ask(self, count: int) -> list[Proposal]:
        """Propose ``count`` draws, duplicates possible."""
        proposals = []
        if self._random is None:
            self._random = self._streams.python("random_search", self._batch)
            if self._batch == 0:
                proposals.append(Proposal(architecture=self._space.from_options([0] * len(self._sizes))))
        while len(proposals) < count:
            options = [self._random.randrange(size) for size in self._sizes]
            proposals.append(Proposal(architecture=self._space.from_options(options)))
        return proposals

    def tell(self, evaluations: Sequence[Evaluation]) -> None:  # noqa: ARG002  # nothing is learned
        """Go on to the next batch."""
        self._batch += 1
        self._random = None
