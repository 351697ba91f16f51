"""Running average of weights, the ones that are sampled from: one fused interpolation a step, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nas.core.errors import CheckpointError
from nas.training.processes import fill, local, whole_like

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor, nn


class WeightAverage:
    """Average of every parameter of one module; ``state_dict`` and ``load`` go by parameter name.

    The decay of update n (from 0) is 0 at first, then (1 + n) / (10 + n) up to ``decay``: that of diffusers'
    ``EMAModel``, which makes a copy of all weights at every update where this makes none.

    Args:
        module: The module averaged; of a sharded module every process averages its own share.
        decay: Upper limit of the decay.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self._parameters = dict(module.named_parameters())
        self._weights = [local(parameter) for parameter in self._parameters.values()]
        self._averages = [weight.clone() for weight in self._weights]
        self._decay = decay
        self.num_updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's present weights."""
        done, self.num_updates = self.num_updates, self.num_updates + 1
        decay = min(self._decay, (1 + done) / (10 + done)) if done else 0.0
        torch._foreach_lerp_(self._averages, self._weights, 1.0 - decay)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Give the module the averaged weights."""
        torch._foreach_copy_(self._weights, self._averages)

    def state_dict(self) -> Iterator[tuple[str, Tensor]]:
        """Averaged weights by parameter name, each gathered from all processes when it is asked for."""
        for (name, parameter), average in zip(self._parameters.items(), self._averages, strict=True):
            yield name, whole_like(average, parameter)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], *, num_updates: int) -> None:
        """Continue from ``state_dict``.

        Raises:
            CheckpointError: Names or shapes are not this module's.
        """
        require_same_names(tensors, self._parameters, what="averaged weights")
        for (name, parameter), average in zip(self._parameters.items(), self._averages, strict=True):
            if tensors[name].shape != parameter.shape:
                raise CheckpointError(
                    f"averaged weight {name!r} has shape {tuple(tensors[name].shape)}, needs {tuple(parameter.shape)}"
                )
            fill(average, tensors[name], like=parameter)
        self.num_updates = num_updates


def require_same_names(found: Iterable[str], wanted: Iterable[str], *, what: str) -> None:
    """Raise ``CheckpointError`` naming what is missing and what is too many."""
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unknown:
        raise CheckpointError(
            f"{what} do not fit: {len(missing)} missing {missing[:4]}, {len(unknown)} unknown {unknown[:4]}",
            hint="they were written for another architecture or by another version",
        )
