"""Benchmarks of other runtimes: ncnn's zoo, MLX operators, and the encoder and decoder times of HAT.

They are records of devices that are not ours, for models that learn across devices. The tables of network search
benchmarks (NB201, FBNet, OFA, Accel-NASBench) are arrays, not records; ``benchmarks/devbench.py`` reads those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latency_models.importers.contract import ImportOptions, ImportResult, Rows, read_csv
from latency_models.importers.naming import third_party
from nas.core.errors import InputError, UnavailableError
from nas.core.profile import DeviceInfo, ProfileRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nas.core.cost import ComputeUnit

_HAT_FIGURES = ("latency_mean_encoder", "latency_mean_decoder", "latency_std_encoder", "latency_std_decoder")


def read_ncnn(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read ncnn's benchmark runs: a mean of ``loop_count`` runs a row, ``gpu_device`` -1 for the CPU.

    Raises:
        InputError: The file is missing or damaged.
    """
    rows = Rows(str(path))
    for line, cells in read_csv(path)[1]:
        with rows.row(line):
            low, mean, high = (float(cells[name]) for name in ("min_ms", "avg_ms", "max_ms"))
            if not low <= mean <= high:
                raise ValueError(f"average {mean:g} is not between minimum {low:g} and maximum {high:g}")
            rows.keep(_ncnn_record(cells, mean, note=f"from {low:g} to {high:g} ms"), line)
    return rows.result()


def _ncnn_record(cells: Mapping[str, str], mean: float, *, note: str) -> ProfileRecord:
    on_gpu = int(cells["gpu_device"]) >= 0
    return ProfileRecord(
        **_published("Tencent/ncnn benchmark/README.md", "BSD-3-Clause"),
        subject=cells["model"],
        level="network",
        device=DeviceInfo(
            name=cells["device"],
            chip="",
            compute_unit="gpu" if on_gpu else "cpu",
            threads=int(cells["num_threads"]),
            memory_mb=None,
            os_build="",
            software=f"ncnn{' Vulkan' if on_gpu else ''}, powersave {cells['powersave']}",
        ),
        samples_ms=(mean,),
        statistic="mean",
        num_runs=int(cells["loop_count"]),
        note=f"run {cells['run_id']}, {note}",
    )


def read_mlx(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read MLX's operator table; combinations that were not measured are counted, not named.

    Raises:
        InputError: The file is missing or no Parquet.
        UnavailableError: No Parquet reader is installed.
    """
    rows = Rows(str(path))
    missing = 0
    for number, row in enumerate(_parquet_rows(path), start=1):
        if row["ms"] is None:
            missing += 1
            continue
        with rows.row(number):
            backend = str(row["backend"])
            unit: ComputeUnit = "cuda" if backend == "cuda" else "cpu" if backend.endswith("cpu") else "gpu"
            rows.keep(
                ProfileRecord(
                    **_published("TristanBilot/mlx-benchmark", "MIT"),
                    subject=f"{row['op']} {row['args']}",
                    level="operation",
                    device=third_party(str(row["device"]), unit=unit, software=backend),
                    samples_ms=(float(row["ms"]),),
                    statistic="mean",
                ),
                number,
            )
    if missing:
        rows.remarks.append(f"{path}: {missing} combinations were not measured")
    return rows.result()


def read_hat(path: Path, options: ImportOptions) -> ImportResult:  # noqa: ARG001  # one signature for all formats
    """Read encoder and decoder times of HAT, two records a row; the row's features are in the subject.

    Raises:
        InputError: The file is missing or no Parquet.
        UnavailableError: No Parquet reader is installed.
    """
    rows = Rows(str(path))
    for number, row in enumerate(_parquet_rows(path), start=1):
        features = [name for name in row if name not in ("task", "device", *_HAT_FIGURES)]
        for part in ("encoder", "decoder"):
            # Cross-attention belongs to the decoder; an encoder's time depends on the encoder's features alone.
            inside = ",".join(f"{n}={row[n]:g}" for n in features if part == "decoder" or n.startswith("encoder"))
            with rows.row(number):
                rows.keep(
                    ProfileRecord(
                        **_published("mit-han-lab/hardware-aware-transformers", "MIT and BSD-2-Clause"),
                        subject=f"HAT {row['task']} {part} {inside}",
                        level="network",
                        device=third_party(str(row["device"]), unit="gpu" if "gpu" in str(row["device"]) else "cpu"),
                        samples_ms=(float(row[f"latency_mean_{part}"]),),
                        statistic="mean",
                        note=f"standard deviation {row[f'latency_std_{part}']:.3g} ms",
                    ),
                    number,
                )
    return rows.result()


def _published(source: str, licence: str) -> dict[str, Any]:
    return {
        "scenario": "",
        "warmup": 0,
        "peak_memory_mb": None,
        "memory_method": None,
        "tool": "published table",
        "taken_at": "",
        "origin": "published",
        "source": source,
        "licence": licence,
    }


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows as plain values, missing ones as None; pyarrow is needed for this one format only."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise UnavailableError(f"{path}: Parquet files need pyarrow", hint="pip install pyarrow") from error
    if not path.is_file():
        raise InputError(f"{path}: does not exist")
    try:
        rows: list[dict[str, Any]] = read_table(path).to_pylist()
    except ArrowException as error:
        raise InputError(f"{path}: no Parquet file: {error}") from error
    return [
        {name: None if value != value else value for name, value in row.items()} for row in rows
    ]  # NaN is not itself
