"""A small folder in the devbench layout, made from known formulas; the programs in ``benchmarks`` become importable."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))  # they run as programs, not as a package

EDGES = ("e01", "e02", "e12", "e03", "e13", "e23")


def cells(count: int, seed: int = 0) -> pd.DataFrame:
    """Return that many different NAS-Bench-201 cells with accuracies that grow with their convolutions."""
    import pandas as pd

    everything = np.array(list(product(range(5), repeat=6)))
    chosen = everything[np.random.default_rng(seed).permutation(len(everything))[:count]]
    table = pd.DataFrame(chosen, columns=list(EDGES))
    table.insert(0, "arch_idx", np.arange(count))
    table["acc12_cifar10_val"] = 50 + 5.0 * (chosen == 3).sum(axis=1) + 2.0 * (chosen == 2).sum(axis=1)
    return table


@pytest.fixture
def nb201_folder(tmp_path: Path) -> Path:
    """A folder with 300 cells on four columns of three machines; latency is a sum over edges of the raw cell."""
    import pandas as pd

    archs = cells(300)
    generator = np.random.default_rng(1)
    codes = archs[list(EDGES)].to_numpy()
    latency = pd.DataFrame({"arch_idx": archs["arch_idx"]})
    for name, scale in {"alpha_1": 1.0, "alpha_32": 3.0, "beta": 2.0, "gamma": 5.0}.items():
        cost = scale * np.array([0.0, 0.05, 0.4, 1.0, 0.3]) * generator.uniform(0.7, 1.3, 5)
        latency[name] = (scale + cost[codes].sum(axis=1)) * np.exp(0.01 * generator.standard_normal(len(codes)))
    archs.to_parquet(tmp_path / "nb201_archs.parquet")
    latency.to_parquet(tmp_path / "nb201_latency.parquet")
    machines = {"alpha_1": "alpha", "alpha_32": "alpha", "beta": "beta", "gamma": "gamma"}
    rows = [{"dataset": "nb201", "device": name, "physical_device": machine} for name, machine in machines.items()]
    pd.DataFrame(rows).to_csv(tmp_path / "devices.csv", index=False)
    return tmp_path
