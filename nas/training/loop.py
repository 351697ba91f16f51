"""The one training loop of every stage: phases with their optimizers, averages, checkpoints, metrics and resume.

A step runs the phases in order on one batch (the adversarial stage has two: heads, then generator). accelerate, which
is imported inside the functions that use it, gives device, precision and gradient accumulation. All randomness comes
from one CPU generator, whose state is in the checkpoint, and the data order from (seed, epoch); the networks draw
nothing themselves (no dropout). So a resumed run repeats the losses to the bit on a CPU.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas.core.errors import CheckpointError, TrainingError
from nas.core.files import JsonLines, canonical_json, write_text_atomically
from nas.training.checkpoint import (
    Checkpoint,
    generator_state,
    list_checkpoints,
    read_checkpoint,
    restore_generator,
    write_checkpoint,
)
from nas.training.ema import WeightAverage, require_same_names

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.training.options import LoopOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a loss function gets: which items, the randomness to use, and where to compute.

    ``indices`` is (B,) on the CPU; draw everything random from ``generator`` (CPU) and move it to ``device``.
    """

    indices: Tensor
    generator: torch.Generator
    step: int
    device: torch.device


LossFunction = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One optimizer step inside a training step.

    ``loss`` returns the scalar to minimise and further scalars for the metrics; ``trains`` names the modules whose
    parameters it changes. The last phase's loss is the stage's ``loss``; others are logged as ``<name>_loss``.
    """

    name: str
    trains: tuple[str, ...]
    loss: LossFunction
    learning_rate_ratio: float = 1.0
    betas: tuple[float, float] | None = None


@dataclass(slots=True)
class _Window:
    """Sums since the last line of metrics."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def means(self) -> dict[str, float]:
        return {name: value / max(self.count, 1) for name, value in self.sums.items()}


class TrainingRun:
    """One stage in progress.

    Args:
        stage: Name for metrics and messages.
        folder: Where ``checkpoints/`` goes.
        metrics: The ``metrics.jsonl`` that all stages of a model share.
        options: Steps, rates and so on.
        modules: Modules by name; all are saved, those that a phase trains are changed.
        phases: Optimizer steps of one training step, in order.
        averaged: Names of modules whose running average is kept; the last phase must train them.
        num_items: Size of the data that ``Batch.indices`` point into.
        streams: Source of randomness; stream names start with the stage's name.
        fingerprint: Digest of everything that decides the outcome; a checkpoint of another is refused.
    """

    def __init__(
        self,
        *,
        stage: str,
        folder: Path,
        metrics: Path,
        options: LoopOptions,
        modules: Mapping[str, nn.Module],
        phases: Sequence[Phase],
        averaged: Sequence[str],
        num_items: int,
        streams: RandomStreams,
        fingerprint: str,
    ) -> None:
        if not set(averaged) <= set(phases[-1].trains):
            # diffusers' average copies parameters that want no gradient instead of averaging them.
            raise ValueError(f"averaged modules must be trained by the last phase, {phases[-1].name!r}: {averaged}")
        self.stage = stage
        self.options = options
        self.phases = tuple(phases)
        self.step = 0
        self.last_loss = math.nan
        self._folder = folder / "checkpoints"
        self._metrics = JsonLines(metrics)
        self._num_items = num_items
        self._streams = streams
        self._fingerprint = fingerprint
        self._window = _Window()
        self._accelerator = make_accelerator(options)
        self._device = self._accelerator.device
        self._generator = torch.Generator().manual_seed(streams.integer(f"{stage}/noise"))
        self._modules = {name: self._accelerator.prepare(module) for name, module in modules.items()}
        # Walking a supernet's thousands of parameters takes longer than a training step: the lists are made once.
        self._weights = {name: list(module.parameters()) for name, module in self._modules.items()}
        self._averages = {name: WeightAverage(self._modules[name], decay=options.ema_decay) for name in averaged}
        self._optimizers = {phase.name: self._make_optimizer(phase) for phase in self.phases}
        self._training: Phase | None = None

    def run(self, progress: Progress) -> None:
        """Train to the last step, from the newest checkpoint if there is one.

        Raises:
            TrainingError: A loss or gradient is not finite; the message names the step, the last checkpoint stays.
            CheckpointError: The newest checkpoint cannot be read or belongs to another run.
            UnavailableError: The disk is full.
        """
        self._resume()
        self._drop_later_metrics()
        total = self.options.steps
        progress.update(self.step, total, self.stage)
        for module in self._modules.values():
            module.train()
        with cpu_threads(self.options.threads):
            while self.step < total:
                self._step_and_keep(progress)
        for module in self._modules.values():
            module.eval()

    def _step_and_keep(self, progress: Progress) -> None:
        total = self.options.steps
        values = self._train_step()
        self.step += 1
        self._window.add(values)
        self.last_loss = values["loss"]
        if self.step % self.options.log_every == 0 or self.step == total:
            means = self._window.means()
            self._metrics.append({"stage": self.stage, "step": self.step, **means})
            self._window = _Window()
            progress.update(self.step, total, f"{self.stage}: loss {means['loss']:.4f}")
        if self.step % self.options.checkpoint_every == 0 and self.step < total:
            self.save()

    def use_averages(self) -> None:
        """Give the averaged modules their averaged weights; training is over."""
        for name, average in self._averages.items():
            average.copy_to(self._modules[name])

    def save(self) -> Path:
        """Write a checkpoint of the present step."""
        tensors: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
        for name, module in self._modules.items():
            tensors["model"].update(_prefixed(name, module.state_dict()))
        for name, average in self._averages.items():
            tensors["ema"].update(_prefixed(name, average.state_dict()))
        for name, optimizer in self._optimizers.items():
            for index, entries in optimizer.state_dict()["state"].items():
                tensors["optimizer"].update(_prefixed(f"{name}.{index}", entries))
        state = {
            "data_position": self._data_position(),
            "generator": generator_state(self._generator),
            "average_updates": {name: average.num_updates for name, average in self._averages.items()},
            "window": {"sums": self._window.sums, "count": self._window.count},
            "last_loss": self.last_loss,
        }
        checkpoint = Checkpoint(step=self.step, fingerprint=self._fingerprint, tensors=tensors, state=state)
        return write_checkpoint(self._folder, checkpoint)

    def _train_step(self) -> dict[str, float]:
        values: dict[str, float] = {}
        rate = cosine_rate(self.step, self.options)
        for phase in self.phases:
            # Phases outside, micro-batches inside: accelerate counts micro-batches to know when a step is complete.
            for micro in range(self.options.accumulation):
                batch = Batch(
                    indices=self._indices(micro), generator=self._generator, step=self.step, device=self._device
                )
                measured = self._micro_step(phase, batch, rate=rate)
                if phase is not self.phases[-1]:
                    measured[f"{phase.name}_loss"] = measured.pop("loss")
                for name, value in measured.items():
                    values[name] = values.get(name, 0.0) + value / self.options.accumulation
        for name, average in self._averages.items():
            average.update(self._weights[name])
        return values

    def _micro_step(self, phase: Phase, batch: Batch, *, rate: float) -> dict[str, float]:
        optimizer = self._optimizers[phase.name]
        for group in optimizer.param_groups:
            group["lr"] = rate * phase.learning_rate_ratio
        with self._accelerator.accumulate(*(self._modules[name] for name in phase.trains)):
            self._want_gradients(phase)
            with self._accelerator.autocast():
                loss, extra = phase.loss(batch)
            values = {"loss": float(loss.detach()), **{name: float(value.detach()) for name, value in extra.items()}}
            self._require_finite(phase, values)
            self._accelerator.backward(loss)
            if self._accelerator.sync_gradients:
                norm = self._accelerator.clip_grad_norm_(self._parameters(phase), self.options.gradient_clip)
                self._require_finite(phase, {"gradient norm": float(norm)})
            optimizer.step()
            optimizer.zero_grad()
        return values

    def _want_gradients(self, phase: Phase) -> None:
        """Let the phase's modules, and no other, want gradients."""
        if self._training is phase:
            return
        for name, weights in self._weights.items():
            for parameter in weights:
                parameter.requires_grad_(name in phase.trains)
        self._training = phase

    def _require_finite(self, phase: Phase, values: Mapping[str, float]) -> None:
        broken = {name: value for name, value in values.items() if not math.isfinite(value)}
        if not broken:
            return
        kept = list_checkpoints(self._folder)
        where = f"the last good checkpoint is {kept[-1].name}" if kept else "no checkpoint was written before it"
        raise TrainingError(
            f"stage {self.stage!r}, step {self.step + 1}, phase {phase.name!r}: not finite: {broken}; {where}",
            hint="lower the learning rate or the gradient clip, or use precision float32",
        )

    def _indices(self, micro: int) -> Tensor:
        """The next micro-batch: consecutive places in endless passes over the data, each in its own order."""
        first = (self.step * self.options.accumulation + micro) * self.options.batch_size
        places = range(first, first + self.options.batch_size)
        epochs = {place // self._num_items for place in places}
        orders = {epoch: self._order(epoch) for epoch in epochs}
        return torch.stack([orders[place // self._num_items][place % self._num_items] for place in places])

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._streams.integer(f"{self.stage}/order", epoch))
        return torch.randperm(self._num_items, generator=generator)

    def _data_position(self) -> int:
        return self.step * self.options.accumulation * self.options.batch_size

    def _make_optimizer(self, phase: Phase) -> Any:
        optimizer = torch.optim.AdamW(
            self._parameters(phase),
            lr=self.options.learning_rate * phase.learning_rate_ratio,
            betas=phase.betas or self.options.betas,
            weight_decay=self.options.weight_decay,
            fused=True,
        )
        return self._accelerator.prepare(optimizer)

    def _parameters(self, phase: Phase) -> list[nn.Parameter]:
        return [parameter for name in phase.trains for parameter in self._weights[name]]

    def _resume(self) -> None:
        kept = list_checkpoints(self._folder)
        if not kept:
            return
        checkpoint = read_checkpoint(kept[-1], fingerprint=self._fingerprint)
        logger.info("stage %s goes on from step %d", self.stage, checkpoint.step)
        tensors, state = checkpoint.tensors, checkpoint.state
        try:
            for name, module in self._modules.items():
                _load_module(module, _without_prefix(name, tensors["model"]), what=f"weights of {name!r}")
            for name, average in self._averages.items():
                average.load(_without_prefix(name, tensors["ema"]), num_updates=state["average_updates"][name])
            for phase in self.phases:
                self._load_optimizer(phase.name, _without_prefix(phase.name, tensors["optimizer"]))
            restore_generator(self._generator, state["generator"])
            self._window = _Window(sums=dict(state["window"]["sums"]), count=int(state["window"]["count"]))
            self.last_loss = float(state["last_loss"])
        except (KeyError, TypeError, RuntimeError, CheckpointError) as error:
            raise CheckpointError(f"{kept[-1]}: does not fit this stage: {error}") from error
        self.step = checkpoint.step

    def _load_optimizer(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, entry = key.split(".", 1)
            entries.setdefault(int(index), {})[entry] = value
        optimizer = self._optimizers[name]
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": entries, "param_groups": groups})

    def _drop_later_metrics(self) -> None:
        """Remove this stage's lines after the step it goes on from: they will be written again."""
        rows = self._metrics.read()
        kept = [row for row in rows if row.get("stage") != self.stage or int(row["step"]) <= self.step]
        if len(kept) != len(rows):
            write_text_atomically(self._metrics.path, "".join(canonical_json(row) + "\n" for row in kept))


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Use ``count`` torch threads on the CPU, then as many as before; ``None`` changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cosine_rate(step: int, options: LoopOptions) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine down to ``final_ratio`` of the peak."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    span = max(options.steps - options.warmup_steps, 1)
    share = min((step - options.warmup_steps) / span, 1.0)
    floor = options.final_ratio
    return options.learning_rate * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * share)))


def make_accelerator(options: LoopOptions) -> Accelerator:
    """Device, precision and accumulation from accelerate.

    Raises:
        TrainingError: Several processes were launched, which the loop cannot share its data among yet.
    """
    from accelerate import Accelerator

    precision = {"float32": "no", "bfloat16": "bf16"}[options.precision]
    accelerator = Accelerator(mixed_precision=precision, gradient_accumulation_steps=options.accumulation)
    if accelerator.num_processes > 1:
        raise TrainingError(f"training runs in one process, accelerate launched {accelerator.num_processes}")
    return accelerator


def _prefixed(name: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{name}.{key}": torch.as_tensor(value) for key, value in tensors.items()}


def _without_prefix(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}


def _load_module(module: nn.Module, tensors: Mapping[str, Tensor], *, what: str) -> None:
    require_same_names(tensors, module.state_dict(), what=what)
    module.load_state_dict(tensors)
