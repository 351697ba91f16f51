"""Several processes train as one: the same losses from the same options, with copied and with spread weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nas.core.errors import ConfigError
from nas.core.protocols import SilentProgress
from nas.training.acceleration import make_accelerator

if TYPE_CHECKING:
    from types import ModuleType

WORKER = Path(__file__).with_name("parallel_worker.py")
PROCESSES = 2
pytestmark = pytest.mark.slow  # two processes that load torch
TOLERANCE = 2e-5  # float32 sums in another order, over twelve steps


def load_worker() -> ModuleType:
    spec = util.spec_from_file_location("parallel_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["parallel_worker"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which two processes trained."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = os.environ | {
        "WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    group = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    failures = [process.communicate(timeout=120)[1] for process in group if process.wait(timeout=120)]
    assert not failures, "\n".join(failures)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """Folder in which one process trained the same, and what its network gives."""
    worker = load_worker()
    folder = tmp_path_factory.mktemp("alone")
    run, network = worker.make_run(folder, worker.OPTIONS)
    run.run(SilentProgress())
    run.use_averages()
    return folder, worker.output(network)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("way", ["copies", "shares"])
def test_two_processes_have_the_losses_of_one(together: Path, alone: tuple[Path, list[float]], way: str) -> None:
    one, two = rows(alone[0]), rows(together / way)
    assert [row["step"] for row in two] == list(range(1, 13))
    for name in ("loss", "heads_loss", "distance"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("way", ["copies", "shares"])
def test_two_processes_end_with_the_averages_of_one(together: Path, alone: tuple[Path, list[float]], way: str) -> None:
    result = json.loads((together / "result.json").read_text())
    assert result[way] == pytest.approx(alone[1], rel=TOLERANCE, abs=TOLERANCE)


def test_spread_weights_are_plain_again_and_can_be_spread_by_the_next_stage(together: Path) -> None:
    result = json.loads((together / "result.json").read_text())
    assert result["kinds"] == ["Parameter"]
    assert result["changed"]


def test_a_checkpoint_of_spread_weights_goes_on_in_one_process(together: Path, alone: tuple[Path, list[float]]) -> None:
    worker = load_worker()
    run, network = worker.make_run(together / "shares", worker.OPTIONS)
    run.run(SilentProgress())
    run.use_averages()
    assert worker.output(network) == pytest.approx(alone[1], rel=TOLERANCE, abs=TOLERANCE)


def test_micro_batches_that_cannot_be_shared_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    options = replace(load_worker().OPTIONS, accumulation=4)
    with pytest.raises(ConfigError, match="3 processes cannot share a step of 4 micro-batches evenly") as caught:
        make_accelerator(options)
    assert "multiple of 3" in str(caught.value.hint)
