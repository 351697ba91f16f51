"""What drives cost and quality in a search: slots, kinds of layers, and each block of the networks on the front.

Costs are exact, from the tables. Quality is that of the posterior: its mean, and intervals from draws. First-order
Sobol' indices (Sobol' 1993, Math. Modelling Comput. Experiments 1, 407-414) are Var(E[f | slot]) / Var(f) under designs
whose options are drawn evenly and on their own from those that fit the budget; of sums over slots and pairs they are
computed in closed form, of maxima from a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.cost import Budget
from nas.core.explanation import BlockValue, Estimate, KindDrive, Replacement, SlotDrive
from nas.core.protocols import SearchSpace
from nas.search.exact.problem import SearchCosts
from nas.search.exact.tables import FloatArray, IntArray, SlotSum, stack
from nas.search.neighbours import Row
from nas.search.posterior import Posterior

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


COVERAGE = 0.9
_SAMPLE = 20000


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """What is explained, and the options that are looked at.

    Attributes:
        plainest: Option of each slot that the others are compared with: the one that typically costs the least time.
        fitting: Options of each slot that keep the budget where all other slots are plain.
    """

    space: SearchSpace
    costs: SearchCosts
    budget: Budget
    posterior: Posterior
    plainest: Row
    fitting: tuple[IntArray, ...]

    @classmethod
    def of(cls, space: SearchSpace, costs: SearchCosts, budget: Budget, posterior: Posterior) -> Subject:
        """Return the subject of a search."""
        plainest = tuple(int(np.argmin(row)) for row in costs.hint_ms.slots)
        fitting = []
        for slot, size in enumerate(costs.sizes):
            inside = costs.feasible(swaps(plainest, slot, np.arange(size)), budget)
            fitting.append(np.flatnonzero(inside) if inside.any() else np.arange(size))
        return cls(
            space=space, costs=costs, budget=budget, posterior=posterior, plainest=plainest, fitting=tuple(fitting)
        )

    def label(self, slot: int, option: int) -> str:
        """Return an option in words: its kind, then its other choices."""
        return option_label(self.space.options(self.space.slots()[slot])[option])

    def kind(self, slot: int, option: int) -> str:
        """Return the kind of an option; where options have no kind, the whole option with its slot."""
        name, setting = self.space.slots()[slot], self.space.options(self.space.slots()[slot])[option]
        return str(setting[f"{name}.kind"]) if f"{name}.kind" in setting else f"{name} {option_label(setting)}"


def option_label(setting: Mapping[str, object]) -> str:
    """Return ``conv1d, kernel 3`` for an option of a slot."""
    named = {name.rpartition(".")[2]: value for name, value in setting.items()}
    kind = [str(named.pop("kind"))] if "kind" in named else []
    return ", ".join([*kind, *(f"{name.replace('_', ' ')} {value}" for name, value in named.items())])


def swaps(row: Row, slot: int, options: IntArray) -> IntArray:
    """Return ``row`` with each of ``options`` in ``slot``, (len(options), L)."""
    rows = np.repeat(stack([row], len(row)), len(options), axis=0)
    rows[:, slot] = options
    return rows


def estimate(draws: FloatArray) -> Estimate:
    """Return mean and interval of a figure over draws (D,)."""
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]).tolist()
    return Estimate(mean=float(draws.mean()), low=low, high=high)


def slot_drives(subject: Subject, chosen: Row, generator: np.random.Generator) -> tuple[SlotDrive, ...]:
    """Return what each slot decides, in the order of the space."""
    effects = [main_effects(draw, subject.fitting) for draw in subject.posterior.draws]
    shares = np.array([variance_shares(draw, subject.fitting) for draw in subject.posterior.draws])
    cost_shares = _cost_shares(subject, generator)
    drives = []
    for slot, name in enumerate(subject.space.slots()):
        costs = _costs(subject, swaps(chosen, slot, subject.fitting[slot]))
        ranges = np.array([float(np.ptp(effect[slot])) for effect in effects])
        latency, memory, parameters = (float(np.ptp(column)) for column in costs.T)
        drives.append(
            SlotDrive(
                slot=name,
                latency_ms=latency,
                peak_memory_mb=memory,
                parameters=parameters,
                quality=estimate(ranges),
                latency_share=float(cost_shares[0, slot]),
                memory_share=float(cost_shares[1, slot]),
                parameters_share=float(cost_shares[2, slot]),
                quality_share=estimate(shares[:, slot]),
            )
        )
    return tuple(drives)


def kind_drives(subject: Subject, chosen: Row) -> tuple[KindDrive, ...]:
    """Return what each kind adds to the plainest option, dearest kind first."""
    effects = [main_effects(draw, subject.fitting) for draw in subject.posterior.draws]
    found: dict[str, list[tuple[FloatArray, FloatArray]]] = {}
    for slot, own in enumerate(subject.fitting):
        plain = _costs(subject, swaps(chosen, slot, np.array([subject.plainest[slot]])))[0]
        base = np.flatnonzero(own == subject.plainest[slot])
        added = _costs(subject, swaps(chosen, slot, own)) - plain
        for index, option in enumerate(own.tolist()):
            if option == subject.plainest[slot] or not len(base):
                continue
            qualities = np.array([float(effect[slot][index] - effect[slot][base[0]]) for effect in effects])
            found.setdefault(subject.kind(slot, option), []).append((added[index], qualities))
    drives = []
    for kind, items in found.items():
        latency, memory, parameters = np.mean([costs for costs, _ in items], axis=0).tolist()
        drives.append(
            KindDrive(
                kind=kind,
                options=len(items),
                latency_ms=latency,
                peak_memory_mb=memory,
                parameters=parameters,
                quality=estimate(np.mean([qualities for _, qualities in items], axis=0)),
            )
        )
    return tuple(sorted(drives, key=lambda drive: -drive.latency_ms))


def block_values(subject: Subject, members: Sequence[tuple[str, Row]]) -> tuple[BlockValue, ...]:
    """Return what every slot that is not plain is worth in every member, given as digests and option indices."""
    return tuple(
        _block_value(subject, digest, row, slot)
        for digest, row in members
        for slot, option in enumerate(row)
        if option != subject.plainest[slot]
    )


def _block_value(subject: Subject, digest: str, row: Row, slot: int) -> BlockValue:
    rows = swaps(row, slot, np.array([row[slot], subject.plainest[slot]]))
    here, plain = _costs(subject, rows)
    draws = subject.posterior.totals(rows)
    latency, memory, parameters = (here - plain).tolist()
    return BlockValue(
        digest=digest,
        slot=subject.space.slots()[slot],
        option=subject.label(slot, row[slot]),
        plainest=subject.label(slot, subject.plainest[slot]),
        latency_ms=latency,
        peak_memory_mb=memory,
        parameters=parameters,
        quality=estimate(draws[:, 0] - draws[:, 1]),
        better=_replacement(subject, row, slot),
    )


def _replacement(subject: Subject, row: Row, slot: int) -> Replacement | None:
    own = subject.fitting[slot]
    rows = swaps(row, slot, np.append(own, row[slot]))
    costs, means = _costs(subject, rows), subject.posterior.mean.total(rows)
    allowed = subject.costs.feasible(rows, subject.budget) & (costs[:, :2] <= costs[-1, :2]).all(axis=1)
    gains = np.where(allowed, means - means[-1], -np.inf)
    best = int(np.argmax(gains[:-1])) if len(own) else -1
    if not gains[best] > 0:
        return None
    draws = subject.posterior.totals(rows[[best, -1]])
    gained = draws[:, 0] - draws[:, 1]
    if not gained.mean() > 0:
        return None  # mean and draws disagree about the sign: nothing is expected
    latency, memory, _ = (costs[best] - costs[-1]).tolist()
    return Replacement(
        option=subject.label(slot, int(own[best])),
        latency_ms=latency,
        peak_memory_mb=memory,
        quality=estimate(gained),
        probability=float(np.mean(gained > 0)),
    )


def _costs(subject: Subject, rows: IntArray) -> FloatArray:
    """Return latency, peak memory and parameters of architectures, (N, 3)."""
    scored = subject.costs.score(rows)
    return np.stack([scored.latency_ms, scored.peak_memory_mb, scored.parameters], axis=1)


def _cost_shares(subject: Subject, generator: np.random.Generator) -> FloatArray:
    """Return first-order Sobol' indices of latency, memory and parameters, (3, L), from a sample."""
    rows = np.stack([own[generator.integers(len(own), size=_SAMPLE)] for own in subject.fitting], axis=1)
    return np.array([sampled_shares(values, rows) for values in _costs(subject, rows).T])


def sampled_shares(values: FloatArray, rows: IntArray) -> FloatArray:
    """Return first-order Sobol' indices (L,) of ``values`` (N,) by designs (N, L) with independent options.

    The variance of conditional means is corrected for the sampling variance of each (one-way random effects), and is
    not below 0.
    """
    whole = float(values.var())
    if whole == 0:
        return np.zeros(rows.shape[1])
    shares = []
    for column in rows.T:
        _, group = np.unique(column, return_inverse=True)
        counts = np.bincount(group)
        means = np.bincount(group, values) / counts
        inside = float(((values - means[group]) ** 2).sum()) / max(1, len(values) - len(counts))
        between = float((counts * (means - values.mean()) ** 2).sum()) - (len(counts) - 1) * inside
        shares.append(max(0.0, between / len(values) / whole))
    return np.array(shares)


def main_effects(table: SlotSum, fitting: Sequence[IntArray]) -> list[FloatArray]:
    """Return the mean of ``table`` given each fitting option of each slot, less the mean over all, others even."""
    effects = [row[own] - row[own].mean() for row, own in zip(table.slots, fitting, strict=True)]
    for slot, pair in enumerate(table.pairs or ()):
        part = pair[np.ix_(fitting[slot], fitting[slot + 1])]
        effects[slot] = effects[slot] + part.mean(axis=1) - part.mean()
        effects[slot + 1] = effects[slot + 1] + part.mean(axis=0) - part.mean()
    return effects


def variance_shares(table: SlotSum, fitting: Sequence[IntArray]) -> FloatArray:
    """Return first-order Sobol' indices (L,) of a sum over slots and pairs, by its analysis of variance."""
    own = np.array([float((effect**2).mean()) for effect in main_effects(table, fitting)])
    together = 0.0
    for slot, pair in enumerate(table.pairs or ()):
        part = pair[np.ix_(fitting[slot], fitting[slot + 1])]
        rest = part - part.mean(axis=1, keepdims=True) - part.mean(axis=0, keepdims=True) + part.mean()
        together += float((rest**2).mean())
    whole = float(own.sum()) + together
    return own / whole if whole > 0 else np.zeros(len(own))
