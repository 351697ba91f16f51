"""Which form each weight gets so that a package fits a size with the least noise: a knapsack with one choice a weight.

The noise of a plan is the sum of its layers' noise-to-signal ratios. That is the model of Lin, Talathi and Annapureddy,
"Fixed point quantization of deep convolutional networks" (ICML 2016, arXiv:1511.06393, section 3): small, uncorrelated
errors of layers add up in power, 1/SQNR of the output being the sum of the layers' 1/SQNR. It orders plans; what a plan
really costs is measured on the compressed package.

scipy is imported inside functions: only mixed plans need it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Part of the noise by which the solver may miss the least; HiGHS proves the rest.
_GAP = 1e-4
_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What one form of one weight takes and costs."""

    num_bytes: int
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A chosen plan.

    Attributes:
        options: Position of the chosen option, weight by weight.
        num_bytes: Bytes of all.
        noise: Noise of all.
        least_noise: What no plan of at most that size goes below, as far as the solver proved.
    """

    options: tuple[int, ...]
    num_bytes: int
    noise: float
    least_noise: float


def smallest_bytes(options: Sequence[Sequence[Option]]) -> int:
    """Return the bytes of the smallest plan."""
    return sum(min(option.num_bytes for option in row) for row in options)


def choose(options: Sequence[Sequence[Option]], num_bytes: int) -> Choice:
    """Return the plan with the least noise in at most ``num_bytes``.

    Args:
        options: Forms of every weight.
        num_bytes: The budget of all weights together.

    Raises:
        ValueError: No plan is that small.
    """
    if smallest_bytes(options) > num_bytes:
        raise ValueError(f"the smallest plan takes {smallest_bytes(options)} bytes, allowed are {num_bytes}")
    kept = [_useful(row) for row in options]
    best, bound = _solve([[options[number][at] for at in row] for number, row in enumerate(kept)], num_bytes)
    chosen = tuple(kept[number][at] for number, at in enumerate(best))
    rows = [options[number][at] for number, at in enumerate(chosen)]
    noise = sum(option.noise for option in rows)
    return Choice(
        options=chosen,
        num_bytes=sum(option.num_bytes for option in rows),
        noise=noise,
        least_noise=min(noise, bound),
    )


def _useful(row: Sequence[Option]) -> list[int]:
    """Return the positions of options that no other one beats in both, smallest first."""
    order = sorted(range(len(row)), key=lambda at: (row[at].num_bytes, row[at].noise))
    kept: list[int] = []
    for at in order:
        if not kept or row[at].noise < row[kept[-1]].noise:
            kept.append(at)
    return kept


def _solve(options: Sequence[Sequence[Option]], num_bytes: int) -> tuple[list[int], float]:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    sizes = np.array([option.num_bytes for row in options for option in row], dtype=float)
    noise = np.array([option.noise for row in options for option in row])
    owner = np.repeat(np.arange(len(options)), [len(row) for row in options])
    one_each = csr_array((np.ones(len(owner)), (owner, np.arange(len(owner)))), shape=(len(options), len(owner)))
    # The solver's tolerances are absolute (1e-6): sizes are shares of the budget, the worst noise is a thousand.
    unit = max(float(noise.max()), np.finfo(float).tiny) / 1000
    with _without_output():
        found = milp(
            noise / unit,
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(sizes[None] / num_bytes, -np.inf, 1 - 1e-9),
            ],
            integrality=np.ones(len(owner)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": _GAP, "time_limit": _SECONDS},
        )
    starts = np.concatenate([[0], np.cumsum([len(row) for row in options])])
    if found.x is None:  # time ran out, or only plans within rounding of the budget are left: the smallest one
        return [0] * len(options), 0.0
    best = [int(np.argmax(found.x[start:stop])) for start, stop in pairwise(starts)]
    return best, float(found.mip_dual_bound) * unit


@contextmanager
def _without_output() -> Iterator[None]:
    """Keep what C code writes to standard output away from it, where ``--json`` has one document.

    HiGHS as of scipy 1.17 writes a line for debugging (``transformNewIntegerFeasibleSolution``) whatever its options
    say; remove this when it does not.
    """
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
