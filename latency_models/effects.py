"""How the times of blocks and networks depend on the unknowns of the hierarchical model.

The logarithm of a block's own time is that of its prior (roofline) plus effects of the device, its compute unit, the OS
version, the block's kind, and the block itself. Measured alone it pays for a call as well. Within a network it takes
its own time times a context factor (common, per kind, its own deviation), plus an extra in ms (common, per kind). A
network takes the sum of its blocks, an overhead of the call, and a time per MB of weights. An OS version makes all of
these slower alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.cost import ComputeUnit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

Effect = tuple[str, ...]
# Corrections may not take a network below this share of its blocks' own times, nor a block below this share of its
# own, whatever a few networks suggest.
LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Group:
    """Conditions that shift all times together: one OS version on one compute unit."""

    os_build: str
    compute_unit: ComputeUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBlock:
    """A block the model has unknowns for; ``prior_ms`` is its own time on each unit before any measurement."""

    signature: str
    kind: str
    prior_ms: tuple[tuple[ComputeUnit, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkShape:
    """A network as the model sees it: its blocks' signatures, repeated ones repeated, and the size of its weights."""

    blocks: tuple[str, ...]
    weights_mb: float


class Effects:
    """The unknowns and their order, and rows of derivatives with respect to them.

    Effects of OS versions exist only where there are several, those of compute units likewise: with one of each they
    could not be told from the device's own.
    """

    def __init__(self, known: Mapping[str, KnownBlock], groups: Iterable[Group]) -> None:
        self.known = known
        self.groups = tuple(sorted(set(groups)))
        systems = sorted({group.os_build for group in self.groups})
        units = sorted({group.compute_unit for group in self.groups})
        kinds = sorted({block.kind for block in known.values()})
        self.systems = tuple(systems) if len(systems) > 1 else ()
        self.units = tuple(units) if len(units) > 1 else ()
        names: list[Effect] = [("device",), ("call",), ("context",), ("extra",), ("overhead",), ("weights",)]
        for kind in kinds:
            names += [("kind", kind), ("context_kind", kind), ("extra_kind", kind)]
            names += [("unit_kind", unit, kind) for unit in self.units]
            names += [("os_kind", system, kind) for system in self.systems]
        names += [(name, unit) for unit in self.units for name in ("unit", "unit_overhead")]
        names += [("os", system) for system in self.systems]
        for signature in sorted(known):
            names += [("block", signature), ("deviation", signature)]
            names += [("unit_block", unit, signature) for unit in self.units]
        self.names = tuple(names)
        self._index = {name: position for position, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self.names)

    def index(self, *effect: str) -> int:
        """Return the position of one effect."""
        return self._index[effect]

    def has(self, *effect: str) -> bool:
        """Return whether there is such an effect."""
        return effect in self._index

    def families(self) -> dict[str, NDArray[np.int64]]:
        """Return the positions of each family of effects, which share one standard deviation."""
        found: dict[str, list[int]] = {}
        for position, name in enumerate(self.names):
            found.setdefault(name[0], []).append(position)
        return {name: np.array(positions) for name, positions in found.items()}

    def prior_log_ms(self, signature: str, unit: ComputeUnit) -> float:
        """Return the logarithm of a block's prior time on ``unit``."""
        return float(np.log(dict(self.known[signature].prior_ms)[unit]))

    def own_rows(self, items: Sequence[tuple[str, Group]]) -> FloatArray:
        """Return d log(own time) / d unknowns, (N, D), for (signature, group) items."""
        rows = np.zeros((len(items), len(self)))
        for row, (signature, group) in zip(rows, items, strict=True):
            row[self._own(signature, group)] = 1.0
        return rows

    def context_rows(self, items: Sequence[tuple[str, Group]]) -> FloatArray:
        """Return d log(time within a network, without the extra) / d unknowns, (N, D)."""
        rows = self.own_rows(items)
        for row, (signature, _) in zip(rows, items, strict=True):
            kind = self.known[signature].kind
            row[[self.index("context"), self.index("context_kind", kind), self.index("deviation", signature)]] = 1.0
        return rows

    def constant_row(self, shape: NetworkShape, group: Group) -> FloatArray:
        """Return d(time of ``shape`` beyond its scaled blocks) / d unknowns, before the OS version's factor, (D,)."""
        row = np.zeros(len(self))
        row[self.index("overhead")] = 1.0
        row[self.index("weights")] = shape.weights_mb
        if self.units:
            row[self.index("unit_overhead", group.compute_unit)] = 1.0
        for name in shape.blocks:
            row[self.index("extra")] += 1.0
            row[self.index("extra_kind", self.known[name].kind)] += 1.0
        return row

    def system_row(self, group: Group) -> FloatArray:
        """Return d log(factor of the group's OS version) / d unknowns, (D,)."""
        row = np.zeros(len(self))
        if self.systems:
            row[self.index("os", group.os_build)] = 1.0
        return row

    def _own(self, signature: str, group: Group) -> list[int]:
        kind = self.known[signature].kind
        found = [("device",), ("kind", kind), ("block", signature)]
        if self.units:
            unit = group.compute_unit
            found += [("unit", unit), ("unit_kind", unit, kind), ("unit_block", unit, signature)]
        if self.systems:
            found += [("os", group.os_build), ("os_kind", group.os_build, kind)]
        return [self._index[name] for name in found]


class AloneRows:
    """Blocks measured alone, ready for repeated evaluation at different values of the unknowns."""

    def __init__(self, effects: Effects, items: Sequence[tuple[str, Group]]) -> None:
        self._own = effects.own_rows(items)
        self._prior = np.array([effects.prior_log_ms(name, group.compute_unit) for name, group in items])
        self._system = np.reshape([effects.system_row(group) for _, group in items], (-1, len(effects)))
        self._call = effects.index("call")

    def log_times(self, unknowns: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the logarithms of the times alone (N,) and their derivatives (N, D)."""
        own_ms = np.exp(self._prior + self._own @ unknowns)
        factor = np.exp(self._system @ unknowns)
        call_ms = factor * max(float(unknowns[self._call]), 0.0)  # no call takes less than no time
        total = own_ms + call_ms
        rows = (own_ms / total)[:, None] * self._own + (call_ms / total)[:, None] * self._system
        rows[:, self._call] += factor / total
        return np.log(total), rows


class NetworkRows:
    """Networks of one fit, ready for repeated evaluation at different values of the unknowns."""

    def __init__(self, effects: Effects, networks: Sequence[tuple[NetworkShape, Group]]) -> None:
        items = sorted({(name, group) for shape, group in networks for name in shape.blocks})
        position = {item: index for index, item in enumerate(items)}
        self._context = effects.context_rows(items)
        self._prior = np.array([effects.prior_log_ms(name, group.compute_unit) for name, group in items])
        self._counts = np.zeros((len(networks), len(items)))
        for counts, (shape, group) in zip(self._counts, networks, strict=True):
            for name in shape.blocks:
                counts[position[name, group]] += 1.0
        width = len(effects)
        self._constant = np.reshape([effects.constant_row(shape, group) for shape, group in networks], (-1, width))
        self._system = np.reshape([effects.system_row(group) for _, group in networks], (-1, width))

    def times_ms(self, unknowns: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the networks' times (N,) and their derivatives (N, D)."""
        scaled = self._counts * np.exp(self._prior + self._context @ unknowns)
        blocks_ms = scaled.sum(axis=1)
        factor = np.exp(self._system @ unknowns)
        constant_ms = factor * (self._constant @ unknowns)
        rows = scaled @ self._context + factor[:, None] * self._constant + constant_ms[:, None] * self._system
        return np.maximum(blocks_ms + constant_ms, LEAST_SHARE * blocks_ms), rows
