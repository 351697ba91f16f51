"""A float16 network of every operation that reads weights, one of them on a residual branch that hardly counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.export.mil.building import unsaved_model

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {"x": (1, 16, 8, 8)}
RANDOM = np.random.default_rng(4)


def tails(*shape: int, scale: float) -> np.ndarray[Any, Any]:
    return (scale * RANDOM.standard_t(5, shape)).astype(np.float16)


FIRST = tails(32, 16, 3, 3, scale=0.08)
BRANCH = tails(32, 32, 3, 3, scale=0.002)  # its output is a hundredth of what it is added to
UPWARDS = tails(32, 24, 2, 2, scale=0.1)
LINEAR = tails(48, 16 * 16, scale=0.06)
PRODUCT = tails(48, 64, scale=0.1)


def network(mb: Any, x: Any) -> Any:
    hidden = mb.relu(x=mb.conv(x=x, weight=FIRST, pad_type="same"))
    hidden = mb.add(x=hidden, y=mb.conv(x=hidden, weight=BRANCH, pad_type="same"))
    large = mb.relu(x=mb.conv_transpose(x=hidden, weight=UPWARDS, strides=[2, 2]))
    tokens = mb.linear(x=mb.reshape(x=large, shape=[24, 256]), weight=LINEAR, bias=np.ones(48, np.float16))
    return mb.matmul(x=tokens, y=PRODUCT, name="result")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compression") / "network.mlpackage"
    unsaved_model(SHAPES, network, dtype=np.float16).save(str(path))
    return path
