"""Exhaustive search: every architecture of a small space, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.errors import ConfigError
from nas.core.evaluation import Proposal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.architecture import Architecture
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchSpace
    from nas.core.rng import RandomStreams


@dataclass(frozen=True, slots=True, kw_only=True)
class ExhaustiveOptions:
    """``limit`` is the largest space that is enumerated."""

    limit: int = 20_000


class ExhaustiveSearch:
    """Proposes every architecture once, the last slot's option changing fastest."""

    Options = ExhaustiveOptions

    def __init__(self, space: SearchSpace, options: ExhaustiveOptions, streams: RandomStreams) -> None:  # noqa: ARG002  # every engine is built alike
        """Build the engine.

        Raises:
            ConfigError: The space has more architectures than ``options.limit``.
        """
        self._space = space
        self._sizes = [len(space.options(slot)) for slot in space.slots()]
        self._count = space.count()
        if self._count > options.limit:
            raise ConfigError(
                f"space {space.identifier!r} has {self._count:,} architectures, "
                f"exhaustive search takes up to {options.limit:,}",
                hint="choose another engine, or raise search.engine.limit",
            )
        self._asked = 0
        self._told = 0

    def ask(self, count: int) -> list[Proposal]:
        """Propose the next ``count``, fewer at the end."""
        end = min(self._asked + count, self._count)
        proposals = [Proposal(architecture=self._architecture(number)) for number in range(self._asked, end)]
        self._asked = end
        return proposals

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Count what is done, so that a restarted search goes on behind it."""
        self._told += len(evaluations)
        self._asked = max(self._asked, self._told)

    def _architecture(self, number: int) -> Architecture:
        options = []
        for size in reversed(self._sizes):
            number, option = divmod(number, size)
            options.append(option)
        return self._space.from_options(options[::-1])
