"""Peak bytes of live tensors during a torch call, exact at the level of tensor storages.

torch is imported inside the function: this package must load without it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def peak_live_bytes(call: Callable[[], Any]) -> int:
    """Return the largest sum of bytes of storages made during ``call`` and alive at one time.

    Storages that exist before the call (weights, inputs) are not counted; views share their storage and count once.
    Scratch memory that a kernel takes and returns inside one operation is not seen. The result of ``call`` counts.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]  # as above
            self.live = 0
            self.peak = 0
            self.known: dict[int, weakref.ref[Any]] = {}

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            del types
            before = [_storage_key(item) for item in tree_iter((args, kwargs)) if isinstance(item, torch.Tensor)]
            result = func(*args, **(kwargs or {}))
            for item in tree_iter(result):
                if isinstance(item, torch.Tensor):
                    self._note(item.untyped_storage(), set(before))
            self.peak = max(self.peak, self.live)
            return result

        def _note(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
            key = storage._cdata
            if key in self.known or key in inputs:
                return  # a view, an in-place result, or memory held from before the call
            size = storage.nbytes()
            self.live += size

            def released(_: Any) -> None:
                self.live -= size
                self.known.pop(key, None)

            self.known[key] = weakref.ref(storage, released)

    with Tracker() as tracker:
        result = call()
    del result
    return int(tracker.peak)


def _storage_key(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)
