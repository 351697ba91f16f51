"""The arrays of a cost table: what it is compiled to, what it scores, what solvers add up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency_models.pricing import BlockPrice
from nas.core.cost import Infeasibility

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Costs of N candidates as arrays of shape (N,).

    ``in_domain`` is False where the predictor had to extrapolate, ``infeasible`` is True where no allowed compute unit
    runs a block. Limits are held against ``latency_upper_ms`` and ``memory_upper_mb``: one-sided ends where the table
    is for a probability, else the high ends.
    """

    latency_ms: FloatArray
    latency_low_ms: FloatArray
    latency_high_ms: FloatArray
    peak_memory_mb: FloatArray
    memory_low_mb: FloatArray
    memory_high_mb: FloatArray
    parameters: NDArray[np.int64]
    in_domain: NDArray[np.bool_]
    infeasible: NDArray[np.bool_]
    latency_upper_ms: FloatArray
    memory_upper_mb: FloatArray
    package_mb: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotOption:
    """What one option of one slot adds to the bare backbone.

    ``blocks`` are the blocks it brings; ``weights_mb``, ``parameters`` and ``package_mb`` what it adds; ``infeasible``
    is why it does not run.
    """

    blocks: tuple[BlockPrice, ...]
    weights_mb: float
    parameters: int
    infeasible: tuple[Infeasibility, ...] = ()
    package_mb: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotCosts:
    """A table's costs of one generation as plain arrays: each list has one array a slot, one number an option.

    Latencies, weights, parameters and package sizes add to their base, which includes the other phases of a generation.
    Peak memory is the weights and the largest activation, whose upper end is ``activation_high_ratio`` times as much,
    plus ``held_high_mb``; ``floor_mb`` is the peak of a phase that is loaded alone, ``floor_high_mb`` its upper end.
    Upper ends are the ones that limits are held against, one-sided where the table is for a probability. ``runs`` says
    which options run on the device at all.
    """

    base_latency_ms: float
    latency_ms: tuple[FloatArray, ...]
    base_latency_high_ms: float
    latency_high_ms: tuple[FloatArray, ...]
    base_weights_mb: float
    weights_mb: tuple[FloatArray, ...]
    base_activation_mb: float
    activation_mb: tuple[FloatArray, ...]
    activation_high_ratio: float
    held_high_mb: float
    floor_mb: float
    floor_high_mb: float
    base_parameters: int
    parameters: tuple[FloatArray, ...]
    runs: tuple[BoolArray, ...]
    base_package_mb: float = 0.0
    package_mb: tuple[FloatArray, ...] = ()


def slot_arrays(options: tuple[SlotOption, ...]) -> FloatArray:
    """Rows: latency in domain, latency outside, weights, activation, parameters, package; columns: options."""
    return np.array(
        [
            [sum_ms(option.blocks, in_domain=True) for option in options],
            [sum_ms(option.blocks, in_domain=False) for option in options],
            [option.weights_mb for option in options],
            [max((block.activation_mb for block in option.blocks), default=0.0) for option in options],
            [float(option.parameters) for option in options],
            [option.package_mb for option in options],
        ]
    )


def sum_ms(blocks: tuple[BlockPrice, ...], *, in_domain: bool) -> float:
    """Return the time of the blocks that are in the domain, or of those that are not."""
    return sum((block.latency_ms for block in blocks if block.in_domain is in_domain), start=0.0)
