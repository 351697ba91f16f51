"""``search/front.json``: the front of a search, the chosen member and the conditions both hold under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.core.cost import Budget, Interval
from nas.core.evaluation import Evaluation  # read at run time by nas.core.schema
from nas.core.files import read_json, write_json
from nas.core.pareto import ParetoFront
from nas.core.schema import check_schema, from_data, to_data, with_schema

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberInterval:
    """Latency interval of one member of the front that allows for its having been selected."""

    digest: str
    latency_interval_ms: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionEffect:
    """What being selected does to the latency intervals of the front, see ``latency_models.selection.Correction``.

    The members' costs keep their uncorrected intervals, the ones the budget was tested with; ``members`` holds the
    corrected ones.
    """

    coverage: float
    low_shift_ratio: float
    high_shift_ratio: float
    widening_ratio: float
    seen_before: float | None
    seen_after: float | None
    seen_random: float | None
    replays: int
    pool: int
    selected: float
    members: tuple[MemberInterval, ...]

    def interval(self, digest: str) -> Interval | None:
        """Return the corrected latency interval of a member."""
        return next((member.latency_interval_ms for member in self.members if member.digest == digest), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChance:
    """Probability that a device keeps its limits with one member of the front.

    ``after_selection`` allows for the member's having been selected; None where that could not be replayed.
    """

    digest: str
    probability: float
    after_selection: float | None = None

    @property
    def known(self) -> float:
        """The probability that allows for the selection, where there is one."""
        return self.probability if self.after_selection is None else self.after_selection


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChances:
    """Probabilities that one device keeps its limits on latency and memory together.

    Attributes:
        device: Its name.
        asked: The probability that the budget asks for; None where it asks for none.
        basis: What the probabilities rest on, in words: held-out errors, or a stated prior that nothing has checked.
        members: One for each member of the front.
    """

    device: str
    asked: float | None
    basis: str
    members: tuple[MemberChance, ...]

    def of(self, digest: str) -> MemberChance | None:
        """Return the probability of a member."""
        return next((member for member in self.members if member.digest == digest), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSummary:
    """One of several levels of quality: its price in evaluations of the highest, and what came of it."""

    estimator: str
    fidelity: str
    price: float
    complete: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontFile:
    """A front, the budget it keeps and its selection.

    ``reference`` is (latency ms, peak memory MB, negated quality), the corner ``hypervolume`` is measured from.
    ``screened`` and ``complete`` count the evaluations of the whole search in those states, the latter at the highest
    level of quality; ``levels`` are all of them, cheapest first, where there is more than one. ``chances`` holds the
    probability that the limits are kept, for each device with limits on latency or memory.
    """

    members: tuple[Evaluation, ...]
    budget: Budget
    selected: str
    selection: str
    hypervolume: float
    reference: tuple[float, float, float]
    quality_estimator: str
    screened: int
    complete: int
    selection_effect: SelectionEffect | None = None
    chances: tuple[DeviceChances, ...] = ()
    levels: tuple[LevelSummary, ...] = ()

    @property
    def front(self) -> ParetoFront:
        """The members as a front."""
        return ParetoFront(self.members)


def write_front(path: Path, front: FrontFile) -> None:
    """Write ``front`` atomically."""
    write_json(path, with_schema("front", 1, to_data(front)))


def read_front(path: Path) -> FrontFile:
    """Read a front.

    Raises:
        InputError: The file is missing, damaged or of another version.
    """
    return from_data(FrontFile, check_schema(read_json(path), "front", 1, where=str(path)), where=str(path))
