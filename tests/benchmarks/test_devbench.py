"""The loader of measured benchmark folders, and the features of their networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from devbench import load_space
from devbench_features import featurise, live_operations

from nas.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

EDGES = ["e01", "e02", "e12", "e03", "e13", "e23"]


def nb201(*codes: list[int]) -> pd.DataFrame:
    return pd.DataFrame(list(codes), columns=EDGES)


def aggregate(space: str, archs: pd.DataFrame, name: str) -> list[float]:
    features = featurise(space, archs, file="made.parquet")
    return features.aggregates[:, features.aggregate_names.index(name)].tolist()


def fbnet(*layers: list[int]) -> pd.DataFrame:
    table = pd.DataFrame(list(layers), columns=[f"l{index:02d}" for index in range(22)])
    table["macs_m"] = 10.0
    table["params_m"] = 1.0
    return table


def ofa(**values: int) -> pd.DataFrame:
    row = {f"ks{index:02d}": 3 for index in range(20)} | {f"e{index:02d}": 3 for index in range(20)}
    row |= {f"d{index}": 2 for index in range(5)} | {"r": 224, "macs_m_nominal": 100}
    return pd.DataFrame([row | values])


@pytest.mark.parametrize(
    ("cell", "live"),
    [
        ([3, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 0]),  # 0-1 ends, 2-3 starts nowhere
        ([3, 2, 0, 1, 0, 2], [0, 2, 0, 1, 0, 2]),  # node 1 has no way out
        ([3, 0, 1, 0, 0, 2], [3, 0, 1, 0, 0, 2]),  # one chain through both nodes
        ([0, 2, 3, 0, 4, 1], [0, 2, 0, 0, 0, 1]),  # node 1 has no way in
    ],
)
def test_dead_branches_carry_no_operation(cell: list[int], live: list[int]) -> None:
    assert live_operations(np.array([cell])).tolist() == [live]


def test_cell_without_path_is_not_usable() -> None:
    features = featurise("nb201", nb201([3, 0, 0, 0, 0, 2], [0, 0, 0, 1, 0, 0]), file="made.parquet")
    assert features.usable.tolist() == [False, True]


def test_twin_cells_have_equal_aggregates() -> None:
    features = featurise("nb201", nb201([3, 2, 0, 1, 4, 1], [2, 3, 0, 1, 1, 4]), file="made.parquet")
    assert (features.aggregates[0] == features.aggregates[1]).all()


def test_dead_branch_is_told_apart_from_none_and_from_live() -> None:
    dead, absent, live = [0, 1, 0, 1, 3, 1], [0, 1, 0, 1, 0, 1], [1, 1, 0, 1, 3, 1]
    features = featurise("nb201", nb201(dead, absent, live), file="made.parquet")
    assert features.work[0] == features.work[1] < features.work[2]
    assert aggregate("nb201", nb201(dead, absent, live), "dead_conv3x3") == [1, 0, 0]


@pytest.mark.parametrize(
    ("cell", "macs_m"),
    [
        ([1, 0, 0, 1, 1, 0], 7.7824),  # no convolution
        ([3, 0, 0, 0, 1, 0], 43.17184),  # NAS-Bench-201 architecture with one 3x3: macs_m_cifar
        ([2, 0, 0, 0, 2, 3], 15.64672),  # the 3x3 hangs on a node without input
    ],
)
def test_dead_convolutions_do_no_work(cell: list[int], macs_m: float) -> None:
    assert featurise("nb201", nb201(cell), file="made.parquet").work[0] == pytest.approx(macs_m, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("longest_path", 2), ("shortest_path", 0), ("heaviest_path", 10), ("additions", 2), ("live_conv3x3", 2)],
)
def test_paths_through_a_cell(name: str, value: int) -> None:
    # 0-1 conv3x3, 1-2 conv1x1, 0-2 pool, 2-3 skip, 0-3 skip, 1-3 none; 0-2 joins 1-2, 2-3 joins 0-3
    assert aggregate("nb201", nb201([3, 4, 2, 1, 0, 1]), "longest_path") == [2]
    assert aggregate("nb201", nb201([3, 3, 2, 1, 0, 1]), name) == [value]


def test_fbnet_multiplications_follow_the_published_network() -> None:
    # Difference of macs_m of two published networks that differ in layer 0 only: k3_e6 against skip, 4.0304 million.
    wide, skipped = fbnet([3] + [8] * 21), fbnet([8] * 22)
    parts = [
        aggregate("fbnet", table, "pointwise_m")[0] + aggregate("fbnet", table, "depthwise_m")[0]
        for table in (wide, skipped)
    ]
    assert parts[0] - parts[1] == pytest.approx(3.3587 + 0.6717, abs=1e-3)


def test_layers_beyond_the_depth_change_nothing() -> None:
    plain, inactive = ofa(), ofa(ks03=7, e03=6)
    features = [featurise("ofa", table, file="made.parquet").matrix for table in (plain, inactive)]
    assert (features[0] == features[1]).all()


def test_active_layers_change_features() -> None:
    features = [featurise("ofa", table, file="made.parquet").matrix for table in (ofa(), ofa(ks01=7))]
    assert (features[0] != features[1]).any()


def test_one_hot_row_names_each_edge_as_built_and_live(nb201_folder: Path) -> None:
    space = load_space("nb201", [nb201_folder])
    assert space is not None
    assert set(space.features.one_hot.sum(axis=1)) == {12.0}


def test_folder_without_the_benchmark_gives_nothing(tmp_path: Path) -> None:
    assert load_space("nb201", [tmp_path]) is None


def test_columns_are_discovered_with_their_machine(nb201_folder: Path) -> None:
    space = load_space("nb201", [nb201_folder])
    assert space is not None
    assert [(one.name, one.physical) for one in space.devices] == [
        ("alpha_1", "alpha"),
        ("alpha_32", "alpha"),
        ("beta", "beta"),
        ("gamma", "gamma"),
    ]


def test_batches_of_one_machine_stay_together_without_a_device_list(nb201_folder: Path) -> None:
    (nb201_folder / "devices.csv").unlink()
    space = load_space("nb201", [nb201_folder])
    assert space is not None
    assert [one.physical for one in space.devices] == ["alpha", "alpha", "beta", "gamma"]


def test_architectures_come_from_the_folder_that_has_them(nb201_folder: Path) -> None:
    other = nb201_folder / "test"
    other.mkdir()
    latency = pd.read_parquet(nb201_folder / "nb201_latency.parquet")[["arch_idx", "gamma"]]
    latency.rename(columns={"gamma": "delta"}).to_parquet(other / "nb201_latency.parquet")
    space = load_space("nb201", [nb201_folder, other])
    assert space is not None
    assert space.device_names == ("alpha_1", "alpha_32", "beta", "gamma", "delta")
    assert (space.latency_ms[:, 3] == space.latency_ms[:, 4]).all()


def test_throughput_becomes_time(tmp_path: Path) -> None:
    choices = {"e": 4, "k": 3, "l": 2, "se": 0}
    row = {f"block{index}_{part}": value for index in range(7) for part, value in choices.items()}
    archs = pd.DataFrame([row | {"arch_idx": index, "macs_m": 100.0, "params_m": 2.0} for index in range(3)])
    archs.to_parquet(tmp_path / "anb_archs.parquet")
    columns = {"arch_idx": [0, 1, 2], "throughput_chip_mean": [500.0, 250.0, np.nan], "throughput_chip_std": 1.0}
    pd.DataFrame(columns | {"latency_chip_mean": [4.0, 5.0, 6.0]}).to_parquet(tmp_path / "anb_perf.parquet")
    space = load_space("anb", [tmp_path])
    assert space is not None
    assert space.device_names == ("throughput_chip_mean", "latency_chip_mean")
    assert space.latency_ms[:2, 0].tolist() == [2.0, 4.0]
    assert np.isnan(space.latency_ms[2, 0])
    assert [device.physical for device in space.devices] == ["chip", "chip"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "zero, negative or infinite"), (-1.0, "zero, negative or infinite"), (1e4, "mixed units")],
)
def test_impossible_times_are_dropped_by_name(nb201_folder: Path, value: float, words: str) -> None:
    path = nb201_folder / "nb201_latency.parquet"
    table = pd.read_parquet(path)
    table.loc[7, "beta"] = value
    table.to_parquet(path)
    space = load_space("nb201", [nb201_folder])
    assert space is not None
    assert len(space.notices) == 1
    assert all(part in space.notices[0] for part in ("nb201_latency.parquet", "'beta'", words, "arch_idx 7"))
    assert np.isnan(space.latency_ms[7, 2])
    assert np.isfinite(space.latency_ms[7, 0])


def test_repeated_architectures_are_dropped_by_name(nb201_folder: Path) -> None:
    path = nb201_folder / "nb201_latency.parquet"
    table = pd.read_parquet(path)
    pd.concat([table, table.iloc[[3]]]).to_parquet(path)
    space = load_space("nb201", [nb201_folder])
    assert space is not None
    assert "repeat a arch_idx" in space.notices[0]


@pytest.mark.parametrize(("file", "column"), [("nb201_archs", "e12"), ("nb201_latency", "arch_idx")])
def test_missing_column_is_named(nb201_folder: Path, file: str, column: str) -> None:
    path = nb201_folder / f"{file}.parquet"
    pd.read_parquet(path).drop(columns=column).to_parquet(path)
    with pytest.raises(InputError, match=rf"{file}\.parquet: column '{column}' is missing"):
        load_space("nb201", [nb201_folder])


def test_unknown_code_is_named(nb201_folder: Path) -> None:
    path = nb201_folder / "nb201_archs.parquet"
    table = pd.read_parquet(path)
    table.loc[5, "e03"] = 9
    table.to_parquet(path)
    with pytest.raises(InputError, match=r"column 'e03', row 5: 9 is none of \[0, 1, 2, 3, 4\]"):
        load_space("nb201", [nb201_folder])


def test_latencies_without_architectures_say_what_is_missing(nb201_folder: Path) -> None:
    (nb201_folder / "nb201_archs.parquet").unlink()
    with pytest.raises(InputError, match=r"nb201_archs\.parquet: in none of"):
        load_space("nb201", [nb201_folder])


def test_file_that_is_no_table_is_named(nb201_folder: Path) -> None:
    (nb201_folder / "nb201_latency.parquet").write_text("not a table")
    with pytest.raises(InputError, match=r"nb201_latency\.parquet: cannot be read as Parquet"):
        load_space("nb201", [nb201_folder])


def test_twins_are_pairs_of_mirrored_cells(nb201_folder: Path) -> None:
    archs = nb201([3, 2, 0, 1, 4, 1], [2, 3, 0, 1, 1, 4], [3, 2, 1, 1, 4, 1], [3, 2, 0, 1, 0, 1], [2, 3, 0, 1, 1, 0])
    archs.insert(0, "arch_idx", range(5))
    archs.to_parquet(nb201_folder / "nb201_archs.parquet")
    space = load_space("nb201", [nb201_folder])
    assert space is not None
    assert space.twins.tolist() == [[0, 1]]
