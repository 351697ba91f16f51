"""How a stage runs on what there is: accelerate's device and precision, replicas, recomputation, CPU threads."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas.core.errors import ConfigError
from nas.training.processes import join_processes, num_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from accelerate import Accelerator

    from nas.training.options import LoopOptions

Losses = tuple[Tensor, dict[str, Tensor]]


def make_accelerator(options: LoopOptions) -> Accelerator:
    """Device, precision, accumulation and the processes that were launched, from accelerate.

    Raises:
        ConfigError: The processes cannot take equally many micro-batches of a step.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    count = num_processes()
    if options.accumulation % count:
        raise ConfigError(
            f"{count} processes cannot share a step of {options.accumulation} micro-batches evenly",
            hint=f"set accumulation to a multiple of {count}; batch_size counts the clips of one micro-batch",
        )
    join_processes()
    # One state is shared by all accelerators of a process, and refuses a second precision.
    AcceleratorState._reset_state()
    return Accelerator(
        cpu=count > 1 and not torch.cuda.is_available(),
        mixed_precision={"float32": "no", "bfloat16": "bf16"}[options.precision],
        gradient_accumulation_steps=options.accumulation // count,
        # Batches of single frames leave the temporal layers out.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def training_device() -> torch.device:
    """Where stages train: this process's GPU, or the CPU; accelerate's choice."""
    from accelerate import PartialState

    join_processes()
    return PartialState().device


def set_checkpointing(modules: Iterable[nn.Module], *, on: bool) -> None:
    """Let networks that can compute activations again in the backward pass, and the frozen one behind heads."""
    method = "enable_gradient_checkpointing" if on else "disable_gradient_checkpointing"
    for module in modules:
        for network in (module, getattr(module, "encoder", None)):
            change = getattr(network, method, None)
            if callable(change):
                change()


class LossModule(nn.Module):
    """A loss as a module of what it trains, for torch's replicas."""

    def __init__(self, loss: Callable[[Any], Losses], modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._loss = loss
        self.modules_trained = nn.ModuleDict(modules)

    def forward(self, batch: Any) -> Losses:
        """Return the loss, and the further values without their graphs, which would be waited for."""
        loss, extra = self._loss(batch)
        return loss, {name: value.detach() for name, value in extra.items()}


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Use ``count`` torch threads on the CPU, then as many as before; ``None`` changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
