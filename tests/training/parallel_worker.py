"""One of several processes that train a toy network together; started by test_processes.py with the launcher's names.

Usage: python parallel_worker.py FOLDER; trains in FOLDER/copies with a copy of the weights in each process, and in
FOLDER/shares with the weights spread, where it is interrupted after a checkpoint and goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.core.protocols import SilentProgress
from nas.core.rng import RandomStreams
from nas.training.loop import Batch, Phase, TrainingRun
from nas.training.options import LoopOptions
from nas.training.processes import is_main, wait_for_all

DATA = torch.linspace(-1.0, 1.0, 20).reshape(-1, 1)
OPTIONS = LoopOptions(
    steps=12, batch_size=3, accumulation=4, learning_rate=0.01, warmup_steps=3, checkpoint_every=5, log_every=1
)


class Head(nn.Module):
    """Judges outputs of the network; trained in a phase of its own, as a discriminator is."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 7), nn.Tanh(), nn.Linear(7, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class Network(nn.Module):
    """A path that half of the steps leave out, as image batches leave out temporal layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 8)
        self.extra = nn.Linear(8, 8)
        self.last = nn.Linear(8, 1)

    def forward(self, inputs: Tensor, *, whole: bool) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        return self.last(torch.tanh(self.extra(hidden)) if whole else hidden)


def make_run(folder: Path, options: LoopOptions, start: Network | None = None) -> tuple[TrainingRun, Network]:
    torch.manual_seed(0)
    network, head = start or Network(), Head()

    def draw(batch: Batch) -> tuple[Tensor, Tensor, bool]:
        inputs = DATA[batch.indices]
        noise = 0.1 * torch.randn(inputs.shape, generator=batch.generator)
        return inputs, inputs + noise, batch.decide(0.5)

    def judge(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, noisy, whole = draw(batch)
        with torch.no_grad():
            outputs = network(noisy, whole=whole)
        return (head(outputs) + 1).square().mean() + (head(inputs.square()) - 1).square().mean(), {}

    def fit(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, noisy, whole = draw(batch)
        outputs = network(noisy, whole=whole)
        distance = (outputs - inputs.square()).square().mean()
        return distance - 0.01 * head(outputs).mean(), {"distance": distance}

    run = TrainingRun(
        stage="toy",
        folder=folder,
        metrics=folder / "metrics.jsonl",
        options=options,
        modules={"network": network, "head": nn.ModuleDict({"only": head})},  # a container, as adapters are
        phases=[
            Phase(name="heads", trains=("head",), loss=judge),
            Phase(name="network", trains=("network",), loss=fit),
        ],
        averaged=("network",),
        num_items=len(DATA),
        streams=RandomStreams(7),
        fingerprint="same",
    )
    return run, network


class StopAt(SilentProgress):
    """Ends the run when a step is reported."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, done: int, total: int, message: str = "") -> None:  # noqa: ARG002  # the protocol's signature
        if done == self.step:
            raise InterruptedError


def output(network: Network) -> list[float]:
    with torch.no_grad():
        return network(DATA, whole=True).flatten().tolist()


def main(folder: Path) -> None:
    import dataclasses
    import json

    torch.set_num_threads(1)
    copies, network = make_run(folder / "copies", OPTIONS)
    copies.run(SilentProgress())
    copies.use_averages()
    sharded = dataclasses.replace(OPTIONS, sharding="full")
    broken, _ = make_run(folder / "shares", sharded)
    try:
        broken.run(StopAt(8))
    except InterruptedError:
        wait_for_all()
    resumed, spread = make_run(folder / "shares", sharded)
    resumed.run(SilentProgress())
    resumed.use_averages()
    before = output(spread)
    following, _ = make_run(folder / "following", sharded, spread)  # the next stage trains the same network
    following.run(SilentProgress())
    following.use_averages()
    changed = output(spread) != before
    if is_main():
        kinds = sorted({type(parameter).__name__ for parameter in spread.parameters()})
        result = {"copies": output(network), "shares": before, "kinds": kinds, "changed": changed}
        (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
