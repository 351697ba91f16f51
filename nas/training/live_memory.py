"""Bytes alive while torch runs: every storage that an operation makes, until it is let go."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


class LiveMemory(TorchDispatchMode):
    """Counts what is made inside ``with``; on fake tensors it costs no memory itself.

    What existed before, as weights and inputs, is not counted. (torch's own tracker in ``torch.distributed._tools``
    cannot run frozen networks, 2.13.)

    Args:
        trained: Parameters whose gradients are told from the rest.

    Attributes:
        peak_bytes: Largest sum so far.
        peak_gradient_bytes: Gradients of ``trained`` in it.
    """

    def __init__(self, trained: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.peak_bytes = 0
        self.peak_gradient_bytes = 0
        self._live_bytes = 0
        self._trained = list(trained)
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it made."""
        made = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, made)
        return made

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Leave out tensors that exist already, so that a view of one is not taken for something new."""
        self._known.update(tensor.untyped_storage()._cdata for tensor in tensors)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self._live_bytes += storage.nbytes()
        weakref.finalize(storage, self._gone, key, storage.nbytes())
        if self._live_bytes > self.peak_bytes:
            self.peak_bytes = self._live_bytes
            grads = (parameter.grad for parameter in self._trained)
            self.peak_gradient_bytes = sum(grad.numel() * grad.element_size() for grad in grads if grad is not None)

    def _gone(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self._live_bytes -= num_bytes
