"""The flow of a lowered denoiser: the video UNet's own, for one clip, with rewritten blocks in it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from nas.models.unet import temporal_key

if TYPE_CHECKING:
    from nas.models.unet import UNetStage, VideoUNet
    from search_spaces.backbone import Stage

M = TypeVar("M", bound=nn.Module)


class Rewriting(Protocol):
    """Turns the blocks of a ``VideoUNet`` into those of one compute unit; ``C`` channels, ``T`` frames."""

    frames: int
    fused: dict[str, type[nn.Module]]  # Core ML operation → the module that coremltools makes one of, each call

    def __init__(self, frames: int) -> None:
        """For clips of ``frames`` frames."""

    def text(self, tokens: Tensor) -> Tensor:
        """Lay out text (1, N, D) as the rewritten attentions take it."""

    def time(self, embedding: nn.Module) -> nn.Module:
        """From the sinusoid (1, C) to what the rewritten ResNet blocks take."""

    def norm(self, norm: nn.GroupNorm) -> nn.Module:
        """Group norm of (T, C, H, W)."""

    def resnet(self, block: nn.Module) -> nn.Module:
        """Called with frames (T, C, H, W) and the time."""

    def transformer(self, transformer: nn.Module) -> nn.Module:
        """Called with frames (T, C, H, W) and the text."""

    def temporal(self, layer: nn.Module) -> nn.Module:
        """Called with frames (T, C, H, W) and the text."""


def sharing_copy(module: M) -> M:
    """Return a copy of a module that shares its parameters and buffers, so that modes and settings are its own."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def fused_operations(module: nn.Module, rewriting: Rewriting) -> dict[str, int]:
    """Return how many Core ML operations of each kind a conversion makes of several torch calls each."""
    parts = list(module.modules())
    return {name: sum(isinstance(part, kind) for part in parts) for name, kind in rewriting.fused.items()}


class LoweredStage(nn.Module):
    """Rewritten modules of one stage, under the names they have in the network."""

    def __init__(self, stage: UNetStage, rewriting: Rewriting) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(rewriting.resnet(block) for block in stage.resnets)
        self.attentions = nn.ModuleDict(
            {key: rewriting.transformer(module) for key, module in stage.attentions.items()}
        )
        for name in ("downsamplers", "upsamplers"):
            if hasattr(stage, name):
                self.add_module(name, sharing_copy(getattr(stage, name)))


class LoweredUNet(nn.Module):
    """A denoiser for one clip, in the form of one compute unit; equal to the network it was made from.

    Shapes: T frames, C channels, H height, W width, N text tokens, D text width.

    Args:
        denoiser: The network; its weights are shared, nothing of it is changed.
        rewriting: How its blocks are rewritten, and for how many frames.
    """

    def __init__(self, denoiser: VideoUNet, rewriting: Rewriting) -> None:
        super().__init__()
        self.spec = denoiser.spec
        self._rewriting = rewriting
        self._last_user = dict(denoiser._last_user)
        self.time_embedding = rewriting.time(denoiser.time_embedding)
        self.conv_in = sharing_copy(denoiser.conv_in)
        self.down_blocks = nn.ModuleList(LoweredStage(cast("Any", stage), rewriting) for stage in denoiser.down_blocks)
        self.mid_block = LoweredStage(denoiser.mid_block, rewriting)
        self.up_blocks = nn.ModuleList(LoweredStage(cast("Any", stage), rewriting) for stage in denoiser.up_blocks)
        self.conv_norm_out = rewriting.norm(denoiser.conv_norm_out)
        self.conv_out = sharing_copy(denoiser.conv_out)
        layers = denoiser.temporal_layers.items() if rewriting.frames > 1 else ()
        self.temporal_layers = nn.ModuleDict({key: rewriting.temporal(layer) for key, layer in layers})
        self.eval()

    def forward(self, sample: Tensor, time_embedding: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Predict the velocity of one clip.

        Args:
            sample: Noisy latents (1, T, C, H, W).
            time_embedding: Sinusoid of the time (1, base channels), see ``nas.export.lowering.host``.
            encoder_hidden_states: Text (1, N, D).
        """
        text = self._rewriting.text(encoder_hidden_states)
        time = self.time_embedding(time_embedding)
        hidden = self.conv_in(sample.reshape(sample.shape[1:]))
        kept = {"conv_in": hidden}
        for stage in self.spec.stages:
            hidden = self._run_stage(stage, hidden, kept, time=time, text=text)
        return self.conv_out(nn.functional.silu(self.conv_norm_out(hidden))).reshape(sample.shape)

    def fused_operations(self) -> dict[str, int]:
        """Return how many operations of each kind coremltools makes of several torch calls each."""
        return fused_operations(self, self._rewriting)

    def _run_stage(
        self, stage: Stage, hidden: Tensor, kept: dict[str, Tensor], *, time: Tensor, text: Tensor
    ) -> Tensor:
        modules = self._modules_of(stage.name)
        for index, block in enumerate(stage.blocks):
            name = f"{stage.name}.{index}"
            if block.skip:
                last = self._last_user[block.skip] == name
                hidden = torch.cat([hidden, kept.pop(block.skip) if last else kept[block.skip]], dim=1)
            hidden = modules.resnets[index](hidden, time)
            if block.attention:
                hidden = modules.attentions[str(index)](hidden, text)
            key = temporal_key(name)
            if key in self.temporal_layers:
                hidden = self.temporal_layers[key](hidden, text)
            self._keep(name, hidden, kept)
        if stage.resample == "down":
            hidden = modules.downsamplers[0](hidden)
            self._keep(f"{stage.name}.downsample", hidden, kept)
        return modules.upsamplers[0](hidden) if stage.resample == "up" else hidden

    def _modules_of(self, stage: str) -> Any:
        if stage == "mid":
            return self.mid_block
        blocks = self.down_blocks if stage.startswith("down") else self.up_blocks
        return blocks[int(stage.removeprefix("down").removeprefix("up"))]

    def _keep(self, name: str, hidden: Tensor, kept: dict[str, Tensor]) -> None:
        if name in self._last_user:
            kept[name] = hidden
