"""Quality of an architecture in a scenario: what its estimator judges, and what the user holds the rest worth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nas.core.protocols import QualityEstimator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.core.architecture import Architecture
    from nas.core.evaluation import Quality
    from nas.core.scenario import ScenarioPoint
    from search_spaces.joint import JointSpace


@runtime_checkable
class ScenarioEstimator(QualityEstimator, Protocol):
    """An estimator that judges a part of the scenario itself; ``judges`` names it, as ``ScenarioPoint`` does."""

    judges: tuple[str, ...]

    def estimate_at(self, architecture: Architecture, point: ScenarioPoint) -> Quality:
        """Quality of one architecture as ``point`` runs it; deterministic in both."""
        ...


class ScenarioQuality:
    """Judges a candidate of a joint space; meets ``QualityEstimator``.

    The score is the estimator's for the architecture, in as much of the scenario as it ``judges``, plus what the user
    said that the rest is worth: a statement, not a measurement, which every quality says in its fidelity and metrics.
    Where all values are worth the same, it says that instead.

    Args:
        space: The joint space.
        estimator: Judges architectures of the inner space.
        worth: By name of what is stated (``frames``, ``size``, …), the number for each of its values in ``space``'s
            order.

    Raises:
        ValueError: A worth is of something that the estimator judges itself, or has not a number for each value.
    """

    def __init__(
        self, space: JointSpace, estimator: QualityEstimator, *, worth: Mapping[str, tuple[float, ...]]
    ) -> None:
        own = estimator.judges if isinstance(estimator, ScenarioEstimator) else ()
        for name, numbers in worth.items():
            if name in own or len(numbers) != len(getattr(space.values, name)):
                raise ValueError(f"worth of {name!r} does not fit: judged are {own}, values {space.values}")
        self._space = space
        self._estimator = estimator
        self._worth = {
            name: dict(zip(getattr(space.values, name), numbers, strict=True)) for name, numbers in worth.items()
        }
        self.name = estimator.name
        stated = [name for name, numbers in worth.items() if len(set(numbers)) > 1]
        alike = [name for name in worth if name not in stated]
        parts = [estimator.fidelity]
        parts += [f"worth of {', '.join(stated)} stated by the user"] if stated else []
        parts += [f"every value of {', '.join(alike)} counts the same"] if alike else []
        self.fidelity = "; ".join(parts)

    def estimate(self, architecture: Architecture) -> Quality:
        """Quality of one candidate in its scenario."""
        inner, point = self._space.split(architecture)
        if isinstance(self._estimator, ScenarioEstimator):
            quality = self._estimator.estimate_at(inner, point)
        else:
            quality = self._estimator.estimate(inner)
        terms = tuple(
            (f"stated_worth_of_{name}", numbers[getattr(point, name)]) for name, numbers in self._worth.items()
        )
        return replace(
            quality,
            score=quality.score + sum(value for _, value in terms),
            fidelity=self.fidelity,
            metrics=(*quality.metrics, *terms),
        )
