"""Features of the networks of four public latency benchmarks.

Each space gives two blocks: one-hot columns of the decisions (inactive layers carry none) and aggregates (operations,
traffic, depth). Cells of NAS-Bench-201 are described twice, as built and without dead branches: eager PyTorch runs a
dead branch, TFLite removes most, and with one description alone source models are off by 7 % instead of 2 % on a GPU or
by 2.2 % instead of 0.8 % on a compiled network. ``work`` is the multiply-adds in millions without dead branches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

NB201_EDGES = ("e01", "e02", "e12", "e03", "e13", "e23")
NB201_OPS = ("none", "skip", "conv1x1", "conv3x3", "pool")
_EDGE_FROM, _EDGE_TO = (0, 0, 1, 0, 1, 2), (1, 2, 2, 3, 3, 3)
# CIFAR network of NAS-Bench-201: 16 channels at 32x32, 5 cells a stage, 3 stages of equal multiply-adds per operation.
_NB201_CONV_MACS_M = 15 * 16 * 16 * 32 * 32 / 1e6
_NB201_FIXED_MACS_M = 7.7824  # stem, two reduction blocks and head: the smallest value of macs_m_cifar

# FBNet on CIFAR-100 as HW-NAS-Bench builds it; multiplying it out gives its macs_m to rounding.
FBNET_OPS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
_FBNET_KERNEL = np.array([3, 3, 3, 3, 5, 5, 5, 5, 1])
_FBNET_EXPANSION = np.array([1, 1, 3, 6, 1, 1, 3, 6, 0])
_FBNET_GROUPS = np.array([1, 2, 1, 1, 1, 2, 1, 1, 1])
_FBNET_SKIP = 8
_FBNET_STAGES = ((1, 16, 1), (4, 24, 1), (4, 32, 2), (4, 64, 2), (4, 112, 1), (4, 184, 2), (1, 352, 1))
_FBNET_STEM = (16, 32)  # channels and side after the stem

# MobileNetV3 of once-for-all at nominal width: channels of the five searched stages and side divisor after each.
_OFA_CHANNELS = (16, 24, 40, 80, 112, 160)
_OFA_DIVISORS = (2, 4, 8, 16, 16, 32)
_OFA_SLOTS = 4
_ANB_BLOCKS = 7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What a predictor may know of ``n`` networks without measuring them.

    Attributes:
        one_hot: Zeros and ones, ``n x len(one_hot_names)``.
        aggregates: Operations, traffic, depth, unscaled, ``n x len(aggregate_names)``.
        work: Multiply-adds in millions, positive.
        usable: False for networks that must not be judged (no path from input to output).
    """

    one_hot: np.ndarray
    one_hot_names: tuple[str, ...]
    aggregates: np.ndarray
    aggregate_names: tuple[str, ...]
    work: np.ndarray
    usable: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """Both blocks side by side."""
        return np.hstack([self.one_hot, self.aggregates])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of ``matrix``."""
        return self.one_hot_names + self.aggregate_names


def featurise(space: str, archs: pd.DataFrame, *, file: str) -> Features:
    """Return the features of ``archs``, a table of architectures of ``space`` read from ``file``.

    Raises:
        InputError: The space is unknown, or a column is missing or holds a code outside its range.
    """
    if space not in BUILDERS:
        raise InputError(f"{file}: unknown space '{space}'; known are {', '.join(BUILDERS)}")
    return BUILDERS[space](archs, file)


def live_operations(operations: np.ndarray) -> np.ndarray:
    """Return NAS-Bench-201 cells without the edges that lead from nowhere or to nowhere.

    Args:
        operations: Codes ``n x 6`` in the order of ``NB201_EDGES``; 0 is none.
    """
    e01, e02, e12, _, e13, e23 = (operations > 0).T
    from_input = np.ones((4, len(operations)), dtype=bool)
    from_input[1] = e01
    from_input[2] = e02 | (e12 & e01)
    to_output = np.ones((4, len(operations)), dtype=bool)
    to_output[2] = e23
    to_output[1] = e13 | (e12 & e23)
    live = np.stack([from_input[a] & to_output[b] for a, b in zip(_EDGE_FROM, _EDGE_TO, strict=True)], axis=1)
    return np.where(live, operations, 0)


def mirror_cells(operations: np.ndarray) -> np.ndarray:
    """Return cells with the two inner nodes swapped; the same computation where edge 1 to 2 is none."""
    e01, e02, e12, e03, e13, e23 = operations.T
    return np.stack([e02, e01, e12, e03, e23, e13], axis=1)


def _nb201(archs: pd.DataFrame, file: str) -> Features:
    built = _codes(archs, NB201_EDGES, file=file, allowed=range(len(NB201_OPS)))
    live = live_operations(built)
    hot_built, built_names = _one_hot(built, NB201_EDGES, range(len(NB201_OPS)))
    hot_live, live_names = _one_hot(live, [f"live_{edge}" for edge in NB201_EDGES], range(len(NB201_OPS)))
    work = _NB201_FIXED_MACS_M + _NB201_CONV_MACS_M * ((live == 2).sum(axis=1) + 9 * (live == 3).sum(axis=1))
    aggregates = {
        "macs_m": work,
        "log_macs": np.log(work),
        "additions": _additions(live),
        "built_additions": _additions(built),
        "longest_path": _path(live, np.array([0, 0, 1, 1, 1]), np.maximum),
        "longest_convolutions": _path(live, np.array([0, 0, 1, 1, 0]), np.maximum),
        "heaviest_path": _path(live, np.array([0, 0, 1, 9, 1]), np.maximum),
        "shortest_path": _path(live, np.array([0, 0, 1, 1, 1]), np.minimum),
    }
    for code, name in enumerate(NB201_OPS[1:], start=1):
        aggregates[f"live_{name}"] = (live == code).sum(axis=1)
        aggregates[f"dead_{name}"] = ((built == code) & (live == 0)).sum(axis=1)
    names = built_names + live_names
    return _features(np.hstack([hot_built, hot_live]), names, aggregates, work=work, usable=live.any(axis=1))


def _additions(operations: np.ndarray) -> np.ndarray:
    incoming = [(operations[:, np.array(_EDGE_TO) == node] > 0).sum(axis=1) for node in (1, 2, 3)]
    return np.maximum(np.stack(incoming) - 1, 0).sum(axis=0)


def _path(operations: np.ndarray, weights: np.ndarray, choose: np.ufunc) -> np.ndarray:
    """Longest (``np.maximum``) or shortest path over live edges, in summed operation weights."""
    absent = -np.inf if choose is np.maximum else np.inf
    reach = [np.zeros(len(operations)), *(np.full(len(operations), absent) for _ in range(3))]
    for column, (start, end) in enumerate(zip(_EDGE_FROM, _EDGE_TO, strict=True)):
        code = operations[:, column]
        reach[end] = choose(reach[end], np.where(code > 0, reach[start] + weights[code], absent))
    return np.where(np.isfinite(reach[3]), reach[3], 0.0)


def _fbnet(archs: pd.DataFrame, file: str) -> Features:
    columns = [f"l{index:02d}" for index in range(22)]
    codes = _codes(archs, columns, file=file, allowed=range(len(FBNET_OPS)))
    one_hot, names = _one_hot(codes, columns, range(len(FBNET_OPS)))
    kernel, expansion, groups = _FBNET_KERNEL[codes], _FBNET_EXPANSION[codes], _FBNET_GROUPS[codes]
    skip = codes == _FBNET_SKIP
    aggregates: dict[str, np.ndarray] = {}
    totals = {name: np.zeros(len(codes)) for name in ("pointwise_m", "depthwise_m", "activations_m", "weights_m")}
    channels, side = _FBNET_STEM
    layer = 0
    for stage, (depth, width, stride) in enumerate(_FBNET_STAGES):
        macs = np.zeros(len(codes))
        for position in range(depth):
            step = stride if position == 0 else 1
            joins = skip[:, layer] & (channels != width or step > 1)  # such a skip is a 1x1 convolution
            inner, after = expansion[:, layer] * channels, side // step
            in_weights = inner * channels / groups[:, layer]
            out_weights = inner * width / groups[:, layer] + joins * channels * width
            pointwise = (in_weights * side**2 + out_weights * after**2) / 1e6
            depthwise = kernel[:, layer] ** 2 * inner * after**2 / 1e6
            totals["pointwise_m"] += pointwise
            totals["depthwise_m"] += depthwise
            totals["weights_m"] += (in_weights + out_weights + kernel[:, layer] ** 2 * inner) / 1e6
            totals["activations_m"] += inner * (side**2 + after**2) / 1e6
            macs += pointwise + depthwise
            channels, side, layer = width, after, layer + 1
        part = slice(layer - depth, layer)
        aggregates[f"stage{stage}_macs_m"] = macs
        aggregates[f"stage{stage}_layers"] = (~skip[:, part]).sum(axis=1)
    work = _numbers(archs, "macs_m", file=file)
    aggregates |= totals | {
        "macs_m": work,
        "log_macs": np.log(work),
        "params_m": _numbers(archs, "params_m", file=file),
        "layers": (~skip).sum(axis=1),
        "kernel5_layers": (kernel == 5).sum(axis=1),
        "grouped_layers": (groups == 2).sum(axis=1),
        "expansion_sum": expansion.sum(axis=1),
    }
    return _features(one_hot, names, aggregates, work=work)


def _ofa(archs: pd.DataFrame, file: str) -> Features:
    stages = len(_OFA_CHANNELS) - 1
    slots = [f"{index:02d}" for index in range(stages * _OFA_SLOTS)]
    kernel = _codes(archs, [f"ks{slot}" for slot in slots], file=file, allowed=(3, 5, 7))
    expansion = _codes(archs, [f"e{slot}" for slot in slots], file=file, allowed=(3, 4, 6))
    depth = _codes(archs, [f"d{stage}" for stage in range(stages)], file=file, allowed=(2, 3, 4))
    side = _numbers(archs, "r", file=file)
    active = np.arange(stages * _OFA_SLOTS) % _OFA_SLOTS < np.repeat(depth, _OFA_SLOTS, axis=1)
    kernel, expansion = kernel * active, expansion * active
    hot_kernel, kernel_names = _one_hot(kernel, [f"ks{slot}" for slot in slots], (3, 5, 7))
    hot_expansion, expansion_names = _one_hot(expansion, [f"e{slot}" for slot in slots], (3, 4, 6))
    work = _numbers(archs, "macs_m_nominal", file=file)
    aggregates: dict[str, np.ndarray] = {
        "resolution": side,
        "resolution_squared": side**2,
        "log_resolution": np.log(side),
        "macs_m": work,
        "log_macs": np.log(work),
        "layers": active.sum(axis=1),
        "kernel_sum": kernel.sum(axis=1),
        "expansion_sum": expansion.sum(axis=1),
    }
    elements = np.zeros(len(archs))
    for stage in range(stages):
        part = slice(stage * _OFA_SLOTS, (stage + 1) * _OFA_SLOTS)
        after = side / _OFA_DIVISORS[stage + 1]
        inner = expansion[:, part] * _OFA_CHANNELS[stage + 1]
        pointwise = 2 * inner.sum(axis=1) * _OFA_CHANNELS[stage + 1] * after**2 / 1e6
        depthwise = (kernel[:, part] ** 2 * inner).sum(axis=1) * after**2 / 1e6
        elements += 2 * inner.sum(axis=1) * after**2 / 1e6
        aggregates[f"stage{stage}_layers"] = depth[:, stage]
        aggregates[f"stage{stage}_macs_m"] = pointwise + depthwise
        aggregates[f"stage{stage}_depthwise_m"] = depthwise
    aggregates["activations_m"] = elements
    return _features(np.hstack([hot_kernel, hot_expansion]), kernel_names + expansion_names, aggregates, work=work)


def _anb(archs: pd.DataFrame, file: str) -> Features:
    def codes(part: str, allowed: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        columns = [f"block{index}_{part}" for index in range(_ANB_BLOCKS)]
        return _codes(archs, columns, file=file, allowed=allowed), columns

    choices = {"e": (1, 4, 6), "k": (3, 5), "l": (1, 2, 3, 4), "se": (0, 1)}
    values = {part: codes(part, allowed)[0] for part, allowed in choices.items()}
    hot = [_one_hot(*codes(part, allowed), allowed) for part, allowed in choices.items()]
    expansion, kernel, layers, squeeze = (values[part] for part in ("e", "k", "l", "se"))
    work = _numbers(archs, "macs_m", file=file)
    aggregates = {
        "macs_m": work,
        "log_macs": np.log(work),
        "params_m": _numbers(archs, "params_m", file=file),
        "layers": layers.sum(axis=1),
        "squeeze_layers": (squeeze * layers).sum(axis=1),
        "kernel5_layers": ((kernel == 5) * layers).sum(axis=1),
        "expansion_sum": (expansion * layers).sum(axis=1),
    }
    for block in range(_ANB_BLOCKS):
        aggregates[f"block{block}_width"] = expansion[:, block] * layers[:, block]
        aggregates[f"block{block}_squeeze"] = squeeze[:, block] * layers[:, block]
        aggregates[f"block{block}_squeeze_width"] = squeeze[:, block] * expansion[:, block] * layers[:, block]
        aggregates[f"block{block}_depthwise"] = kernel[:, block] ** 2 * expansion[:, block] * layers[:, block]
    names = tuple(name for _, part in hot for name in part)
    return _features(np.hstack([columns for columns, _ in hot]), names, aggregates, work=work)


BUILDERS: Mapping[str, Callable[[pd.DataFrame, str], Features]] = {
    "nb201": _nb201,
    "fbnet": _fbnet,
    "ofa": _ofa,
    "anb": _anb,
}


def _features(
    one_hot: np.ndarray,
    names: tuple[str, ...],
    aggregates: Mapping[str, np.ndarray],
    *,
    work: np.ndarray,
    usable: np.ndarray | None = None,
) -> Features:
    return Features(
        one_hot=one_hot,
        one_hot_names=names,
        aggregates=np.column_stack([np.asarray(column, dtype=float) for column in aggregates.values()]),
        aggregate_names=tuple(aggregates),
        work=work,
        usable=np.ones(len(work), dtype=bool) if usable is None else usable,
    )


def _one_hot(codes: np.ndarray, columns: Sequence[str], allowed: Sequence[int]) -> tuple[np.ndarray, tuple[str, ...]]:
    hot = codes[:, :, None] == np.array(list(allowed))
    return hot.reshape(len(codes), -1).astype(float), tuple(f"{name}={code}" for name in columns for code in allowed)


def _codes(archs: pd.DataFrame, columns: Sequence[str], *, file: str, allowed: Sequence[int]) -> np.ndarray:
    missing = [name for name in columns if name not in archs.columns]
    if missing:
        raise InputError(f"{file}: column '{missing[0]}' is missing ({len(missing)} of {len(columns)} of its kind)")
    codes = archs[list(columns)].to_numpy()
    bad = ~np.isin(codes, list(allowed))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"{file}: column '{columns[column]}', row {row}: {codes[row, column]} is none of {list(allowed)}"
        )
    return codes.astype(np.int64)


def _numbers(archs: pd.DataFrame, column: str, *, file: str) -> np.ndarray:
    if column not in archs.columns:
        raise InputError(f"{file}: column '{column}' is missing")
    values = archs[column].to_numpy(dtype=float)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        raise InputError(f"{file}: column '{column}', row {np.flatnonzero(bad)[0]}: not a positive number")
    return values
