"""The one training loop of every stage: phases with their optimizers, averages, checkpoints, metrics and resume.

A step runs the phases in order on one batch (the adversarial stage has two: heads, then generator). accelerate, which
is imported inside the functions that use it, gives device, precision, accumulation and replicas. What is random comes
from one CPU generator for each phase of each micro-batch, seeded by name, and the data order from (seed, epoch); the
networks draw nothing themselves (no dropout). So a resumed run repeats the losses to the bit on a CPU, and several
processes, which share the micro-batches of a step, train as one would, up to rounding.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from nas.core.errors import CheckpointError, TrainingError
from nas.training.acceleration import Losses, LossModule, cpu_threads, make_accelerator, set_checkpointing
from nas.training.checkpoint import NamedTensors, list_checkpoints, read_checkpoint, write_checkpoint
from nas.training.ema import WeightAverage, require_same_names
from nas.training.metrics import LossWatch, Recorder, Window
from nas.training.processes import fill, is_main, num_processes, restore, shard, share_of, whole

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.protocols import Progress
    from nas.core.rng import RandomStreams
    from nas.training.options import LoopOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a loss function gets: which items, the randomness to use, and where to compute.

    ``indices`` is (B,) on the CPU; draw everything random from ``generator`` (CPU) and move it to ``device``, and
    with ``decide`` whether layers are used at all.
    """

    indices: Tensor
    generator: torch.Generator
    step: int
    device: torch.device
    shared: torch.Generator | None = None

    def decide(self, ratio: float) -> bool:
        """Draw whether something of this probability happens, alike in all micro-batches and processes of a step.

        Processes that share weights must use the same layers at the same time: they wait for each other's.
        """
        return float(torch.rand((), generator=self.shared or self.generator)) < ratio


LossFunction = Callable[[Batch], Losses]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One optimizer step inside a training step.

    ``loss`` returns the scalar to minimise, a mean over the batch, and further scalars for the metrics; ``trains``
    names the modules whose parameters it changes. The last phase's loss is the stage's ``loss``; others are logged as
    ``<name>_loss``.
    """

    name: str
    trains: tuple[str, ...]
    loss: LossFunction
    learning_rate_ratio: float = 1.0
    betas: tuple[float, float] | None = None


class TrainingRun:
    """One stage in progress.

    Args:
        stage: Name for metrics and messages.
        folder: Where ``checkpoints/`` goes.
        metrics: The ``metrics.jsonl`` that all stages of a model share.
        options: Steps, rates and so on.
        modules: Modules by name; all are saved, those that a phase trains are changed.
        phases: Optimizer steps of one training step, in order.
        averaged: Names of modules whose running average is kept.
        num_items: Size of the data that ``Batch.indices`` point into.
        streams: Source of randomness; stream names start with the stage's name.
        fingerprint: Digest of everything that decides the outcome; a checkpoint of another is refused.
        events: Folder of TensorBoard events; None for none.

    Raises:
        ConfigError: The micro-batches of a step cannot be shared evenly among the processes.
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
        events: Path | None = None,
    ) -> None:
        self.stage = stage
        self.options = options
        self.phases = tuple(phases)
        self.step = 0
        self.last_loss = math.nan
        self._folder = folder / "checkpoints"
        self._num_items = num_items
        self._streams = streams
        self._fingerprint = fingerprint
        self._window = Window()
        self._watch = LossWatch(options.divergence_ratio)
        self._accelerator = make_accelerator(options)
        self._device = self._accelerator.device
        self._recorder = Recorder(stage, metrics, events=events if options.tensorboard else None, writes=is_main())
        self._modules = {name: module.to(self._device) for name, module in modules.items()}
        set_checkpointing(self._modules.values(), on=options.gradient_checkpointing)
        self._sharded = options.sharding == "full" and num_processes() > 1
        # Sharding changes modules for good, so the averaged ones, which are used afterwards, get these back at the end.
        self._plain = {name: copy.deepcopy(self._modules[name]) for name in averaged if self._sharded}
        if self._sharded:
            for module in self._modules.values():
                shard(module, self._device)
        # Walking a supernet's thousands of parameters takes longer than a training step: the lists are made once.
        self._weights = {name: list(module.parameters()) for name, module in self._modules.items()}
        self._tensors = {name: module.state_dict(keep_vars=True) for name, module in self._modules.items()}
        self._training: Phase | None = None
        self._orders: dict[int, Tensor] = {}
        self._losses = {phase.name: self._make_loss(phase) for phase in self.phases}
        self._averages = {name: WeightAverage(self._modules[name], decay=options.ema_decay) for name in averaged}
        self._optimizers = {phase.name: self._make_optimizer(phase) for phase in self.phases}

    @property
    def steps_per_s(self) -> float:
        """Steps a second of wall time since this run began or went on."""
        return self._recorder.steps_per_s

    def run(self, progress: Progress) -> None:
        """Train to the last step, from the newest checkpoint if there is one.

        Raises:
            TrainingError: A loss or gradient is not finite, or the loss explodes; the message names the step, and the
                last good checkpoint stays.
            CheckpointError: The newest checkpoint cannot be read or belongs to another run.
            UnavailableError: The disk is full.
        """
        self._resume()
        self._recorder.start(self.step)
        total = self.options.steps
        progress.update(self.step, total, self.stage)
        for module in self._modules.values():
            module.train()
        try:
            with cpu_threads(self.options.threads):
                while self.step < total:
                    self._step_and_keep(progress)
        finally:
            self._recorder.close()
        for module in self._modules.values():
            module.eval()

    def _step_and_keep(self, progress: Progress) -> None:
        total = self.options.steps
        values = self._train_step()
        self.step += 1
        self._window.add(values)
        self.last_loss = values["loss"]
        self._require_calm()
        if self.step % self.options.log_every == 0 or self.step == total:
            means = self._window.means()
            rate = cosine_rate(self.step - 1, self.options)
            text = self._recorder.write(self.step, means, rate=rate, device=self._device)
            self._window = Window()
            progress.update(self.step, total, f"{self.stage}: {text}")
        if self.step % self.options.checkpoint_every == 0 and self.step < total and self._watch.calm:
            self.save()

    def use_averages(self) -> None:
        """Give the averaged modules their averaged weights, whole in every process; training is over."""
        for average in self._averages.values():
            average.copy_to_module()
        set_checkpointing(self._modules.values(), on=False)
        for name, plain in self._plain.items():
            for key, tensor in plain.state_dict().items():
                tensor.copy_(whole(self._tensors[name][key]))
            restore(self._modules[name], plain)
            self._modules[name].eval()
        self._accelerator.free_memory()

    def save(self) -> Path:
        """Write a checkpoint of the present step."""
        state = {
            "data_position": self.step * self.options.accumulation * self.options.batch_size,
            "average_updates": {name: average.num_updates for name, average in self._averages.items()},
            "window": {"sums": self._window.sums, "count": self._window.count},
            "usual_losses": self._watch.state(),
            "last_loss": self.last_loss,
        }
        return write_checkpoint(
            self._folder,
            step=self.step,
            fingerprint=self._fingerprint,
            parts={"model": self._model_tensors(), "ema": self._ema_tensors(), "optimizer": self._optimizer_tensors()},
            state=state,
            writes=is_main(),
        )

    def _model_tensors(self) -> NamedTensors:
        for name, tensors in self._tensors.items():
            yield from ((f"{name}.{key}", whole(tensor)) for key, tensor in tensors.items())

    def _ema_tensors(self) -> NamedTensors:
        for name, average in self._averages.items():
            yield from ((f"{name}.{key}", tensor) for key, tensor in average.state_dict())

    def _optimizer_tensors(self) -> NamedTensors:
        for name, optimizer in self._optimizers.items():
            for index, entries in optimizer.state_dict()["state"].items():
                yield from ((f"{name}.{index}.{key}", whole(torch.as_tensor(value))) for key, value in entries.items())

    def _train_step(self) -> dict[str, float]:
        values: dict[str, float] = {}
        rate = cosine_rate(self.step, self.options)
        for phase in self.phases:
            measured = self._phase_step(phase, rate=rate * phase.learning_rate_ratio)
            if phase is not self.phases[-1]:
                measured[f"{phase.name}_loss"] = measured.pop("loss")
            values.update(measured)
        for average in self._averages.values():
            average.update()
        return values

    def _phase_step(self, phase: Phase, *, rate: float) -> dict[str, float]:
        """Losses of this process's micro-batches, then one step of the optimizer; returns means over all processes."""
        self._want_gradients(phase)
        sums: dict[str, Tensor] = {}
        # Phases outside, micro-batches inside: accelerate counts micro-batches to know when a step is complete.
        for micro in range(self._accelerator.process_index, self.options.accumulation, num_processes()):
            with self._accelerator.accumulate(self._losses[phase.name]):
                with self._accelerator.autocast():
                    loss, extra = self._losses[phase.name](self._batch(phase, micro))
                self._accelerator.backward(loss)
            for name, value in {"loss": loss, **extra}.items():
                sums[name] = value.detach() + sums[name] if name in sums else value.detach()
        optimizer = self._optimizers[phase.name]
        norm = whole(torch.nn.utils.clip_grad_norm_(self._trained(phase), self.options.gradient_clip))
        values = self._means(sums, norm)
        self._require_finite(phase, values)
        values.pop("gradient norm")
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        return values

    def _means(self, sums: Mapping[str, Tensor], norm: Tensor) -> dict[str, float]:
        """Means over the micro-batches of all processes, brought to the CPU in one transfer."""
        means = torch.stack([value.float() for value in sums.values()]) * (num_processes() / self.options.accumulation)
        if num_processes() > 1:
            means = cast("Tensor", self._accelerator.reduce(means, "mean"))
        return dict(zip((*sums, "gradient norm"), torch.cat([means, norm.reshape(1)]).tolist(), strict=True))

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
        if broken:
            where = f"stage {self.stage!r}, step {self.step + 1}, phase {phase.name!r}"
            raise TrainingError(
                f"{where}: not finite: {broken}; {self._kept()}",
                hint="lower the learning rate or the gradient clip, or use precision float32",
            )

    def _require_calm(self) -> None:
        usual = self._watch.median
        if self._watch.exploded(self.last_loss):
            raise TrainingError(
                f"stage {self.stage!r}, step {self.step}: diverges: loss {self.last_loss:.4g} is more than "
                f"{self.options.divergence_ratio:g} times its running median {usual:.4g}; {self._kept()}",
                hint="lower the learning rate or the gradient clip; divergence_ratio: null goes on regardless",
            )

    def _kept(self) -> str:
        kept = list_checkpoints(self._folder)
        return f"the last good checkpoint is {kept[-1].name}" if kept else "no checkpoint was written before it"

    def _batch(self, phase: Phase, micro: int) -> Batch:
        number = self.step * self.options.accumulation + micro
        return Batch(
            indices=self._indices(micro),
            generator=self._random("noise", phase, number),
            step=self.step,
            device=self._device,
            shared=self._random("decisions", phase, self.step),
        )

    def _random(self, purpose: str, phase: Phase, number: int) -> torch.Generator:
        seed = self._streams.integer(f"{self.stage}/{purpose}/{phase.name}", number)
        return torch.Generator().manual_seed(seed)

    def _indices(self, micro: int) -> Tensor:
        """The next micro-batch: consecutive places in endless passes over the data, each in its own order."""
        first = (self.step * self.options.accumulation + micro) * self.options.batch_size
        parts = []
        for epoch in range(first // self._num_items, (first + self.options.batch_size - 1) // self._num_items + 1):
            begin = epoch * self._num_items
            parts.append(self._order(epoch)[max(first - begin, 0) : first + self.options.batch_size - begin])
        return torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        """Order of the items in one pass over the data; the last two passes are kept."""
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(self._streams.integer(f"{self.stage}/order", epoch))
            self._orders = {key: order for key, order in self._orders.items() if key == epoch - 1}
            self._orders[epoch] = torch.randperm(self._num_items, generator=generator)
        return self._orders[epoch]

    def _make_loss(self, phase: Phase) -> LossFunction:
        """The phase's loss; among replicas a module around it, so that torch sees the call and joins the gradients."""
        if num_processes() == 1 or self._sharded:
            return phase.loss
        self._want_gradients(phase)
        module = LossModule(phase.loss, {name: self._modules[name] for name in phase.trains})
        return cast("LossFunction", self._accelerator.prepare_model(module))

    def _make_optimizer(self, phase: Phase) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self._trained(phase),
            lr=self.options.learning_rate * phase.learning_rate_ratio,
            betas=phase.betas or self.options.betas,
            weight_decay=self.options.weight_decay,
            fused=True,
        )

    def _trained(self, phase: Phase) -> list[nn.Parameter]:
        return [parameter for name in phase.trains for parameter in self._weights[name]]

    def _resume(self) -> None:
        kept = list_checkpoints(self._folder)
        if not kept:
            return
        model = {f"{name}.{key}": value for name, own in self._tensors.items() for key, value in own.items()}
        checkpoint = read_checkpoint(kept[-1], fingerprint=self._fingerprint, model=model)
        logger.info("stage %s goes on from step %d", self.stage, checkpoint.step)
        tensors, state = checkpoint.tensors, checkpoint.state
        try:
            for name in self._modules:
                self._load_module(name, _without_prefix(name, tensors["model"]))
            for name, average in self._averages.items():
                average.load(_without_prefix(name, tensors["ema"]), num_updates=int(state["average_updates"][name]))
            for phase in self.phases:
                self._load_optimizer(phase, _without_prefix(phase.name, tensors["optimizer"]))
            self._window = Window(sums=dict(state["window"]["sums"]), count=int(state["window"]["count"]))
            self._watch.load(list(state["usual_losses"]))
            self.last_loss = float(state["last_loss"])
        except (KeyError, TypeError, RuntimeError, CheckpointError) as error:
            raise CheckpointError(f"{kept[-1]}: does not fit this stage: {error}") from error
        self.step = checkpoint.step

    def _load_module(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        mine = self._tensors[name]
        require_same_names(tensors, mine, what=f"weights of {name!r}")
        for key, target in mine.items():
            if tensors[key].shape != target.shape:
                raise CheckpointError(
                    f"weight {key!r} of {name!r} has shape {tuple(tensors[key].shape)}, needs {tuple(target.shape)}"
                )
            fill(target, tensors[key])

    def _load_optimizer(self, phase: Phase, tensors: Mapping[str, Tensor]) -> None:
        trained = self._trained(phase)
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, entry = key.split(".", 1)
            like = trained[int(index)]
            entries.setdefault(int(index), {})[entry] = share_of(value, like) if value.shape == like.shape else value
        optimizer = self._optimizers[phase.name]
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": entries, "param_groups": groups})


def cosine_rate(step: int, options: LoopOptions) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine down to ``final_ratio`` of the peak."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    span = max(options.steps - options.warmup_steps, 1)
    share = min((step - options.warmup_steps) / span, 1.0)
    floor = options.final_ratio
    return options.learning_rate * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * share)))


def _without_prefix(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
