"""Running average of weights, the ones that are sampled from; diffusers' EMAModel, imported where it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch
    from diffusers.training_utils import EMAModel
    from torch import Tensor, nn


class WeightAverage:
    """EMA of every parameter of one module; ``state_dict`` and ``load`` go by parameter name.

    Args:
        module: The module averaged.
        decay: Upper limit of the decay; early on it is (1 + step) / (10 + step), diffusers' default.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        from diffusers.training_utils import EMAModel

        self._names = [name for name, _ in module.named_parameters()]
        self._average: EMAModel = EMAModel(module.parameters(), decay=decay, foreach=True)

    def to(self, device: torch.device) -> None:
        """Move the average."""
        self._average.to(device=device)

    def update(self, parameters: Sequence[nn.Parameter]) -> None:
        """Take in the module's present weights, in the order of its ``parameters()``; they must want gradients."""
        self._average.step(parameters)

    def copy_to(self, module: nn.Module) -> None:
        """Give ``module`` the averaged weights."""
        self._average.copy_to(module.parameters())

    @property
    def num_updates(self) -> int:
        """How often ``update`` was called."""
        return int(self._average.optimization_step)

    def state_dict(self) -> dict[str, Tensor]:
        """Averaged weights by parameter name."""
        return dict(zip(self._names, self._average.shadow_params, strict=True))

    def load(self, tensors: Mapping[str, Tensor], *, num_updates: int) -> None:
        """Continue from ``state_dict``.

        Raises:
            CheckpointError: Names or shapes are not this module's.
        """
        require_same_names(tensors, self._names, what="averaged weights")
        for name, mine in zip(self._names, self._average.shadow_params, strict=True):
            if tensors[name].shape != mine.shape:
                raise CheckpointError(
                    f"averaged weight {name!r} has shape {tuple(tensors[name].shape)}, needs {tuple(mine.shape)}"
                )
            mine.copy_(tensors[name])
        self._average.optimization_step = num_updates


def require_same_names(found: Iterable[str], wanted: Iterable[str], *, what: str) -> None:
    """Raise ``CheckpointError`` naming what is missing and what is too many."""
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unknown:
        raise CheckpointError(
            f"{what} do not fit: {len(missing)} missing {missing[:4]}, {len(unknown)} unknown {unknown[:4]}",
            hint="they were written for another architecture or by another version",
        )
