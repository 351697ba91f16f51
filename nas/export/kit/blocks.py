"""One block of a denoiser in the form of a compute unit, as the lowered network has it inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from nas.core.errors import ConfigError
from nas.export.lowering.gpu import GpuRewriting
from nas.export.lowering.network import fused_operations, sharing_copy
from nas.export.lowering.neural_engine import NeuralEngineRewriting
from search_spaces.layers import TEMPORAL_KINDS, block_inputs

if TYPE_CHECKING:
    from nas.core.workload import BlockSpec
    from nas.export.lowering import Lowering
    from nas.export.lowering.network import Rewriting

_REWRITINGS: dict[str, type[Rewriting]] = {"neural_engine": NeuralEngineRewriting, "gpu": GpuRewriting}


def lowered_shapes(spec: BlockSpec, *, lowering: Lowering) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a lowered block's inputs, in call order.

    They are those of ``block_inputs``, but for the time: the first block gets the sinusoid that the host computes, the
    others what a network for the Neural Engine hands them, which has four axes.
    """
    shapes = block_inputs(spec)
    if "timestep" in shapes:
        return {"time_embedding": (1, spec["channels"])}
    if "time" in shapes and lowering == "neural_engine":
        shapes["time"] = (*shapes["time"], 1, 1)
    return shapes


class LoweredBlock(nn.Module):
    """A block of ``build_block`` rewritten; takes the inputs of ``lowered_shapes`` positionally.

    Args:
        spec: What the block is.
        module: The block as it is trained; its weights are shared.
        lowering: The compute unit.

    Raises:
        ConfigError: There is no such lowering.
    """

    def __init__(self, spec: BlockSpec, module: nn.Module, *, lowering: Lowering) -> None:
        super().__init__()
        if lowering not in _REWRITINGS:
            raise ConfigError(f"unknown lowering {lowering!r}; known are {', '.join(_REWRITINGS)}")
        frames = dict(spec.options).get("frames", 1)
        self._rewriting = _REWRITINGS[lowering](frames)
        self._ports = tuple(lowered_shapes(spec, lowering=lowering))
        self._always_text = spec.kind in TEMPORAL_KINDS
        self.block = _rewritten(spec, cast("Any", module), self._rewriting)
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Do the block's work for one clip."""
        named = dict(zip(self._ports, inputs, strict=True))
        if "skip" in named:
            named["video"] = torch.cat([named["video"], named.pop("skip")], dim=1)
        if "text" in named:
            named["text"] = self._rewriting.text(named["text"])
        arguments: list[Tensor | None] = list(named.values())
        if self._always_text and "text" not in named:
            arguments.append(None)
        return cast("Tensor", self.block(*arguments))

    def fused_operations(self) -> dict[str, int]:
        """Return how many operations of each kind coremltools makes of several torch calls each."""
        return fused_operations(self, self._rewriting)


def _rewritten(spec: BlockSpec, module: Any, rewriting: Rewriting) -> nn.Module:
    if spec.kind in TEMPORAL_KINDS:
        return rewriting.temporal(module)
    match spec.kind:
        case "conv_out":
            norm, activation, convolution = module
            return nn.Sequential(rewriting.norm(norm), activation, sharing_copy(convolution))
        case "time_embedding":
            return rewriting.time(module.time_embedding)
        case "resnet":
            return rewriting.resnet(module.resnet if spec["skip_channels"] else module)
        case "spatial_attention":
            return rewriting.transformer(module.transformer)
    return sharing_copy(module)
