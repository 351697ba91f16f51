"""Measured latencies of public benchmarks: ``SPACE_archs.parquet`` and one file of device columns a benchmark.

Columns are discovered, so any folder of the same layout works. Bad cells are dropped with a notice that names file and
column; what cannot be read at all raises. pandas is imported where a table is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from devbench_features import BUILDERS, NB201_EDGES, Features, featurise, live_operations, mirror_cells

from nas.core.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

SPACES = tuple(BUILDERS)
KEY = "arch_idx"
_TABLE = {"nb201": "nb201_latency", "fbnet": "fbnet_latency", "ofa": "ofa_latency", "anb": "anb_perf"}
_ACCURACY = {"nb201": "acc12_cifar10_val", "anb": "val_top1"}
_BATCH = re.compile(r"_(1|2|4|8|16|32|64|128|256|512)$")
_PERFORMANCE = re.compile(r"^(latency|throughput)_(.+)_(mean|std)$")
# A reading this far from the median of its column, up or down, is in another unit; the spaces spread by less than 20.
_UNIT_RATIO = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One column of latencies.

    Attributes:
        name: The column's name.
        physical: The machine behind it; columns of one machine are left out together.
        folder: The folder it was read from.
    """

    name: str
    physical: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Space:
    """One benchmark: networks, what is known of them, and their latency on every device.

    Attributes:
        arch_idx: The benchmark's own index of each network.
        latency_ms: ``networks x devices``; NaN where not measured.
        accuracy: Percent, or None where the benchmark has none.
        twins: Pairs of rows that are the same computation, measured twice; empty where the space has none.
        notices: What was dropped or guessed, each with file and column.
    """

    name: str
    arch_idx: np.ndarray
    features: Features
    devices: tuple[Device, ...]
    latency_ms: np.ndarray
    accuracy: np.ndarray | None
    twins: np.ndarray
    notices: tuple[str, ...]

    @property
    def device_names(self) -> tuple[str, ...]:
        """Names of the columns of ``latency_ms``."""
        return tuple(device.name for device in self.devices)

    def measured(self, device: str) -> np.ndarray:
        """Return the rows of usable networks that were measured on ``device``."""
        column = self.latency_ms[:, self.device_names.index(device)]
        return np.flatnonzero(np.isfinite(column) & self.features.usable)


def load_space(name: str, folders: Sequence[Path]) -> Space | None:
    """Read one benchmark from the folders that have it; None when no folder holds its latencies.

    Architectures are read from the first folder that has them. A device found in two folders counts for the first.

    Raises:
        InputError: The latencies are there without architectures, or a file or a needed column cannot be read.
        UnavailableError: No Parquet reader is installed.
    """
    tables = [folder / f"{_TABLE[name]}.parquet" for folder in folders]
    if not any(path.is_file() for path in tables):
        return None
    file = next((path for folder in folders if (path := folder / f"{name}_archs.parquet").is_file()), None)
    if file is None:
        places = ", ".join(str(folder) for folder in folders)
        raise InputError(f"{name}_archs.parquet: in none of {places}", hint="copy it beside the latencies")
    archs, notices = _unique(_read(file), file)
    space = Space(
        name=name,
        arch_idx=archs[KEY].to_numpy(),
        features=featurise(name, archs, file=str(file)),
        devices=(),
        latency_ms=np.empty((len(archs), 0)),
        accuracy=_accuracy(name, archs),
        twins=_twins(archs) if name == "nb201" else np.empty((0, 2), dtype=int),
        notices=tuple(notices),
    )
    for folder, path in zip(folders, tables, strict=True):
        if path.is_file():
            space = _with_devices(space, folder, path)
    return space


def _with_devices(space: Space, folder: Path, path: Path) -> Space:
    table, notices = _unique(_read(path), path)
    unknown = ~table[KEY].isin(space.arch_idx)
    if unknown.any():
        first = table[KEY][unknown].iloc[0]
        notices.append(f"{path}: {int(unknown.sum())} rows of unknown architectures dropped, first {KEY} {first}")
    table = table[~unknown].set_index(KEY).reindex(space.arch_idx)
    physical = _physical_devices(folder, space.name)
    devices, columns = list(space.devices), [space.latency_ms]
    for column in table.columns:
        if column.endswith("_std"):
            continue
        if column in {device.name for device in devices}:
            notices.append(f"{path}: column '{column}' is also in another folder, this one is left out")
            continue
        values = _milliseconds(table[column], path, space.features.usable, notices)
        if values is None:
            continue
        device = _device_label(column)
        devices.append(Device(name=column, physical=physical.get(device) or _BATCH.sub("", device), folder=folder))
        columns.append(values[:, None])
    return replace(space, devices=tuple(devices), latency_ms=np.hstack(columns), notices=(*space.notices, *notices))


def _device_label(column: str) -> str:
    """Return the name under which devices.csv lists a column: ``latency_zcu102_mean`` is ``zcu102``."""
    match = _PERFORMANCE.match(column)
    return match.group(2) if match else column


def _milliseconds(column: pd.Series, path: Path, usable: np.ndarray, notices: list[str]) -> np.ndarray | None:
    """Return one column in milliseconds without its impossible cells; None when it holds nothing of use."""
    where = f"{path}: column '{column.name}'"
    try:
        values = column.to_numpy(dtype=float, copy=True)
    except (TypeError, ValueError):
        notices.append(f"{where} is not numeric, left out")
        return None
    measured = ~np.isnan(values)
    impossible = measured & ~(np.isfinite(values) & (values > 0))
    _drop(values, impossible, column, f"{where}: times that are zero, negative or infinite", notices)
    if np.isfinite(values[usable]).sum() < 2:
        notices.append(f"{where} holds no measurement, left out")
        return None
    ratio = values / np.nanmedian(values[usable])
    another = usable & ((ratio > _UNIT_RATIO) | (ratio < 1 / _UNIT_RATIO))
    _drop(values, another, column, f"{where}: mixed units, values {_UNIT_RATIO:g} times off the median", notices)
    if str(column.name).startswith("throughput_"):  # images per second, so milliseconds an image
        values = 1000.0 / values
    return values


def _drop(values: np.ndarray, bad: np.ndarray, column: pd.Series, what: str, notices: list[str]) -> None:
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        notices.append(f"{what} dropped: {int(bad.sum())}, first {KEY} {column.index[first]} with {values[first]:g}")
        values[bad] = np.nan


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise UnavailableError(f"{path}: no Parquet reader", hint="pip install pyarrow") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    if KEY not in table.columns:
        raise InputError(f"{path}: column '{KEY}' is missing")
    return table


def _unique(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    again = table[KEY].duplicated()
    if not again.any():
        return table, []
    first = table[KEY][again].iloc[0]
    return table[~again], [f"{path}: {int(again.sum())} rows repeat a {KEY} and are dropped, first {first}"]


def _accuracy(name: str, archs: pd.DataFrame) -> np.ndarray | None:
    column = _ACCURACY.get(name)
    return archs[column].to_numpy(dtype=float) if column in archs.columns else None


def _twins(archs: pd.DataFrame) -> np.ndarray:
    """Return pairs of mirrored cells without dead branches, which compilers may treat by their place."""
    built = archs[list(NB201_EDGES)].to_numpy(dtype=np.int64)
    whole = np.flatnonzero((live_operations(built) == built).all(axis=1) & built.any(axis=1) & (built[:, 2] == 0))
    row_of = {tuple(cell): row for row, cell in enumerate(built.tolist())}
    mirrored = mirror_cells(built[whole]).tolist()
    pairs = [(row, row_of.get(tuple(cell), -1)) for row, cell in zip(whole.tolist(), mirrored, strict=True)]
    return np.array([pair for pair in pairs if pair[0] < pair[1]], dtype=int).reshape(-1, 2)


def _physical_devices(folder: Path, space: str) -> dict[str, str]:
    """Return device to machine for one benchmark, from ``devices.csv`` where the folder has one."""
    import pandas as pd

    path = folder / "devices.csv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path, dtype=str)
    missing = {"dataset", "device"} - set(table.columns)
    if missing:
        raise InputError(f"{path}: column '{sorted(missing)[0]}' is missing")
    if "physical_device" not in table.columns:
        return {}
    rows = table[(table["dataset"] == space) & table["physical_device"].notna()]
    return dict(zip(rows["device"], rows["physical_device"], strict=True))
