"""Several processes that train one model: who they are, how weights are shared among them, and whole tensors again.

accelerate joins the processes that a launcher started (``torchrun``, ``accelerate launch``, ``nas train --processes``)
and copies gradients between replicas. Sharding is torch's own ``fully_shard``, which changes modules in place, so that
losses go on calling them by any method; accelerate 1.15 leaves it out on CPUs, where it could not be tested.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

# One process evaluates and samples while the others wait; torch's own limit is ten minutes with NCCL.
PATIENCE = timedelta(hours=24)
# Units of sharding: weights of a block are gathered when it is called and let go behind it. All are used by their call.
BLOCKS = ("ResnetBlock2D", "Transformer2DModel", "TemporalAttention", "TemporalConv", "SpatialTemporalHead")
_OTHER_CALLS = ("encode", "forward_with_features")


def num_processes() -> int:
    """Processes that a launcher started to train together; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes files; every process is, without a launcher."""
    return num_processes() == 1 or int(os.environ.get("RANK", "0")) == 0


def join_processes() -> None:
    """Join the processes that a launcher started, once; nothing without one."""
    if num_processes() == 1:
        return
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def wait_for_all() -> None:
    """Return when every process is here."""
    if num_processes() > 1:
        join_processes()
        torch.distributed.barrier()


def tell_all(text: str | None) -> str | None:
    """Send a text of the main process to all; every process calls this and gets it."""
    if num_processes() == 1:
        return text
    join_processes()
    box = [text]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process do the block while the others wait, then the others, who find its files."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()


def shard(module: nn.Module, device: torch.device) -> None:
    """Spread a module's weights over all processes, in place; each keeps an equal share of every tensor."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if isinstance(module, nn.ModuleList | nn.ModuleDict):  # never called itself
        for child in module.children():
            shard(child, device)
        return
    mesh = init_device_mesh(device.type, (num_processes(),))
    blocks = [part for part in module.modules() if type(part).__name__ in BLOCKS]
    for part in [*reversed(blocks), module]:
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    for name in _OTHER_CALLS:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def restore(module: nn.Module, plain: nn.Module) -> None:
    """Make a sharded module what ``plain``, its copy from before, is; torch 2.13 cannot undo ``fully_shard`` itself.

    A module is its attributes. torch remembers the sharded ones by identity, and must forget this one, or a later stage
    could not shard it again.
    """
    from torch.distributed._composable_state import _module_state_mapping

    _module_state_mapping.pop(module, None)
    module.__class__, module.__dict__ = plain.__class__, plain.__dict__


def local(tensor: Tensor) -> Tensor:
    """This process's share of a tensor, sharing its memory; the tensor itself when it is not sharded."""
    plain = tensor.detach()
    return cast("Any", plain).to_local() if _is_sharded(plain) else plain


def whole(tensor: Tensor) -> Tensor:
    """The tensor gathered from all processes, which must all call this."""
    return cast("Any", tensor.detach()).full_tensor() if _is_sharded(tensor) else tensor.detach()


def whole_like(share: Tensor, like: Tensor) -> Tensor:
    """``whole`` of a share that is laid out as the sharded tensor ``like``."""
    if not _is_sharded(like):
        return share
    from torch.distributed.tensor import DTensor

    other = cast("Any", like)
    joined = DTensor.from_local(
        share, other.device_mesh, other.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    return cast("Tensor", joined.full_tensor())


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor laid out as ``like``, from the copy that every process has."""
    if not _is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    other = cast("Any", like)
    return distribute_tensor(tensor.to(like.device), other.device_mesh, other.placements, src_data_rank=None)


@torch.no_grad()
def fill(target: Tensor, tensor: Tensor, *, like: Tensor | None = None) -> None:
    """Copy a whole tensor into ``target``, or into this process's share of what is laid out as ``like``."""
    layout = target if like is None else like
    local(target).copy_(local(share_of(tensor, layout)))


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")
