"""What the operations under test are fed with, and how a case is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

RANDOM = np.random.default_rng(5)


def draw(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return RANDOM.standard_normal(shape).astype(np.float32)


IMAGE, ROWS = draw(2, 8, 6, 4), draw(3, 5)  # inputs x and r
POSITIVE = np.abs(ROWS) + 0.2  # input p
UNIT = np.tanh(ROWS) * 0.9  # input u
INPUTS = {"x": IMAGE, "r": ROWS, "p": POSITIVE, "u": UNIT}
KERNEL, BIAS, CUBE = draw(6, 4, 3, 2), draw(6), draw(1, 4, 5, 6, 7)
DEPTH, LINE, TRANSPOSED = draw(3, 4, 3, 1, 1), draw(6, 8, 3), draw(8, 3, 3, 4)
MATRIX, VECTOR, GAMMA, BETA = draw(7, 5), draw(7), draw(8), draw(8)
QUERY, KEY, MASK, FACTOR = draw(2, 3, 4, 5), draw(2, 3, 6, 5), draw(4, 6), draw(2, 5, 4, 6)


@dataclass(frozen=True)
class Case:
    """An operation as the builder makes it, and what it must give."""

    build: Callable[[Any, Any], Any]  # of the builder and the inputs
    expected: Any
    named: str


def tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def module(layer: nn.Module, x: Any, **weights: Any) -> Tensor:
    with torch.no_grad():
        for name, value in weights.items():
            getattr(layer, name).copy_(tensor(value))
        return layer.eval()(tensor(x))


def unary(name: str, expected: Any, source: str = "r") -> Case:
    return Case(lambda mb, i: getattr(mb, name)(x=i[source]), expected, name)


def of(name: str, expected: Any, source: str = "x", **parameters: Any) -> Case:
    return Case(lambda mb, i: getattr(mb, name)(x=i[source], **parameters), expected, name)


def softmaxed(x: Any, axis: int) -> Any:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def attended(query: Any, key: Any, value: Any, mask: Any) -> Any:
    return softmaxed(query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1]) + mask, -1) @ value


def normalised(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


ERF = np.vectorize(math.erf)
