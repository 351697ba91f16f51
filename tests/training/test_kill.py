"""kill -9 at any moment of a stage, in the middle of writing files too: the same command goes on to the same losses."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import nas.core.files
import nas.training.checkpoint
from nas.core.files import JsonLines
from nas.core.protocols import SilentProgress
from nas.core.rng import RandomStreams
from nas.training.loop import Batch, Phase, TrainingRun
from nas.training.options import LoopOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = torch.linspace(-1.0, 1.0, 20).reshape(-1, 1)
OPTIONS = LoopOptions(steps=24, batch_size=5, learning_rate=0.01, warmup_steps=3, checkpoint_every=4, log_every=3)
Kill = tuple[str, int]  # what is being written, and for which time


def train(folder: Path) -> list[Tensor]:
    """Train a toy network as a stage does; returns its averaged weights."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = DATA[batch.indices]
        noise = 0.1 * torch.randn(inputs.shape, generator=batch.generator)
        return (network(inputs + noise) - inputs.square()).square().mean(), {}

    run = TrainingRun(
        stage="toy",
        folder=folder,
        metrics=folder / "metrics.jsonl",
        options=OPTIONS,
        modules={"network": network},
        phases=[Phase(name="network", trains=("network",), loss=loss)],
        averaged=("network",),
        num_items=len(DATA),
        streams=RandomStreams(7),
        fingerprint="same",
        events=folder / "events",
    )
    run.run(SilentProgress())
    run.use_averages()
    return [parameter.detach() for parameter in network.parameters()]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number: int, function: Callable[..., Any], before: Callable[..., None]) -> Callable[..., Any]:
    """``function``, but its ``number``-th call does ``before`` and dies."""
    calls = iter(range(1, 10_000))

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if next(calls) == number:
            before(*arguments)
            die()
        return function(*arguments, **named)

    return wrapped


def half_a_line(lines: JsonLines, values: Any) -> None:  # noqa: ARG001  # the signature of what it stands in for
    lines.path.parent.mkdir(parents=True, exist_ok=True)
    with lines.path.open("ab") as stream:
        stream.write(b'{"stage":"toy","st')


def half_a_file(path: Path, *_: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")


def train_and_die(folder: Path, kill: Kill) -> None:
    what, number = kill
    checkpoint = nas.training.checkpoint
    if what == "metrics":
        JsonLines.extend = at_call(number, JsonLines.extend, half_a_line)  # type: ignore[method-assign]
    elif what == "tensors":
        checkpoint.write_tensors = at_call(number, checkpoint.write_tensors, half_a_file)
    elif what == "state":
        checkpoint.write_json = at_call(number, checkpoint.write_json, half_a_file)
    else:  # the checkpoint is whole and in place, older ones are not removed yet
        checkpoint._flush_folder = at_call(number, checkpoint._flush_folder, lambda _: None)
    train(folder)


KILLS: list[list[Kill]] = [
    *([("metrics", number)] for number in (1, 2, 4, 8)),
    *([("tensors", number)] for number in (1, 2, 3, 8, 12)),
    *([("state", number)] for number in (1, 5)),
    *([("renamed", number)] for number in (1, 3)),
    [("metrics", 3), ("tensors", 2), ("state", 2), ("renamed", 1), ("metrics", 1)],
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Tensor], bytes]:
    """Weights and metrics of a run that nothing killed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    return train(folder), (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("kills", KILLS, ids=lambda kills: "-".join(f"{what}{number}" for what, number in kills))
def test_killed_run_goes_on_to_the_same_losses_and_weights(
    tmp_path: Path, whole: tuple[list[Tensor], bytes], kills: list[Kill]
) -> None:
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    for kill in kills:
        child = fork.Process(target=train_and_die, args=(tmp_path, kill))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
    found = train(tmp_path)
    assert all(torch.equal(one, two) for one, two in zip(found, whole[0], strict=True))
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[1]
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-00000016", "step-00000020"]
